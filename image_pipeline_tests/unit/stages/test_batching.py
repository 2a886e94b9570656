"""One look at a source after another, with a real bucket and a clock moved by hand."""

import json
from datetime import timedelta

import pytest

from image_pipeline.catalog import batches, uploads
from image_pipeline.settings import Batches, Source
from image_pipeline.stages.batching import REQUEST_GRACE, Request, RunState, look_at_source
from image_pipeline.store import layout
from image_pipeline.store.bucket import StoreError

from .helpers import Clock, make_settings

#: Batches close at once, so that no test has to wait.
RULES = Batches(max_images=2, quiet_seconds=0, max_running=2, max_attempts=3)

GRACE = REQUEST_GRACE.total_seconds()


class Watch:
    """A source that is looked at, and the Dagster runs that the looks are told of."""

    def __init__(self, bucket, catalog):
        self.bucket = bucket
        self.catalog = catalog
        self.clock = Clock()
        self.runs = {}
        self.asked = []
        self.rules = RULES
        self.pauses = []

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def look(self, source="photos", runs_of=None):
        sources = {name: Source(prefix=f"uploads/{name}/") for name in ("photos", "products")}
        settings = make_settings(batches=self.rules, sources=sources)
        return look_at_source(
            settings,
            self.bucket,
            self.catalog,
            source,
            "",
            runs_of or self.runs_of,
            self.clock,
            self.sleep,
        )

    def runs_of(self, wanted):
        self.asked.append(list(wanted))
        return {batch: self.runs[batch] for batch in wanted if batch in self.runs}

    def upload(self, *names, source="photos"):
        for name in names:
            self.bucket.put(f"uploads/{source}/{name}", name.encode(), "image/jpeg")

    def batch(self, name):
        with self.catalog.read() as connection:
            return batches.get(connection, name)

    def write(self, change, *arguments):
        with self.catalog.write() as connection:
            return change(connection, *arguments)


@pytest.fixture
def watch(bucket, catalog):
    return Watch(bucket, catalog)


def run(status, seconds=5.0, run_id="run"):
    return RunState(run_id, status, timedelta(seconds=seconds))


def test_nothing_there_asks_for_nothing(watch):
    look = watch.look()
    assert (look.requests, look.dead, look.given_up) == ([], [], [])
    assert (look.sweep.complete, look.sweep.listed, look.sweep.found) == (True, 0, 0)


def test_a_lone_upload_is_waited_for_until_its_batch_may_close(watch):
    watch.rules = RULES.model_copy(update={"quiet_seconds": 1.5})
    watch.upload("a.jpg")
    assert len(watch.look().requests) == 1
    assert watch.pauses == [1.5]


def test_no_time_is_spent_where_nothing_waits_or_a_batch_is_full(watch):
    watch.rules = RULES.model_copy(update={"quiet_seconds": 1.5})
    watch.look()
    watch.upload("a.jpg", "b.jpg")
    assert len(watch.look().requests) == 1
    assert watch.pauses == []


def test_new_uploads_become_a_batch_that_is_asked_for_once(watch):
    watch.upload("a b.jpg", "+.jpg")
    look = watch.look()
    (request,) = look.requests
    assert request == Request(request.batch, 1)
    assert look.sweep.found == 2
    batch = watch.batch(request.batch)
    assert (batch.state, batch.uploads, batch.bytes) == ("requested", 2, len("a b.jpg+.jpg"))
    assert batch.due_at == watch.clock.now + REQUEST_GRACE
    watch.clock.advance(GRACE - 1)
    assert watch.look().requests == []
    assert watch.asked == [[], []], "nothing is overdue: Dagster is asked about no batch"


def test_the_list_of_a_batch_is_in_the_bucket_before_its_run_and_never_changes(watch):
    watch.upload("a.jpg", "b.jpg")
    (request,) = watch.look().requests
    key = layout.batch_key(request.batch)
    document = json.loads(watch.bucket.get(key))
    listed = {one.key: one for one in watch.bucket.list("uploads/photos/")}
    assert document == {
        "batch": request.batch,
        "source": "photos",
        "created_at": watch.clock.now.isoformat(),
        "uploads": [
            {"key": f"uploads/photos/{name}", "etag": listed[f"uploads/photos/{name}"].etag,
             "size": 5}
            for name in ("a.jpg", "b.jpg")
        ],
    }  # fmt: skip
    watch.bucket.put(key, b"kept", "application/json")
    watch.clock.advance(GRACE)
    assert watch.look().requests == [Request(request.batch, 2)]
    assert watch.bucket.get(key) == b"kept"


def test_full_batches_and_the_rest(watch):
    watch.rules = RULES.model_copy(update={"max_running": 9})
    watch.upload(*(f"{n}.jpg" for n in range(5)))
    requests = watch.look().requests
    assert sorted(watch.batch(one.batch).uploads for one in requests) == [1, 2, 2]


def test_a_request_nobody_took_up_is_made_again(watch):
    watch.upload("a.jpg")
    (request,) = watch.look().requests
    watch.clock.advance(GRACE)
    look = watch.look()
    assert look.requests == [Request(request.batch, 2)]
    assert look.dead == []
    assert watch.asked[-1] == [request.batch]


