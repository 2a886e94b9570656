"""``image-pipeline mirror``, and its part of the demo."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from image_pipeline.catalog import mirror as catalog_mirror
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, progress_bar, size
from image_pipeline.mirror.planning import target_of
from image_pipeline.mirror.remote import MirrorError
from image_pipeline.mirror.running import SHOWN, Mirrored, mirror
from image_pipeline.settings import Mirror, Settings
from image_pipeline.stages.tools import utc_now
from image_pipeline.store.bucket import Bucket

_NONE = "there is no mirror: mirror.host is not set"

T = TypeVar("T")


def run_mirror(settings: Settings, source: str | None, as_json: bool) -> int:
    """Bring the server up to date; the exit code is 1 if not all of it could be done."""
    with closing(Catalog(settings.catalog.url)) as catalog, progress_bar() as progress:
        task = progress.add_task("mirroring", total=None)
        try:
            found = mirror(
                settings, Bucket(settings.bucket), catalog, utc_now,
                lambda _, done, total: progress.update(task, completed=done, total=total),
                source=source,
            )  # fmt: skip
        except MirrorError as error:
            progress.stop()
            print(f"image-pipeline: {error}", file=sys.stderr)
            return 1
    if as_json:
        print_json(asdict(found))
    else:
        _print_run(found)
    return 0 if found.good else 1


def _print_run(found: Mirrored) -> None:
    rate = found.bytes / max(found.seconds, 1e-9)
    print(
        f"{found.target}: copied {found.copied} files ({size(found.bytes)}) in"
        f" {found.seconds:.1f} s, {size(round(rate))}/s by {found.connections} connections;"
        f" {found.unchanged} were there, {found.trashed} went to the trash,"
        f" {found.purged} left it, {found.failed} failed, {found.waiting} wait"
    )
    if found.resumed:
        print(f"{size(found.resumed)} of them were there from a run that broke off")
    if found.failures:
        columns = ("source", "key", "error")
        print_table(columns, [[row[name] for name in columns] for row in found.failures])
    if found.stopped:
        print(found.stopped, file=sys.stderr)


def run_status(settings: Settings, as_json: bool) -> int:
    """Print what the catalog knows of the server; connects to nothing."""
    target = target_of(settings.mirror) if settings.mirror.host else None
    with closing(Catalog(settings.catalog.url)) as catalog, catalog.read() as connection:
        rows = catalog_mirror.totals(connection)
        failing = catalog_mirror.failing(connection, target, SHOWN) if target else []
    for row in rows:
        row["last"] = row["last"].isoformat() if row["last"] else None
    if as_json:
        print_json({"target": target, "files": rows, "failing": failing})
        return 0
    if target is None:
        print(_NONE, file=sys.stderr)
    columns = ("target", "source", "state", "files", "bytes", "failing", "last")
    if rows:
        cells = [[{**row, "bytes": size(row["bytes"])}[name] for name in columns] for row in rows]
        print_table(columns, cells, numbers=("files", "bytes", "failing"))
    elif target is not None:
        print(f"Nothing was copied to {target} yet.")
    if failing:
        print()
        shown = ("source", "key", "failures", "error")
        print_table(shown, [[row[name] for name in shown] for row in failing], numbers=shown[2:3])
    return 0


def rehearse(settings: Settings, config: Path | None, bucket: Bucket) -> int:
    """Mirror the demo's pictures to an SFTP server of this process, twice; 0 if all is well.

    The server and what it gets are gone at the end. ``config`` is not read.
    """
    with (
        tempfile.TemporaryDirectory(prefix="mirror-") as folder,
        _server(Path(folder)) as rules,
        closing(Catalog(settings.catalog.url)) as catalog,
    ):
        sizes = {
            name: size for one in settings.recipes.values() for name, size in one.sizes.items()
        }
        smallest = min(sizes, key=lambda name: sizes[name].width)
        update = {"mirror": rules.model_copy(update={"variants": (smallest,)})}
        rehearsed = settings.model_copy(update=update)
        runs = []
        try:
            for what in ("The mirror, an SFTP server in a temporary folder", "Once more"):
                runs.append(mirror(rehearsed, bucket, catalog, utc_now))
                print(f"\n{what}\n")
                _print_run(runs[-1])
            files = [one for one in Path(folder).rglob("*") if one.is_file()]
            total = sum(one.stat().st_size for one in files)
            print(f"\n{len(files)} files of {size(total)} lie there, for instance")
            for one in (min(files), max(files)):
                print(f"  {one.relative_to(folder)}")
        finally:
            _forget_target(catalog, target_of(rules))
    first, second = runs
    return (
        0 if first.good and second.good and first.copied == len(files) > 0 == second.copied else 1
    )


def _forget_target(catalog: Catalog, target: str) -> None:
    with catalog.write() as connection:
        catalog_mirror.drop_target(connection, target)


@contextmanager
def _server(folder: Path) -> Iterator[Mirror]:
    """An SFTP server on 127.0.0.1 that keeps files below a folder, and the settings for it."""
    import asyncssh

    host_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(
                client_key.export_public_key().decode()
            ),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(folder).encode()),
        )

    with _loop() as run:
        server = run(listen())
        try:
            # Built anew, so that no variable of the environment says who logs in.
            yield Mirror.model_validate(
                {
                    "host": "127.0.0.1",
                    "port": server.get_port(),
                    "username": "rehearsal",
                    "private_key": client_key.export_private_key().decode(),
                    "host_key": host_key.export_public_key().decode().strip(),
                    "path": "/images",
                }
            )
        finally:
            server.close()
            run(server.wait_closed())


@contextmanager
def _loop() -> Iterator[Any]:
    """A thread with an event loop; what is yielded runs a coroutine in it to its end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sftp", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        yield run
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
