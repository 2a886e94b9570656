"""Housekeeping against everything that may happen at the same time, as a game with rules.

Hypothesis plays it: uploads, batches, recipes, inventories, plans and their applying in any
order, with kills, errors and other processes in the middle of any step. After each step nothing
that is alive may be gone; at the end, after some quiet weeks, nothing else may be left.

``IMAGE_PIPELINE_SEQUENCES`` says how many games are played.
"""

import hashlib
import os
from collections import Counter
from datetime import timedelta

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, event, seed, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from image_pipeline.catalog import batches, schema
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.maintenance.planning import plan_orphans
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.maintenance.refreshing import refresh
from image_pipeline.maintenance.trash import purge_trash, restore_plan
from image_pipeline_tests.faults.alive import Alive, check
from image_pipeline_tests.faults.miniature import (
    SOURCES,
    Meddler,
    WatchedCatalog,
    World,
    meddled,
    picture,
    run_in_one_thread,
)

pytestmark = pytest.mark.faults

#: Games in all; less than half a minute of them unless more are asked for.
SEQUENCES = int(os.environ.get("IMAGE_PIPELINE_SEQUENCES", "32"))

#: Games are shared out, so that as many processes play as there are.
TABLES = 4

STEPS = 25

#: What is done by processes, each of which may be stopped or disturbed anywhere.
WORK = ("look", "run", "inventory", "plan", "apply", "purge", "restore", "refresh")

works = st.sampled_from(WORK)
sources = st.sampled_from(SOURCES)
numbers = st.integers(0, 5)
#: A step makes up to about a hundred requests; most of what matters is in the first thirty.
moments = st.integers(1, 30) | st.integers(30, 120)


