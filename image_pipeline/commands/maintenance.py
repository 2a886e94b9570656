"""``image-pipeline maintenance``: plans of what nobody refers to; carrying them out, undoing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, progress_bar, size
from image_pipeline.maintenance.applying import Applied, apply_plan
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.maintenance.orphans import INVENTORY_AGE
from image_pipeline.maintenance.planning import Planned, Scope, look_for_orphans
from image_pipeline.maintenance.plans import PlanRefused, read_entries, read_plan
from image_pipeline.maintenance.trash import Restored, due_for_purge, purge_trash, restore_plan
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket

#: Entries of a plan that are printed; the whole of it is a Parquet file in the bucket.
SHOWN = 20

_WORDS = {
    "trashed": "moved to the trash",
    "archived": "moved to the archive",
    "gone": "gone before",
    "skipped_now_live": "referred to again: left",
    "skipped_changed": "changed since: left",
    "skipped_busy": "in the hands of another plan: left",
    "skipped_archived": "in an archive class: left",
    "failed": "failed: left",
    "unclear": "unclear: the request to delete them broke off",
    "restored": "put back",
    "there": "never gone, or there again",
    "conflict": "another object is there now: left in the trash",
    "thawing": "asked back from the archive",
    "missing": "in the trash no more",
}

T = TypeVar("T")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _Desk:
    """What housekeeping works with."""

    settings: Settings
    bucket: Bucket
    catalog: Catalog
    progress: Progress


def run_inventory(settings: Settings, as_json: bool) -> int:
    """List the bucket and write down who refers to what."""

    def act(desk: _Desk) -> int:
        found = take_inventory(
            desk.bucket, desk.catalog, settings, settings.now, progress=desk.progress
        )
        orphans = [total for group, total in found.groups.items() if group.orphan]
        unreferenced = sum(one.objects for one in orphans)
        unreferenced_bytes = sum(one.bytes for one in orphans)
        numbers = {
            "inventory": found.id,
            "objects": found.objects,
            "bytes": found.bytes,
            "unreferenced_objects": unreferenced,
            "unreferenced_bytes": unreferenced_bytes,
        }
        if as_json:
            print_json(numbers)
        else:
            print(
                f"Inventory {found.id}: {found.objects:,} objects ({size(found.bytes)});"
                f" nobody refers to {unreferenced:,} of them ({size(unreferenced_bytes)})."
            )
        return 0

    return _with_desk(settings, act)


def run_plan(settings: Settings, scope: Scope, as_json: bool) -> int:
    """Plan what may be removed; takes an inventory first where the newest is too old."""

    def act(desk: _Desk) -> int:
        if _needs_inventory(desk):
            take_inventory(
                desk.bucket, desk.catalog, settings, settings.now, progress=desk.progress
            )
        found = look_for_orphans(
            desk.bucket, desk.catalog, settings, settings.now, scope, desk.progress
        )
        _print_planned(found, as_json)
        return 0

    return _with_desk(settings, act)


def run_apply(
    settings: Settings, plan: str | None, confirm: str | None, dry_run: bool | None, as_json: bool
) -> int:
    """Carry out a plan, by default the newest. Exit code 1 unless all of it was done."""
    only_show = settings.maintenance.dry_run if dry_run is None else dry_run

    def act(desk: _Desk) -> int:
        name = plan or confirm or _newest(desk.catalog)
        if only_show:
            return _show(desk, name, as_json, "Nothing was done; --no-dry-run does it.")
        done = apply_plan(
            desk.bucket, desk.catalog, settings, settings.now, name,
            confirm=confirm, progress=desk.progress,
        )  # fmt: skip
        _print_applied(done, as_json)
        return 1 if done.stopped or done.errors else 0

    return _with_desk(settings, act)


def run_restore(settings: Settings, plan: str, as_json: bool) -> int:
    """Put back what a plan removed. Exit code 1 if something is left to do."""

    def act(desk: _Desk) -> int:
        done = restore_plan(
            desk.bucket, desk.catalog, settings, settings.now, plan, progress=desk.progress
        )
        _print_restored(done, as_json)
        return 0 if done.complete and not done.conflicts else 1

    return _with_desk(settings, act)


def run_purge(settings: Settings, dry_run: bool | None, as_json: bool) -> int:
    """Delete for good what has been in the trash for long enough."""
    only_show = settings.maintenance.dry_run if dry_run is None else dry_run

    def act(desk: _Desk) -> int:
        if only_show:
            due = [one.id for one in due_for_purge(desk.catalog, settings, settings.now())]
            if as_json:
                print_json({"due": due})
            else:
                print(f"Due: {', '.join(due) or 'nothing'}. --no-dry-run deletes it for good.")
            return 0
        done = purge_trash(
            desk.bucket, desk.catalog, settings, settings.now, progress=desk.progress
        )
        if as_json:
            print_json(asdict(done))
        else:
            print(
                f"Deleted {done.objects:,} objects ({size(done.bytes)}) of"
                f" {len(done.plans)} plan(s) for good."
            )
        for error in done.errors:
            print(f"image-pipeline: {error}", file=sys.stderr)
        return 1 if done.errors else 0

    return _with_desk(settings, act)


def run_list(settings: Settings, limit: int, as_json: bool) -> int:
    """The newest plans."""

    def act(desk: _Desk) -> int:
        with desk.catalog.read() as connection:
            rows = housekeeping.recent_plans(connection, limit=limit)
        for row in rows:
            for name in ("created_at", "applied_at", "ended_at"):
                row[name] = row[name].isoformat(timespec="seconds") if row[name] else None
        if as_json:
            print_json(rows)
        elif rows:
            columns = ("id", "kind", "state", "entries", "bytes", "share", "applied_at")
            cells = [
                [*(row[name] for name in columns[:4]), size(row["bytes"]), f"{row['share']:.2%}",
                 row["applied_at"]]
                for row in rows
            ]  # fmt: skip
            print_table(columns, cells, numbers=("entries", "bytes", "share"))
        else:
            print("There is no plan yet: 'image-pipeline maintenance plan' makes one.")
        return 0

    return _with_desk(settings, act)


def run_show(settings: Settings, plan: str, as_json: bool) -> int:
    """A plan, what became of it, and its first entries; with JSON all of them."""
    return _with_desk(settings, lambda desk: _show(desk, plan, as_json, ""))


def _needs_inventory(desk: _Desk) -> bool:
    with desk.catalog.read() as connection:
        newest = housekeeping.newest_inventories(connection, 1)
    return not newest or desk.settings.now() - newest[0].taken_at > INVENTORY_AGE


def _newest(catalog: Catalog) -> str:
    with catalog.read() as connection:
        row = housekeeping.newest_plan(connection, "orphans")
    if row is None:
        raise PlanRefused("no_plan", "there is no plan yet: 'image-pipeline maintenance plan'")
    return str(row["id"])


def _show(desk: _Desk, name: str, as_json: bool, note: str) -> int:
    plan = read_plan(desk.catalog, name)
    with desk.catalog.read() as connection:
        results = (housekeeping.get_plan(connection, name) or {}).get("results") or {}
    entries = read_entries(desk.bucket, plan)
    if as_json:
        listed = [asdict(one) for part in entries for one in part]
        for one in listed:
            one.update({k: v.isoformat() for k, v in one.items() if hasattr(v, "isoformat")})
        head = asdict(plan) | {"created_at": plan.created_at.isoformat(), "results": results}
        print_json({**head, "listed": listed})
        return 0
    print(
        f"Plan {plan.id} ({plan.kind}, {plan.state}): {plan.entries:,} objects,"
        f" {size(plan.bytes)}, {plan.share:.2%} of the bucket."
    )
    _print_counts(results.get("counts", {}))
    first = next(entries, [])[:SHOWN]
    if first:
        rows = [(one.key, size(one.size), one.reason, one.first_at.date()) for one in first]
        print_table(("key", "size", "reason", "first seen"), rows, numbers=("size",))
    if plan.entries > len(first):
        print(f"... and {plan.entries - len(first):,} more; --json prints all.")
    if note:
        print(note)
    return 0


def _print_planned(found: Planned, as_json: bool) -> None:
    plan = found.plan
    if as_json:
        print_json(
            asdict(plan)
            | {
                "created_at": plan.created_at.isoformat(),
                "by_reason": {name: asdict(total) for name, total in found.by_reason.items()},
                "kept": found.kept,
                "doubts": found.doubts,
            }
        )
        return
    print(
        f"Plan {plan.id}: {plan.entries:,} objects, {size(plan.bytes)},"
        f" {plan.share:.2%} of the bucket."
    )
    rows = [(name, total.objects, size(total.bytes)) for name, total in found.by_reason.items()]
    rows += [(f"kept: {guard}", count, "") for guard, count in sorted(found.kept.items())]
    if rows:
        print_table(("reason", "objects", "bytes"), rows, numbers=("objects", "bytes"))
    for doubt in found.doubts:
        print(f"To be confirmed: {doubt}", file=sys.stderr)
    if found.doubts:
        print(f"Look at it, then: image-pipeline maintenance apply --confirm {plan.id}")


def _print_applied(done: Applied, as_json: bool) -> None:
    if as_json:
        print_json(asdict(done))
    else:
        print(f"Plan {done.plan}: {done.removed:,} objects, {size(done.bytes)}, removed.")
        _print_counts(done.counts)
        if done.removed:
            print(f"Undo it with: image-pipeline maintenance restore --plan {done.plan}")
    if done.now_live:
        print(
            f"image-pipeline: {done.now_live:,} objects of the plan are referred to by now and"
            " were left. The plan was about to err: find out why before the next one",
            file=sys.stderr,
        )
    for error in (*done.errors, *([done.stopped] if done.stopped else ())):
        print(f"image-pipeline: {error}", file=sys.stderr)


def _print_restored(done: Restored, as_json: bool) -> None:
    again = done.again_at.isoformat(timespec="minutes") if done.again_at else None
    if as_json:
        print_json(asdict(done) | {"again_at": again, "complete": done.complete})
    else:
        print(f"Plan {done.plan}:")
        _print_counts(done.counts)
    for key in done.conflicts:
        print(f"image-pipeline: {key}: another object is there now", file=sys.stderr)
    for error in done.errors:
        print(f"image-pipeline: {error}", file=sys.stderr)
    if again:
        print(f"image-pipeline: call again after {again} for the archived ones", file=sys.stderr)


def _print_counts(counts: Mapping[str, int]) -> None:
    for outcome, count in counts.items():
        print(f"{count:>12,}  {_WORDS.get(outcome, outcome)}")


def _with_desk(settings: Settings, act: Callable[[_Desk], int]) -> int:
    """Open what is needed, and say in a line why something is refused (exit code 1)."""
    with _desk(settings) as desk:
        try:
            return act(desk)
        except PlanRefused as refused:
            print(f"image-pipeline: {refused}", file=sys.stderr)
            return 1


@contextmanager
def _desk(settings: Settings) -> Iterator[_Desk]:
    catalog, bucket = Catalog(settings.catalog.url), Bucket(settings.bucket)
    try:
        with progress_bar() as bar:
            tasks: dict[str, Any] = {}

            def progress(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, total=None)
                bar.update(tasks[stage], completed=done, total=total)

            yield _Desk(settings, bucket, catalog, progress)
    finally:
        catalog.close()
