"""Files to an SFTP server by the mirror's pool, beside a loop of one connection per file."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import asyncssh
import sqlalchemy as sa

from benchmarks.ports import free_port
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import batches, uploads
from image_pipeline.embedded import EmbeddedS3
from image_pipeline.mirror.running import mirror
from image_pipeline.settings import BucketSettings, Mirror, Settings, Workers
from image_pipeline.store.bucket import Bucket

FILES, QUICK_FILES = 500, 60
BYTES = 200_000
ROUNDS = 3

#: At least three times as fast: at most so much of the time.
GOAL = 1 / 3

_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True, slots=True)
class _Server:
    """OpenSSH's server and what its clients need. ``folder`` has keys, and what was sent."""

    folder: Path
    port: int

    def settings(self, **changes: Any) -> Mirror:
        """The mirror's settings for it."""
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        return Mirror.model_validate(
            {
                "host": "127.0.0.1",
                "port": self.port,
                "username": getpass.getuser(),
                "private_key": (self.folder / "client_key").read_text(),
                "host_key": f"{kind} {key}",
                **changes,
            }
        )


def measure(images: int, photos: Path | None, quick: bool) -> Report:
    """Send the same files by turns: by ``sftp`` and by asyncssh one by one, and by the mirror."""
    machine = describe_machine()
    files, rounds = (QUICK_FILES, 1) if quick else (FILES, ROUNDS)
    title = f"{files} files of {BYTES // 1000} KB to an SFTP server"
    if (sshd := _sshd()) is None or shutil.which("sftp") is None:
        note = "OpenSSH is not installed: apt-get install openssh-server openssh-client"
        return Report("mirror", title, (), (note,), machine)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, _bucket(Path(name), files) as source:
        for number in range(rounds):
            print(f"mirror: round {number + 1} of {rounds}", file=sys.stderr)
            for what, work in _WAYS.items():
                with _serving(sshd) as server:
                    seconds = work(server, source)
                    _check(server, source, files)
                    times.setdefault(what, []).append(seconds)
    return Report("mirror", title, tuple(_rows(times)), _notes(rounds), machine)


def _rows(times: dict[str, list[float]]) -> Iterator[Row]:
    found = {what: median(seconds) for what, seconds in times.items()}
    ours, sized = found["mirror"], found["mirror, sizes only"]
    yield Row("the mirror, beside the command sftp for each file", ours, "s", found["sftp"], GOAL,
              "ratio")  # fmt: skip
    yield Row("the mirror, beside asyncssh connecting for each file", ours, "s",
              found["asyncssh"], GOAL, "ratio")  # fmt: skip
    yield Row("the mirror with verify: size, beside verify: content", sized, "s", ours)
    yield Row("the mirror by one connection, beside ten", found["mirror, one connection"], "s",
              ours)  # fmt: skip


def _notes(rounds: int) -> tuple[str, ...]:
    return (
        "a loop sends local files one after the other, each by a connection of its own, and looks"
        " at nothing afterwards; the mirror gets its files from the bucket, has them written to"
        " disk (fsync), reads each back to hash it, renames it and writes down in the catalog"
        " that it is there",
        f"medians of {rounds} rounds by turns; server, clients, bucket and catalog share the"
        " processors of this machine, and there is no network between them: over a real one every"
        " login costs the loops some ten round trips more",
    )


def _check(server: _Server, source: _Source, files: int) -> None:
    """Nothing that was measured may have been left out."""
    sent = [one for one in (server.folder / "images").rglob("*.jpg") if one.is_file()]
    assert len(sent) == files, f"{len(sent)} of {files} files are there"
    digests = {hashlib.sha256(one.read_bytes()).hexdigest() for one in sent}
    assert digests == source.digests


@dataclass(frozen=True, slots=True)
class _Source:
    """The same files in a folder and in a bucket, and a catalog that knows them."""

    folder: Path
    bucket: Bucket
    catalog: Path
    digests: set[str]


