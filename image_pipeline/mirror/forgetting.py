"""Removing for good what somebody wants forgotten, without the way through the trash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from image_pipeline.catalog import mirror as catalog_mirror
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.mirror import Target
from image_pipeline.mirror.naming import path_of
from image_pipeline.mirror.planning import target_of
from image_pipeline.mirror.remote import MirrorError, Remote
from image_pipeline.mirror.running import open_sftp
from image_pipeline.mirror.transferring import Place, erase, erase_folder
from image_pipeline.settings import Settings


def forget_copies(
    settings: Settings,
    catalog: Catalog,
    keys: Collection[str],
    images: Collection[str],
    connect: Callable[[set[str]], Awaitable[Remote]] | None = None,
) -> list[str]:
    """Erase the copies of these objects, and of all files of these images; what remains.

    Also those in the trash there, and what was half sent. An empty list is the proof that nothing
    is left; another call goes on where the server was away.
    """
    with catalog.read() as connection:
        copies = catalog_mirror.copies_to_erase(connection, keys, images)
        mine = target_of(settings.mirror) if settings.mirror.host is not None else None
        was_used = mine and catalog_mirror.target_row(connection, mine) != Target()
    remains = [
        f"{target}/{copy.path}: the settings name another mirror, or none"
        for target, copy in copies
        if target != mine
    ]
    if mine is None or not was_used:
        return remains
    opening = connect or partial(open_sftp, settings.mirror)

    def drop() -> None:
        with catalog.write() as connection:
            catalog_mirror.drop(connection, mine, [copy.key for at, copy in copies if at == mine])

    try:
        asyncio.run(_erase(Place(settings.mirror.path, ""), keys, images, opening, drop))
    except MirrorError as error:
        remains.append(f"copies on {mine}: {error}")
    return remains


async def _erase(
    place: Place,
    keys: Collection[str],
    images: Collection[str],
    connect: Callable[[set[str]], Awaitable[Remote]],
    drop: Callable[[], None],
) -> None:
    remote = await connect(set())
    try:
        await _erase_all(remote, place, keys, images)
        # From here on a run that is sending one of them removes it itself; before, it may have
        # come to its end a moment after we were here.
        drop()
        await _erase_all(remote, place, keys, images)
    finally:
        await remote.close()


async def _erase_all(
    remote: Remote, place: Place, keys: Collection[str], images: Collection[str]
) -> None:
    for key in keys:
        await erase(remote, place, path_of(key))
    for image in images:
        await erase_folder(remote, place, f"variants/{image}")
