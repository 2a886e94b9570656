"""``image-pipeline demo --housekeeping``: half a year of housekeeping in a minute, on a copy.

Everything is real but the clock and the bucket: the bucket of the demo is copied, and its
catalog too, so that whatever the rehearsal does, nothing of what is there is touched.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa

from image_pipeline.catalog import batches
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_table, progress_bar, size
from image_pipeline.commands.local import local_bucket
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.inventory import Inventory, take_inventory
from image_pipeline.maintenance.moving import apply_moves, move_rows, plan_classes, stay_rows
from image_pipeline.maintenance.planning import Planned, Scope, look_for_orphans
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.maintenance.refreshing import refresh
from image_pipeline.maintenance.trash import purge_trash, restore_plan
from image_pipeline.settings import EMBEDDED, Recipe, Settings
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.stages.rendering import render_batch
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import IMMUTABLE, image_manifest_key, variant_key

#: The bucket of the rehearsal beside that of the demo.
SUFFIX = "-rehearsal"

#: Requests at a time while the bucket is copied and removed.
THREADS = 8

#: Seconds until a batch that the rehearsal runs would be taken for abandoned.
_HOLD_SECONDS = 3600.0


def run_rehearsal(settings: Settings, config: Path | None, bucket: Bucket | None = None) -> int:
    """Rehearse housekeeping after the demo; the exit code is 0, or 1 if anything went wrong.

    ``bucket`` is the demo's where its server runs already. Raises ``click.ClickException``
    anywhere but on the embedded bucket with a catalog in a file.
    """
    database = _catalog_file(settings)
    if bucket is None:
        with local_bucket(settings) as opened:
            return run_rehearsal(settings, config, opened)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        catalog = _copy_catalog(database, Path(folder) / "catalog.db")
        with closing(catalog), _copy_bucket(settings, bucket) as copy:
            try:
                return _Rehearsal(settings, copy, catalog).run()
            except PlanRefused as refused:
                raise click.ClickException(str(refused)) from None


def _catalog_file(settings: Settings) -> str:
    url = sa.make_url(settings.catalog.url)
    if settings.bucket.endpoint_url != EMBEDDED:
        raise click.ClickException(
            "housekeeping is rehearsed with 'bucket.endpoint_url: embedded' only: with a clock"
            " that is ahead, everything in a bucket looks old"
        )
    if url.get_backend_name() != "sqlite" or not Path(url.database or "").is_file():
        raise click.ClickException(
            "housekeeping is rehearsed with a catalog in a SQLite file, after the demo has run"
        )
    return str(url.database)


def _copy_catalog(database: str, path: Path) -> Catalog:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
    return Catalog(f"sqlite:///{path}")


@contextmanager
def _copy_bucket(settings: Settings, bucket: Bucket) -> Iterator[Bucket]:
    """A bucket with the same objects on the same server, gone at the end."""
    name = f"{bucket.name[: 63 - len(SUFFIX)]}{SUFFIX}"
    copy = Bucket(settings.bucket.model_copy(update={"name": name}))
    copy.create_if_missing()
    try:
        _empty(copy)

        def put(key: str) -> None:
            source: Any = {"Bucket": bucket.name, "Key": key}
            copy.client.copy_object(Bucket=copy.name, Key=key, CopySource=source)

        _with_each("copying the bucket", put, [one.key for one in bucket.list("")])
        yield copy
    finally:
        _empty(copy)
        copy.client.delete_bucket(Bucket=copy.name)


def _with_each(text: str, act: Callable[[str], None], keys: list[str]) -> None:
    with progress_bar() as progress, ThreadPoolExecutor(THREADS) as threads:
        for _ in progress.track(threads.map(act, keys), total=len(keys), description=text):
            pass


def _empty(bucket: Bucket) -> None:
    """Only ever of the rehearsal's own bucket."""
    if not bucket.name.endswith(SUFFIX):
        raise AssertionError(bucket.name)
    bucket.delete([one.key for one in bucket.list("")])