@contextmanager
def _bucket(folder: Path, files: int) -> Iterator[_Source]:
    now = datetime.now(UTC)
    (folder / "files").mkdir()
    with EmbeddedS3(folder / "s3") as s3:
        settings = BucketSettings(name="images", endpoint_url="embedded", data=folder / "s3")
        bucket = Bucket(settings)
        bucket.create_if_missing()
        rows = []
        for number in range(files):
            data = number.to_bytes(8, "big") * (BYTES // 8)
            key = f"uploads/photos/{number}.jpg"
            (folder / "files" / f"{number}.jpg").write_bytes(data)
            bucket.put(key, data, "image/jpeg")
            rows.append(
                {
                    "source": "photos", "key": key, "etag": hashlib.md5(data).hexdigest(),
                    "size": BYTES, "last_modified": now, "discovered_at": now, "batch_id": "one",
                    "image_id": hashlib.sha256(data).hexdigest(), "verdict": "accepted",
                }
            )  # fmt: skip
        catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
        with catalog.write() as connection:
            batch = {
                "id": "one", "source": "photos", "created_at": now, "uploads": files, "bytes": 1,
                "state": "done", "attempt": 1, "finished_at": now,
            }  # fmt: skip
            connection.execute(sa.insert(batches).values(batch))
            connection.execute(sa.insert(uploads), rows)
        catalog.close()
        digests = {str(row["image_id"]) for row in rows}
        yield _Source(folder / "files", bucket, folder / "catalog.db", digests)
        assert s3.endpoint_url


def _sshd() -> str | None:
    # It has to be called by its whole path.
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def _serving(sshd: str) -> Iterator[_Server]:
    """A server with nothing on it."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        for key in ("host_key", "client_key"):
            call = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(call, check=True)
        (folder / "images").mkdir()
        config = folder / "sshd_config"
        config.write_text(_CONFIG.format(port=port, folder=folder))
        if getpass.getuser() == "root":
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        call = [sshd, "-D", "-e", "-f", str(config)]
        with subprocess.Popen(call, stderr=subprocess.DEVNULL) as process:
            try:
                server = _Server(folder, port)
                _await(server)
                yield server
            finally:
                process.terminate()


def _await(server: _Server) -> None:
    """Until it answers; its key is then known to the command ``sftp``."""
    known = server.folder / "known_hosts"
    call = ["ssh-keyscan", "-p", str(server.port), "127.0.0.1"]
    for _ in range(300):
        found = subprocess.run(call, check=False, capture_output=True).stdout
        if found:
            known.write_bytes(found)
            return
        time.sleep(0.1)
    raise AssertionError("sshd does not start")


def _by_sftp(server: _Server, source: _Source) -> float:
    """What a script does: the command for every file."""
    call = [
        "sftp", "-q", "-b", "-", "-P", str(server.port), "-i", str(server.folder / "client_key"),
        "-o", f"UserKnownHostsFile={server.folder / 'known_hosts'}", "-F", "none",
        "127.0.0.1",
    ]  # fmt: skip
    started = time.perf_counter()
    for file in sorted(source.folder.iterdir()):
        put = f"put {file} {server.folder / 'images' / file.name}\n"
        subprocess.run(call, input=put.encode(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _by_asyncssh(server: _Server, source: _Source) -> float:
    """The library that the mirror uses, as its documentation shows it, for every file."""
    rules = server.settings()
    assert rules.private_key is not None
    key = asyncssh.import_private_key(rules.private_key.get_secret_value())
    trusted = asyncssh.import_known_hosts(f"[127.0.0.1]:{server.port} {rules.host_key}\n")

    async def send() -> None:
        for file in sorted(source.folder.iterdir()):
            async with (
                asyncssh.connect(
                    "127.0.0.1", server.port, username=str(rules.username), client_keys=[key],
                    known_hosts=trusted, config=None,
                ) as connection,
                connection.start_sftp_client() as sftp,
            ):  # fmt: skip
                await sftp.put(str(file), str(server.folder / "images" / file.name))

    started = time.perf_counter()
    asyncio.run(send())
    return time.perf_counter() - started


def _by_mirror(**changes: Any) -> Callable[[_Server, _Source], float]:
    def work(server: _Server, source: _Source) -> float:
        with tempfile.TemporaryDirectory() as name:
            # A catalog that has heard of no mirror yet.
            shutil.copy(source.catalog, f"{name}/catalog.db")
            settings = Settings(
                bucket=source.bucket.settings,
                workers=Workers(spool=Path(name, "spool")),
                mirror=server.settings(path=str(server.folder / "images"), **changes),
            )
            catalog = Catalog(f"sqlite:///{name}/catalog.db")
            started = time.perf_counter()
            found = mirror(settings, source.bucket, catalog, lambda: datetime.now(UTC))
            seconds = time.perf_counter() - started
            catalog.close()
            assert found.good, found
            return seconds

    return work


_WAYS: dict[str, Callable[[_Server, _Source], float]] = {
    "sftp": _by_sftp,
    "mirror": _by_mirror(),
    "asyncssh": _by_asyncssh,
    "mirror, sizes only": _by_mirror(verify="size"),
    "mirror, one connection": _by_mirror(connections=1, transfers=1),
}