@pytest.mark.parametrize("status", ["QUEUED", "NOT_STARTED", "STARTING"])
def test_a_run_in_the_queue_is_waited_for(watch, status):
    watch.upload("a.jpg")
    (request,) = watch.look().requests
    watch.runs[request.batch] = run(status)
    watch.clock.advance(GRACE)
    assert watch.look().requests == []
    batch = watch.batch(request.batch)
    assert (batch.attempt, batch.due_at) == (1, watch.clock.now + REQUEST_GRACE)
    watch.runs[request.batch] = run("FAILURE", GRACE)
    watch.clock.advance(GRACE)
    assert watch.look().requests == [Request(request.batch, 2)]


def test_a_run_that_holds_its_batch_is_left_alone_and_one_that_does_not_is_dead(watch):
    watch.upload("a.jpg")
    (request,) = watch.look().requests
    watch.runs[request.batch] = run("STARTED", run_id="run 1")
    watch.write(batches.hold, request.batch, "run 1", watch.clock.now + timedelta(seconds=60))
    watch.clock.advance(59)
    look = watch.look()
    assert (look.requests, look.dead) == ([], [])
    watch.clock.advance(1)
    look = watch.look()
    assert (look.requests, look.dead) == ([Request(request.batch, 2)], ["run 1"])


def test_a_batch_that_was_given_back_is_tried_after_its_pause(watch):
    watch.upload("a.jpg")
    (request,) = watch.look().requests
    watch.write(batches.hold, request.batch, "run 1", watch.clock.now + timedelta(seconds=60))
    watch.write(batches.release, request.batch, "run 1", watch.clock.now + timedelta(seconds=30))
    watch.clock.advance(29)
    assert watch.look().requests == []
    watch.clock.advance(1)
    assert watch.look().requests == [Request(request.batch, 2)]


def test_after_its_last_attempt_a_batch_is_given_up_once(watch):
    watch.upload("a.jpg")
    (request,) = watch.look().requests
    seen = []
    for _ in range(3):
        watch.clock.advance(GRACE)
        look = watch.look()
        seen.append(([one.attempt for one in look.requests], look.given_up))
    assert seen == [([2], []), ([3], []), ([], [request.batch])]
    watch.clock.advance(GRACE)
    assert watch.look().given_up == []
    assert watch.batch(request.batch).state == "given_up"


def test_no_more_batches_run_than_the_settings_say(watch):
    watch.upload(*(f"{n}.jpg" for n in range(7)))
    first = watch.look().requests
    assert len(first) == 2
    with watch.catalog.read() as connection:
        counted = {row["state"]: row["uploads"] for row in uploads.counts(connection)}
    assert counted == {"processing": 4, "waiting": 3}, "what cannot run yet is in no batch yet"
    assert watch.look().requests == []
    watch.write(batches.finish, first[0].batch, watch.clock.now)
    (third,) = watch.look().requests
    assert third.batch not in {one.batch for one in first}
    assert watch.batch(third.batch).uploads == 2


def test_a_source_does_not_take_the_place_of_another(watch):
    watch.upload(*(f"{n}.jpg" for n in range(4)))
    watch.upload("p.jpg", source="products")
    assert len(watch.look("photos").requests) == 2
    (request,) = watch.look("products").requests
    with watch.catalog.read() as connection:
        (only,) = uploads.of_batch(connection, request.batch)
    assert only.key == "uploads/products/p.jpg"


def test_a_look_that_dies_before_its_requests_loses_nothing(watch, monkeypatch):
    watch.upload("a.jpg", "b.jpg", "c.jpg")

    def refuse(*_arguments, **_options):
        raise StoreError("503")

    with monkeypatch.context() as patched:
        patched.setattr(watch.bucket, "put", refuse)
        with pytest.raises(StoreError):
            watch.look()
    requests = watch.look().requests
    assert [one.attempt for one in requests] == [1, 1]
    with watch.catalog.read() as connection:
        keys = [one.key for each in requests for one in uploads.of_batch(connection, each.batch)]
    assert sorted(keys) == [f"uploads/photos/{name}.jpg" for name in "abc"]
    for one in requests:
        assert watch.bucket.head(layout.batch_key(one.batch))


def test_a_batch_that_another_look_took_meanwhile_is_not_asked_for_twice(watch):
    watch.upload("a.jpg")
    taken = []

    def another_look(_wanted):
        taken.extend(watch.look().requests)
        return {}

    look = watch.look(runs_of=another_look)
    assert [one.attempt for one in taken] == [1]
    assert look.requests == []
    assert watch.batch(taken[0].batch).attempt == 1


def test_a_new_version_of_a_key_is_a_new_upload(watch):
    watch.upload("a.jpg")
    (first,) = watch.look().requests
    watch.bucket.put("uploads/photos/a.jpg", b"another picture", "image/jpeg")
    look = watch.look()
    (second,) = look.requests
    assert look.sweep.found == 1
    assert second.batch != first.batch
