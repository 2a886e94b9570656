"""Bringing what is known of a server up to date with the catalog and the bucket."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog import mirror as catalog_mirror
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.mirror import Wanted
from image_pipeline.maintenance.inventory import open_inventory
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.mirror.naming import path_of
from image_pipeline.mirror.planning import LATE, scope_of, target_of
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket

#: Batches read in one step: some thousand files.
_BATCHES = 10

#: Files that are missed, and requests at a time that ask for them.
_PAGE = 500
_THREADS = 8


def look_for_new(settings: Settings, catalog: Catalog, clock: Callable[[], datetime]) -> int:
    """Write down what batches that ended since the last look have brought; how much it is.

    Looks at everything again where the settings want other files than they did.
    """
    target, scope, began = target_of(settings.mirror), scope_of(settings), clock()
    with catalog.read() as connection:
        row = catalog_mirror.target_row(connection, target)
        since = row.looked_until if row.scope == scope.text else None
        page = catalog_mirror.ended_batches(connection, since, None, _BATCHES)
    found = 0
    while page:
        ids = [batch for _, batch in page]
        after = page[-1]
        with catalog.write() as connection:
            wanted: list[Wanted] = []
            if scope.originals:
                wanted += catalog_mirror.originals_of(connection, ids, scope.sources)
            if scope.sizes:
                wanted += catalog_mirror.variants_of(connection, ids, scope.sources, scope.sizes)
            paths = {one.key: path_of(one.key) for one in wanted}
            found += catalog_mirror.want(connection, target, wanted, paths, clock())
            page = catalog_mirror.ended_batches(connection, since, after, _BATCHES)
            # Of a look that is killed, the next one goes on here; of one that came to its end,
            # where something may still be committed with a moment that has passed.
            until = min(after[0], began - LATE) if page else began - LATE
            catalog_mirror.set_target(connection, target, scope=scope.text, looked_until=until)
    return found


def look_for_gone(
    settings: Settings, bucket: Bucket, catalog: Catalog, clock: Callable[[], datetime]
) -> int:
    """Let leave what the bucket has no more, once for each inventory; how many files that are.

    What a complete inventory does not have although it was copied before is asked for once more,
    one by one. Raises ``StoreError`` where the bucket does not answer.
    """
    target = target_of(settings.mirror)
    with catalog.read() as connection:
        row = catalog_mirror.target_row(connection, target)
        newest = housekeeping.newest_inventories(connection, 1)
    if not newest or newest[0].id == row.inventory_id:
        return 0
    inventory = newest[0]
    try:
        if not _mark(settings, bucket, catalog, inventory.id):
            return 0
    except PlanRefused:
        # Its object is gone; there will be another one.
        return 0
    count, after = 0, ""
    while True:
        with catalog.read() as connection:
            keys = catalog_mirror.unseen(
                connection, target, inventory.id, inventory.taken_at, after, _PAGE
            )
        if not keys:
            break
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="mirror") as threads:
            heads = list(threads.map(bucket.head, keys))
        gone = [key for key, head in zip(keys, heads, strict=True) if head is None]
        with catalog.write() as connection:
            count += catalog_mirror.let_leave(connection, target, gone, clock())
        after = keys[-1]
    with catalog.write() as connection:
        catalog_mirror.set_target(connection, target, inventory_id=inventory.id)
    return count


def _mark(settings: Settings, bucket: Bucket, catalog: Catalog, inventory: str) -> bool:
    """Note of every file that the inventory has it; False if it is of another bucket."""
    target = target_of(settings.mirror)
    with open_inventory(bucket, inventory) as file:
        if not file.is_of(bucket):
            return False
        for rows in file.rows(chunk=5 * _PAGE):
            with catalog.write() as connection:
                keys = [row.key for row in rows]
                catalog_mirror.mark_seen(connection, target, keys, inventory)
    return True