class _Rehearsal:
    """The copy, and a clock that is so many days ahead."""

    def __init__(self, settings: Settings, bucket: Bucket, catalog: Catalog) -> None:
        self.settings = settings.model_copy(update={"bucket": bucket.settings})
        self.bucket = bucket
        self.catalog = catalog

    def run(self) -> int:
        """One table for each thing that happens."""
        self._leave_orphans()
        self._look(0.0, "seen for the first time")
        self._look(25 / 24, "seen twice, and still young")
        # What was replaced counts as needed for the grace period, and is seen from then on.
        self._look(16.0, "with what was replaced")
        planned = self._look(31.0, "old enough")
        counts = [planned.plan.entries, self._apply(planned), self._restore(planned)]
        self._move(31.0)
        self._look(32.0, "restored, so seen for the first time again")
        planned = self._look(47.0, "old enough again")
        again = [planned.plan.entries, self._apply(planned)]
        again.append(self._purge(47.0 + self.settings.maintenance.cleanup.trash_days + 1))
        self._move(200.0)
        print("\nIt was a rehearsal: the copy is gone, your bucket and catalog are as they were.")
        return 0 if all(len(set(one)) == 1 and one[0] for one in (counts, again)) else 1

    def _at(self, days: float) -> Settings:
        update = {"ahead_days": days}
        return self.settings.model_copy(update=update)

    def _things(self, days: float) -> tuple[Bucket, Catalog, Settings, Callable[[], Any]]:
        settings = self._at(days)
        return self.bucket, self.catalog, settings, settings.now

    def _leave_orphans(self) -> None:
        """What killed runs, changed recipes and other catalogs leave behind."""
        source = next(iter(self.settings.sources))
        image = hashlib.sha256(b"an image that nobody knows").hexdigest()
        unknown = {
            variant_key(image, "large", 1920, 1080, "0123456789ab", "webp"): "image/webp",
            image_manifest_key(source, image): "application/json",
        }
        for key, kind in unknown.items():
            self.bucket.put(key, b"left over", kind, IMMUTABLE)
        take_inventory(*self._things(0.0))
        rendered = self._render_anew(source)
        rows = [
            *((key, "nobody knows it") for key in unknown),
            (f"variants of {rendered} images", "replaced: they were rendered by a new recipe"),
        ]
        _print("Left behind on purpose", ("what", "why"), rows)

    def _render_anew(self, source: str) -> int:
        """Change the recipe of a source and render one of its batches by it: small files only."""
        name = self.settings.sources[source].recipe
        recipe = self.settings.recipes[name]
        smallest = min(recipe.sizes, key=lambda size: recipe.sizes[size].width)
        sizes = {smallest: recipe.sizes[smallest].model_copy(update={"quality_offset": -10})}
        changed: Mapping[str, Recipe] = {
            **self.settings.recipes,
            name: recipe.model_copy(update={"sizes": sizes}),
        }
        settings = self.settings.model_copy(update={"recipes": changed})
        found = refresh(
            self.bucket, self.catalog, settings, settings.now,
            dry_run=False, outdated=True, source=source, max_objects=1,
        )  # fmt: skip
        with progress_bar() as progress:
            task = progress.add_task("rendering by a new recipe", total=None)
            tools = Tools.open(
                settings,
                self.bucket,
                self.catalog,
                lambda _, done, total: progress.update(task, completed=done, total=total),
            )
            with tools.workers:
                for batch in found.reopened:
                    _run(tools, batch)
            tools.spool.clear()
        # It was tried on a copy; everything after uses the recipe that made the files.
        self.settings = settings
        return len(found.choice.chosen)

    def _look(self, days: float, what: str) -> Planned:
        """An inventory and a plan, and the orphans that it has, by reason."""
        inventory: Inventory = take_inventory(*self._things(days))
        planned = look_for_orphans(*self._things(days), Scope())
        rows = [
            (reason, total.objects, size(total.bytes), "may go")
            for reason, total in sorted(planned.by_reason.items())
        ]
        rows += [
            (guard, number, "", "kept") for guard, number in sorted(planned.kept.items()) if number
        ]
        title = f"{_day(days)}: {inventory.objects:,} objects; orphans {what}"
        _print(title, ("reason or guard", "objects", "size", "outcome"), rows)
        return planned

    def _apply(self, planned: Planned) -> int:
        days = self._days_of(planned)
        plan = planned.plan
        done = apply_plan(*self._things(days), plan.id, confirm=plan.id)
        rows = [(name, number, size(done.bytes)) for name, number in done.counts.items()]
        share = f"{plan.share:.1%} of the bucket"
        title = f"{_day(days)}: plan {plan.id} ({share}) is confirmed and applied"
        _print(title, ("outcome", "objects", "size"), rows)
        return done.removed

    def _restore(self, planned: Planned) -> int:
        days = self._days_of(planned)
        done = restore_plan(*self._things(days), planned.plan.id)
        title = f"{_day(days)}: second thoughts, the plan is undone"
        _print(title, ("outcome", "objects"), done.counts.items())
        return done.counts.get("restored", 0)

    def _purge(self, days: float) -> int:
        before = sum(1 for _ in self.bucket.list("trash/"))
        done = purge_trash(*self._things(days))
        left = sum(1 for _ in self.bucket.list("trash/"))
        rows = [("purged", done.objects, size(done.bytes)), ("left in the trash", left, "")]
        _print(f"{_day(days)}: the trash is purged", ("outcome", "objects", "size"), rows)
        return before - left

    def _move(self, days: float) -> None:
        """Originals to colder storage, with what that saves."""
        take_inventory(*self._things(days))
        planned = plan_classes(*self._things(days))
        done = apply_moves(*self._things(days), planned.plan.id)
        rows: list[tuple[Any, ...]] = [
            (
                f"{row['from']} to {row['to']}",
                row["objects"],
                size(row["bytes"]),
                f"{row['monthly_saving_usd']:.6f}",
                f"{row['once_usd']:.6f}",
            )
            for row in move_rows(done.moves)
        ]
        rows += [
            (f"stays: {row['reason']}", row["objects"], size(row["bytes"]), "", "")
            for row in stay_rows(planned)
        ]
        columns = ("originals", "objects", "size", "USD saved a month", "USD once")
        _print(f"{_day(days)}: storage classes", columns, rows)

    def _days_of(self, planned: Planned) -> float:
        ahead = planned.plan.created_at - self.settings.now()
        return max(0.0, ahead.total_seconds() / 86_400)


def _run(tools: Tools, batch: str) -> None:
    """What a run does with a batch that was opened again."""
    with tools.catalog.write() as connection:
        until = batches.retry_at(tools.clock(), 1, _HOLD_SECONDS)
        batches.hold(connection, batch, "rehearsal", until)
    render_batch(tools, batch)
    finish_batch(tools, batch, publish_batch(tools, batch))


def _day(days: float) -> str:
    return "Today" if not days else f"Day {days:.0f}" if days >= 2 else f"{days * 24:.0f} h later"


def _print(title: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    print(f"\n{title}\n")
    print_table(columns, rows, numbers=[one for one in columns[1:] if one in _NUMBERS])


_NUMBERS = frozenset({"objects", "size", "USD saved a month", "USD once"})
