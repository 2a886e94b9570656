"""The mirror on OpenSSH's own server, as it is on most machines and many a NAS."""

import subprocess
import threading

import pytest

from image_pipeline.mirror import planning, running
from image_pipeline.mirror.naming import key_of, path_of
from image_pipeline.mirror.remote import PIECE
from image_pipeline_tests.mirrored import World, noise
from image_pipeline_tests.sftp_servers import NO_SSHD, SSHD, CutCable, OpenSsh

pytestmark = pytest.mark.skipif(SSHD is None, reason=NO_SSHD)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(running, "pause", lambda attempt: 0.3)


@pytest.fixture
def server(tmp_path):
    with OpenSsh(tmp_path / "nas") as made:
        yield made


@pytest.fixture
def world(bucket, catalog, server, tmp_path):
    return World(bucket, catalog, server, tmp_path / "spool")


def test_files_are_copied_replaced_and_removed(world):
    contents = {"a.jpg": b"old", "deep/er/B.png": noise(2, 3 * PIECE + 5)}
    a, b = world.batch(contents)
    found = world.run()
    assert (found.copied, found.failed) == (2, 0)
    assert world.files() == {path_of(a): b"old", path_of(b): contents["deep/er/B.png"]}
    world.batch({"a.jpg": b"newer"})
    assert world.run().good
    day = planning.day_of(world.now)
    assert world.files()[path_of(a)] == b"newer"
    assert world.files()[f".trash/{day}/{path_of(a)}"] == b"old"
    world.now += running.timedelta(days=32)
    assert world.run().purged == 1
    assert set(world.files()) == {path_of(a), path_of(b)}


def test_names_that_are_meant_to_break_out(world):
    names = (
        "../../../../tmp/out.jpg", "a/../../b.jpg", ".hidden", "..", "%2e%2e/x", "a\\..\\b",
        "A.jpg", "a.jpg", "a.jpg/b", "x" * 300 + ".jpg", "e\u0301.jpg", "\u00e9.jpg",
        "line\nfeed.jpg", "\u202egpj.exe", "con.jpg", ".trash/2026-01-01/x", "sp ace ", "~root",
    )  # fmt: skip
    contents = {name: name.encode() for name in names}
    keys = world.batch(contents)
    before = set(world.server.folder.parent.rglob("*"))
    assert world.run().good
    assert {key_of(path): data for path, data in world.files().items()} == dict(
        zip(keys, contents.values(), strict=True)
    )
    new = set(world.server.folder.parent.rglob("*")) - before
    spooled = world.settings.workers.spool
    assert all(path.is_relative_to(world.root) or path.is_relative_to(spooled) for path in new)


def test_a_transfer_goes_on_where_it_broke_off(world):
    data = noise(1, 6 * PIECE)
    (key,) = world.batch({"a.jpg": data})
    with CutCable(world.server.port, [4 * PIECE]) as cable:
        found = world.run(port=cable.port, connections=1)
    assert found.good
    # Three pieces were acknowledged; of the last that is there nobody knows how much.
    assert found.resumed in (2 * PIECE, 3 * PIECE)
    assert found.bytes + found.resumed == len(data)
    assert world.files() == {path_of(key): data}


def test_a_server_that_is_restarted_midway(world, server, monkeypatch):
    contents = {f"{number}.jpg": noise(number, 50_000) for number in range(60)}
    keys = world.batch(contents)
    done = threading.Event()
    monkeypatch.setattr(running._Run, "_progress", lambda run: done.set())

    def restart():
        done.wait(60)
        server.stop()
        server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    found = world.run(attempts=20)
    thread.join()
    if not found.good:
        found = world.run()
    assert found.good
    assert world.files() == dict(zip(map(path_of, keys), contents.values(), strict=True))


def test_a_server_that_lets_nobody_write(world, tmp_path):
    world.batch({f"{number}.jpg": b"%d" % number for number in range(3)})
    with OpenSsh(tmp_path / "other", options="-R") as server:
        world.server = server
        found = world.run()
    assert (found.copied, found.failed) == (0, 3)
    assert "ermission denied" in found.failures[0]["error"]


def test_a_disk_that_is_full(world):
    small = world.root
    small.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nobody may mount anything here, so no disk is small enough to fill")
    try:
        world.batch({f"{number}.jpg": noise(number, 700_000) for number in range(9)})
        found = world.run(connections=1)
        assert "the server's disk is full" in found.stopped
        assert 0 < found.copied < 9
        assert found.waiting == 9 - found.copied
        # There is room again: the next run finishes it.
        grow = ["mount", "-o", "remount,size=20m", str(small)]
        subprocess.run(grow, check=True)
        assert world.run().good
        assert len(world.files()) == 9
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_key_of_a_host_that_nobody_vouches_for(world):
    world.batch({"a.jpg": b"a"})
    found = world.run(host_key=None)
    assert world.server.host_key.get_fingerprint() in found.stopped
    # The server has no key of this kind, and says no more than good-bye.
    import asyncssh

    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    assert world.server.host_key.get_fingerprint() in world.run(host_key=other).stopped


def test_many_connections_are_opened_without_being_dropped(world):
    """OpenSSH refuses some of those that come while ten others are not yet in."""
    contents = {f"{number}.jpg": noise(number, 1000) for number in range(80)}
    world.batch(contents)
    found = world.run(connections=20, transfers=20)
    assert (found.copied, found.failed) == (80, 0)
    assert found.connections <= 20