class Game(RuleBasedStateMachine):
    """One bucket, one catalog, and whoever works with them."""

    table = None  # a pair (folder, catalog), set for each test

    def __init__(self):
        super().__init__()
        self.world = World(*self.table)
        self.counts = Counter()
        #: When inventories found what nothing leads to, by key.
        self.unneeded = {}

    @initialize(copies=st.lists(st.integers(0, 2), min_size=2, max_size=4))
    def begin(self, copies):
        """Something is published, and then something else by another recipe."""
        for number, copy in enumerate(copies):
            self.world.upload(SOURCES[number % 2], f"file{number}", picture(number % 3, copy))
        self.process()

    # People

    @rule(source=sources, name=numbers, number=numbers, copy=st.integers(0, 2))
    def upload(self, source, name, number, copy):
        self.world.upload(source, f"file{name}", picture(number, copy))
        self.world.advance(seconds=1)

    @rule(number=numbers)
    def delete_an_original(self, number):
        keys = sorted(key for key in self.world.bucket.objects if key.startswith("uploads/"))
        if keys:
            self.world.delete(keys[number % len(keys)])

    @rule(source=sources, quality=st.sampled_from([60, 70, 80]))
    def change_recipe(self, source, quality):
        self.world.change_recipe(source, quality)

    @rule(
        number=numbers,
        folder=st.sampled_from(["variants", "manifests", "warm", "indexes"]),
        days=st.sampled_from([0, 20]),
    )
    def leave_an_orphan(self, number, folder, days):
        """What killed runs of earlier versions, or catalogs that were reset, leave behind."""
        image = hashlib.sha256(bytes([number])).hexdigest()
        key = {
            "variants": f"variants/{image}/large-120x80.0123456789ab.webp",
            "manifests": f"manifests/photos/{image}.json",
            "warm": f"manifests/warm/photos-20250101-000000-00000{number}.json",
            "indexes": f"indexes/photos/000000.{image[:16]}.json",
        }[folder]
        self.world.write(key, b"nobody's", days)

    @rule(number=numbers, folder=st.sampled_from(["", "keep/", "variants/"]))
    def put_something_foreign(self, number, folder):
        key = f"{folder}notes {number}.txt"
        self.world.write(key, b"somebody's")
        self.world.foreign.add(key)

    @rule(number=st.integers(0, 30))
    def lose_a_file(self, number):
        """What an operator deletes by mistake."""
        keys = sorted(key for key in Alive(self.world).wanted() if key.startswith("variants/"))
        keys = [key for key in keys if key not in self.world.foreign]
        if keys:
            self.world.lose(keys[number % len(keys)])

    @rule(hours=st.sampled_from([0.1, 1.1, 25, 24 * 8, 24 * 15, 24 * 31]))
    def wait(self, hours):
        self.world.advance(hours=hours)

    # Processes

    @rule()
    def process(self):
        """Every upload that is there gets through, as on a good day."""
        self.process_nothing_yet()
        for batch in self.world.open_batches():
            self.world.run(batch)

    @rule(weeks=st.integers(1, 3), purge=st.booleans())
    def clean_up(self, weeks, purge):
        """What happens by the clock."""
        for _ in range(weeks):
            self.world.advance(days=8)
            for name in ("inventory", "plan", "apply", *(["purge"] if purge else [])):
                self.work(name, 0)

    @rule(name=works, number=numbers)
    def work_alone(self, name, number):
        self.work(name, number)

    @rule(name=works, number=numbers, moment=moments, again=st.booleans())
    def work_and_be_killed(self, name, number, moment, again):
        self.prepare(name)
        with meddled(self.world, moment, self.world.meddler.kill):
            self.work(name, number)
        if again:
            check(self.world)
            self.work(name, number)

    @rule(name=works, number=numbers, moment=moments)
    def work_and_meet_an_error(self, name, number, moment):
        self.prepare(name)
        with meddled(self.world, moment, self.world.meddler.fail):
            self.work(name, number)

    @rule(
        name=works, number=numbers, moment=moments, other=works, others=numbers,
        moved=st.integers(0, 3),
    )  # fmt: skip
    def work_at_the_same_time(self, name, number, moment, other, others, moved):
        """Another process does all of its work at some moment of this one's."""

        def meanwhile(_):
            if moved == 0:
                self.upload("photos", others, others, number % 3)
            self.work(other, others)

        self.prepare(other)
        self.prepare(name)
        with meddled(self.world, moment, meanwhile, outside=True):
            self.work(name, number)

    @rule(source=sources, moment=moments, first=st.sampled_from(["apply", "run"]))
    def want_again_what_goes(self, source, moment, first):
        """A recipe is changed, and changed back on the day on which its old files would go."""
        quality = self.world.qualities[source]
        self.prepare("refresh")
        self.world.change_recipe(source, quality - 5)
        self.work("refresh", 1)
        self.process()
        for _ in range(3):
            self.world.advance(days=8)
            self.work("inventory", 0)
        self.work("plan", 0)

        def want_again(_=None):
            self.world.change_recipe(source, quality)
            self.work("refresh", 1)
            self.process_nothing_yet()

        def run_all(_=None):
            want_again()
            for batch in self.world.open_batches():
                self.world.run(batch)

        if first == "run":
            want_again()
            with meddled(self.world, moment, lambda _: self.work("apply", 0), outside=True):
                self.work("run", 0)
        else:
            # Nothing speaks for the files when they are announced, and then all of it does.
            with meddled(self.world, moment, run_all, outside=True):
                self.work("apply", 0)

    @invariant()
    def nothing_alive_is_gone(self):
        check(self.world)

    def teardown(self):
        # Of a catalog that knows nothing, nothing is concluded.
        for source in SOURCES:
            self.world.upload(source, "last", picture(0, 0))
        self.mend()
        self.pass_quiet_weeks()
        for what, count in self.counts.items():
            event(what, payload=count)

    def prepare(self, name):
        """See to it that a process has something to do."""
        if name == "run" and not self.world.open_batches():
            self.process_nothing_yet()
        elif name in ("plan", "refresh"):
            self.work("inventory", 0)
        elif name == "apply" and not self._plans("planned", "needs_confirmation", "applying"):
            self.work("inventory", 0)
            self.work("plan", 0)

    def process_nothing_yet(self):
        """Batches are asked for, and nobody has run them."""
        self.world.advance(minutes=2)
        for source in SOURCES:
            self.world.look(source)

    def work(self, name, number):
        """One process from its start to its end; what it refuses to do is no fault."""
        try:
            getattr(self, f"_{name}")(number)
        except PlanRefused as refused:
            self.counts[f"refused: {refused.code}"] += 1

    def _look(self, number):
        self.world.look(SOURCES[number % len(SOURCES)])

    def _run(self, number):
        waiting = self.world.open_batches()
        if waiting:
            self.world.run(waiting[number % len(waiting)])

    def _inventory(self, number):
        take_inventory(*self._things())
        wanted = Alive(self.world).wanted()
        for key in self.world.bucket.objects:
            if key in wanted:
                self.unneeded.pop(key, None)
            else:
                self.unneeded.setdefault(key, []).append(self.world.clock())

    def _plan(self, number):
        plan_orphans(*self._things())

    def _apply(self, number):
        found = self._plans("planned", "needs_confirmation", "applying")
        if found:
            plan = found[-1 - number % len(found)]
            before = dict(self.world.bucket.objects)
            try:
                self.counts.update(apply_plan(*self._things(), plan, confirm=plan).counts)
            finally:
                self.check_guards(before)

    def check_guards(self, before):
        """What went was old enough, and seen without anybody at two times."""
        for key in before.keys() - self.world.bucket.objects.keys():
            if key.startswith("trash/") or key in self.world.lost:
                continue
            days = 30 if key.startswith("uploads/") else 14
            assert self.world.clock() - before[key].last_modified > timedelta(days=days), key
            seen = self.unneeded.get(key, [])
            assert seen, f"{key} was never seen unneeded"
            assert seen[-1] - seen[0] >= timedelta(hours=24), f"{key} was seen once"

    def _purge(self, number):
        self.counts["purged"] += purge_trash(*self._things()).objects

    def _restore(self, number):
        found = self._plans("applied", "applying")
        if found:
            self.restore(found[number % len(found)])

    def _refresh(self, number):
        found = refresh(*self._things(), dry_run=False, outdated=number % 2 == 1)
        self.counts["refreshed"] += len(found.choice.chosen)

    def _things(self):
        world = self.world
        return world.bucket, world.catalog, world.settings(), world.clock

    def _plans(self, *states):
        with self.world.catalog.engine.connect() as connection:
            query = sa.select(schema.plans.c.id).where(schema.plans.c.state.in_(states))
            return list(connection.execute(query.order_by(schema.plans.c.created_at)).scalars())

    def restore(self, plan):
        """Everything comes back, unless something newer is in its place."""
        objects = self.world.bucket.objects
        prefix = f"trash/{plan}/"
        trash = {key[len(prefix) :]: objects[key] for key in objects if key.startswith(prefix)}
        there = {key: objects[key].data for key in trash if key in objects}
        done = restore_plan(*self._things(), plan)
        self.counts.update(done.counts)
        if not done.complete:
            assert self.world.meddler.fired, done
            return  # the next call goes on
        for key, stored in trash.items():
            assert key in objects, f"{key} was not restored from {plan}"
            if there.get(key, stored.data) == stored.data:
                assert objects[key].data == stored.data, f"{key} was restored with other bytes"

    # The end

    def process_everything(self):
        """Until no batch is open; what was given up is tried by hand."""
        for _ in range(5):
            self.process()
            with self.world.catalog.write() as connection:
                query = sa.select(schema.batches.c.id).where(schema.batches.c.state == "given_up")
                given_up = list(connection.execute(query).scalars())
                batches.reopen(connection, given_up, self.world.clock())
            if not Alive(self.world).open_batches():
                break
        assert not Alive(self.world).open_batches(), self.world.failures
        check(self.world)

    def mend(self):
        """What was lost is made again; what nobody has the original of comes from a backup."""
        self.process()
        self.world.advance(hours=2)
        for key in self.lost_for_good():
            self.world.bucket.write(key, self.world.truth[key])
        self._inventory(0)
        refresh(*self._things(), dry_run=False)
        self.process_everything()
        wanted = Alive(self.world).wanted()
        lost = [key for key in wanted if key not in self.world.bucket.objects]
        assert not lost, f"not made again: {lost}"

    def lost_for_good(self):
        """Files of images whose original was overwritten or deleted."""
        originals = {
            hashlib.sha256(stored.data).hexdigest()
            for key, stored in self.world.bucket.objects.items()
            if key.startswith("uploads/")
        }
        return [key for key in self.world.lost if key.split("/")[1] not in originals]

    def pass_quiet_weeks(self):
        """Nothing else happens: every orphan is found, moved to the trash, purged."""
        self.world.advance(hours=2)
        for plan in self._plans("applying"):
            apply_plan(*self._things(), plan)
        for _ in range(6):
            self.world.advance(days=8)
            self._inventory(0)
            self._plan(0)
            self._apply(0)
            check(self.world)
        self.world.advance(days=31)
        purge_trash(*self._things())
        wanted = Alive(self.world).wanted()
        left = [
            key
            for key in self.world.bucket.objects
            if key not in wanted and not key.startswith("plans/")
        ]
        assert not left, left


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """One catalog for all games: it is emptied for each."""
    path = tmp_path_factory.mktemp("games") / "catalog.db"
    made = WatchedCatalog(f"sqlite:///{path}", Meddler())
    sa.event.listen(made.engine, "connect", _be_quick)
    yield made
    made.close()


def _be_quick(connection, _):
    connection.execute("PRAGMA synchronous=OFF")


@pytest.mark.parametrize("table", range(TABLES))
def test_housekeeping_never_removes_what_is_alive(table, catalog, tmp_path, monkeypatch):
    run_in_one_thread(monkeypatch)
    game = seed(table)(type("Game", (Game,), {"table": (tmp_path, catalog)}))
    run_state_machine_as_test(
        game,
        settings=settings(
            max_examples=max(1, SEQUENCES // TABLES),
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=False,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
