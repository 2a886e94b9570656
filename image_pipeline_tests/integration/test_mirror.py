"""What a run of the mirror does, with a real bucket and asyncssh's SFTP server."""

import hashlib
import os
import signal
import subprocess
import sys
from datetime import timedelta

import asyncssh
import pytest
import sqlalchemy as sa

from image_pipeline.catalog import mirror as catalog_mirror
from image_pipeline.catalog.schema import uploads
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.mirror import planning, running
from image_pipeline.mirror.forgetting import forget_copies
from image_pipeline.mirror.naming import path_of
from image_pipeline.mirror.remote import PIECE, MirrorError
from image_pipeline_tests.mirrored import World, noise
from image_pipeline_tests.sftp_servers import PASSWORD, AsyncsshServer, CutCable
from image_pipeline_tests.unit.catalog.helpers import Statements


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(running, "pause", lambda attempt: 0.01)


@pytest.fixture
def server(tmp_path):
    with AsyncsshServer(tmp_path / "nas") as made:
        yield made


@pytest.fixture
def world(bucket, catalog, server, tmp_path):
    return World(bucket, catalog, server, tmp_path / "spool")


def served_by(tmp_path, sftp):
    return AsyncsshServer(tmp_path / "other", sftp)


def test_originals_are_copied_once(world, server):
    contents = {"a.jpg": noise(1, 3000), "deep/er/b.png": noise(2, PIECE + 5), "C.JPG": b"c"}
    keys = world.batch(contents)
    found = world.run()
    assert (found.new, found.copied, found.failed, found.stopped) == (3, 3, 0, "")
    assert found.bytes == sum(map(len, contents.values()))
    wanted = dict(zip(map(path_of, keys), contents.values(), strict=True))
    assert world.files() == wanted
    rows = world.rows()
    assert {row["state"] for row in rows.values()} == {"mirrored"}
    for key, data in zip(keys, contents.values(), strict=True):
        assert rows[key]["held"] == rows[key]["sha256"] == hashlib.sha256(data).hexdigest()
        assert (rows[key]["size"], rows[key]["path"]) == (len(data), path_of(key))
    logins = server.logins
    again = world.run()
    assert (again.new, again.copied, again.connections) == (0, 0, 0)
    assert server.logins == logins


def test_a_run_with_nothing_new_asks_little_of_the_catalog(world):
    world.batch({f"{number}.jpg": noise(number, 10) for number in range(5)})
    world.run()
    with Statements(world.catalog.engine) as few:
        world.run()
    world.batch({f"{number}.png": noise(number, 10) for number in range(40)})
    world.run()
    with Statements(world.catalog.engine) as more:
        world.run()
    # Three transactions, each of the row of the server and one look by an index.
    assert few.count == more.count
    assert few.count <= 9


def test_what_is_copied_of_which_verdict(world):
    (accepted,) = world.batch({"a.jpg": b"a"})
    (duplicate,) = world.batch({"b.jpg": b"b"}, verdict="duplicate")
    world.batch({"c.jpg": b"c"}, verdict="rejected")
    world.batch({"d.jpg": b"d"}, verdict="failed")
    (shop,) = world.batch({"e.jpg": b"e"}, source="shop")
    world.run(sources=("photos",))
    assert set(world.files()) == {path_of(accepted), path_of(duplicate)}
    # Another wish is looked at from the beginning.
    found = world.run()
    assert found.copied == 1
    assert path_of(shop) in world.files()


def test_chosen_variants_are_copied(world):
    small = world.publish("one", noise(1, 900), "small")
    world.publish("two", noise(2, 900), "large")
    world.publish("three", noise(3, 900), "small", dropped=True)
    assert world.run().copied == 0
    found = world.run(variants=("small",), originals=False)
    assert found.copied == 1
    assert world.files() == {small: noise(1, 900)}


def test_one_source_alone(world):
    world.batch({"a.jpg": b"a"})
    world.batch({"e.jpg": b"e"}, source="shop")
    found = world.run("shop")
    assert (found.copied, set(world.files())) == (1, {"uploads/shop/e.jpg"})
    assert world.run().copied == 1


def test_an_overwritten_original_leaves_the_old_one_in_the_trash(world):
    world.batch({"a.jpg": b"old"})
    world.run()
    world.batch({"a.jpg": b"newer"})
    found = world.run()
    assert (found.new, found.copied) == (1, 1)
    day = planning.day_of(world.now)
    assert world.files() == {
        "uploads/photos/a.jpg": b"newer",
        f".trash/{day}/uploads/photos/a.jpg": b"old",
    }


def test_an_older_version_never_follows_a_newer_one(world):
    world.batch({"a.jpg": b"old"})
    world.batch({"a.jpg": b"newer"})
    found = world.run()
    assert (found.new, found.failed) == (1, 0)
    assert world.files() == {"uploads/photos/a.jpg": b"newer"}


def test_whatever_is_there_already_is_not_sent_again(world):
    (key,) = world.batch({"a.jpg": noise(1, 5000)})
    world.run()
    with world.catalog.write() as connection:
        catalog_mirror.drop_target(connection, next(iter(world.rows().values()))["target"])
    found = world.run()
    assert (found.copied, found.unchanged, found.bytes) == (0, 1, 0)
    assert world.rows()[key]["state"] == "mirrored"


def test_a_foreign_file_under_the_name_is_kept(world):
    (world.root / "uploads/photos").mkdir(parents=True)
    (world.root / "uploads/photos/a.jpg").write_bytes(b"somebody's")
    world.batch({"a.jpg": b"ours"})
    assert world.run().good
    day = planning.day_of(world.now)
    assert world.files() == {
        "uploads/photos/a.jpg": b"ours",
        f".trash/{day}/uploads/photos/a.jpg": b"somebody's",
    }


def test_what_the_bucket_has_no_more_goes_to_the_trash_and_later_for_good(world):
    gone, stays = world.batch({"a.jpg": b"a", "b.jpg": b"b"})
    world.run()
    world.bucket.delete([gone])
    # Nobody looks at the bucket by the hour.
    assert world.run().gone == 0
    world.now += timedelta(hours=1)
    take_inventory(world.bucket, world.catalog, world.settings, lambda: world.now)
    found = world.run()
    assert (found.gone, found.trashed) == (1, 1)
    removed = planning.day_of(world.now)
    assert world.files() == {
        path_of(stays): b"b",
        f".trash/{removed}/{path_of(gone)}": b"a",
    }
    assert set(world.rows()) == {stays}
    world.now += timedelta(days=29)
    assert world.run().purged == 0
    world.now += timedelta(days=2)
    assert world.run().purged == 1
    assert world.files() == {path_of(stays): b"b"}
    assert not (world.root / ".trash" / removed).exists()


def test_an_inventory_that_errs_removes_nothing(world):
    """Seen by no inventory, but there: the bucket itself is asked."""
    (key,) = world.batch({"a.jpg": b"a"})
    world.run()
    world.now += timedelta(hours=1)
    world.bucket.delete([key])
    take_inventory(world.bucket, world.catalog, world.settings, lambda: world.now)
    world.bucket.put(key, b"a", "image/jpeg")
    found = world.run()
    assert (found.gone, world.files()) == (0, {path_of(key): b"a"})


def test_what_comes_back_is_copied_again(world):
    (key,) = world.batch({"a.jpg": b"a"})
    world.run()
    world.bucket.delete([key])
    world.now += timedelta(hours=1)
    take_inventory(world.bucket, world.catalog, world.settings, lambda: world.now)
    world.run()
    assert path_of(key) not in world.files()
    world.batch({"a.jpg": b"b"})
    world.run()
    assert world.files()[path_of(key)] == b"b"


def test_an_original_that_is_gone_before_it_was_copied_is_no_failure(world):
    keys = world.batch({"a.jpg": b"a", "b.jpg": b"b"})
    world.bucket.delete(keys[:1])
    found = world.run()
    assert (found.copied, found.failed, found.good) == (1, 0, True)
    assert set(world.rows()) == {keys[1]}


def test_bytes_that_the_catalog_does_not_know_are_not_copied(world):
    (key,) = world.batch({"a.jpg": b"a"})
    world.bucket.put(key, b"something else", "image/jpeg")
    found = world.run()
    assert found.failed == 1
    assert "other bytes" in found.failures[0]["error"]
    assert world.files() == {}


def test_many_that_cannot_be_copied_do_not_end_a_run(world):
    """Nor are they in the way of others: they are tried less and less often."""
    keys = world.batch({f"{number}.jpg": b"%d" % number for number in range(30)})
    for key in keys[:25]:
        world.bucket.put(key, b"something else", "image/jpeg")
    found = world.run(connections=1)
    assert (found.failed, found.copied, found.stopped) == (25, 5, "")
    assert world.run().failed == 25
    assert world.run().failed == 25
    assert world.run().failed == 0


def test_a_moved_original_has_another_etag_and_the_same_bytes(world):
    (key,) = world.batch({"a.jpg": b"a"})
    with world.catalog.write() as connection:
        connection.execute(sa.update(uploads).values(etag="of a copy in parts"))
    assert world.run().good
    assert world.files() == {path_of(key): b"a"}


class TestCutConnections:
    """The cable is cut after so many bytes."""

    def test_a_transfer_goes_on_where_it_broke_off(self, world):
        data = noise(1, 5 * PIECE)
        (key,) = world.batch({"a.jpg": data})
        with CutCable(world.server.port, [3 * PIECE + 1000]) as cable:
            found = world.run(port=cable.port, connections=1)
        assert (found.copied, found.failed) == (1, 0)
        # Two pieces were acknowledged; of the last that is there nobody knows how much.
        assert found.resumed in (PIECE, 2 * PIECE)
        assert found.bytes == len(data) - found.resumed
        assert found.connections == cable.made == 2
        assert world.files() == {path_of(key): data}

    def test_a_later_run_goes_on_where_an_earlier_one_gave_up(self, world):
        data = noise(1, 4 * PIECE)
        (key,) = world.batch({"a.jpg": data})
        with CutCable(world.server.port, [3 * PIECE + 100]) as cable:
            found = world.run(port=cable.port, connections=1, attempts=1)
            assert (found.failed, found.good, found.waiting) == (1, False, 1)
            assert world.rows()[key]["failures"] == 1
            assert len(world.part_of(key)) == 1
            assert not (world.root / path_of(key)).exists()
            found = world.run(port=cable.port, connections=1)
        assert found.good
        assert found.resumed in (PIECE, 2 * PIECE)
        assert world.files() == {path_of(key): data}

    @pytest.mark.parametrize("verify", ["content", "size"])
    def test_a_damaged_part_is_sent_anew(self, world, verify):
        data = noise(1, 5 * PIECE)
        (key,) = world.batch({"a.jpg": data})
        with CutCable(world.server.port, [4 * PIECE]) as cable:
            world.run(port=cable.port, connections=1, attempts=1)
            (part,) = world.part_of(key)
            assert part.stat().st_size > PIECE
            with part.open("r+b") as file:
                file.write(b"damaged")
            found = world.run(port=cable.port, connections=1, verify=verify)
        assert found.good
        assert world.files() == {path_of(key): data}

    def test_a_part_of_another_version_is_not_gone_on_with(self, world):
        (key,) = world.batch({"a.jpg": noise(1, 3 * PIECE)})
        with CutCable(world.server.port, [2 * PIECE + 100]) as cable:
            world.run(port=cable.port, connections=1, attempts=1)
            data = noise(2, 3 * PIECE)
            world.batch({"a.jpg": data})
            found = world.run(port=cable.port, connections=1)
        assert (found.resumed, found.good) == (0, True)
        # What was sent of the other one lies where it lay.
        assert len(world.part_of(key)) == 1
        assert (world.root / path_of(key)).read_bytes() == data

    @pytest.mark.parametrize("seed", range(4))
    def test_whatever_is_cut_all_arrives(self, world, seed):
        contents = {f"{n}.jpg": noise(seed * 100 + n, 20_000 * n + 1) for n in range(12)}
        keys = world.batch(contents)
        cuts = [noise(seed, 1)[0] * 1500 + 200 * number for number in range(9)]
        with CutCable(world.server.port, cuts) as cable:
            for _ in range(10):
                if world.run(port=cable.port).good:
                    break
        wanted = dict(zip(map(path_of, keys), contents.values(), strict=True))
        assert world.files() == wanted

    def test_a_server_that_is_away_ends_the_run_at_once(self, world):
        keys = world.batch({f"{number}.jpg": b"%d" % number for number in range(30)})
        with CutCable(world.server.port) as cable:
            cable.closed = True
            found = world.run(port=cable.port)
        assert "does not answer" in found.stopped
        assert (found.failed, found.waiting) == (0, len(keys))
        # Nobody is blamed, and all is due for the next run at once.
        assert {row["failures"] for row in world.rows().values()} == {0}
        assert world.run(port=world.server.port).failed == 0

    def test_a_server_that_falls_silent(self, world):
        (key,) = world.batch({"a.jpg": noise(1, 2 * PIECE)})
        with CutCable(world.server.port, [PIECE // 2]) as cable:
            cable.silent = True
            found = world.run(port=cable.port, connections=1, attempts=1, timeout_seconds=1)
            assert "no answer for 1 seconds" in found.failures[0]["error"]
            assert world.run(port=cable.port, connections=1).good
        assert world.files() == {path_of(key): noise(1, 2 * PIECE)}


class TestServersThatRefuse:
    """Disk full, quota, no permission, and servers that can do less."""

    def world_of(self, world, tmp_path, sftp):
        world.server = served_by(tmp_path, sftp)
        world.root = world.server.folder / "mirror"
        return world.server

    def test_a_full_disk_ends_the_run_and_says_so(self, world, tmp_path):
        class Full(asyncssh.SFTPServer):
            def write(self, *_):
                raise asyncssh.SFTPFailure("Failure")

            def statvfs(self, path):
                found = asyncssh.SFTPVFSAttrs.from_local(os.statvfs(tmp_path))
                found.bavail = 0
                return found

        world.batch({f"{number}.jpg": b"%d" % number for number in range(9)})
        with self.world_of(world, tmp_path, Full):
            found = world.run()
        assert "the server's disk is full" in found.stopped
        assert found.waiting == 9

    def test_a_quota_is_told_in_the_servers_words(self, world, tmp_path):
        class Quota(asyncssh.SFTPServer):
            def write(self, *_):
                raise asyncssh.SFTPFailure("Quota exceeded")

        world.batch({f"{number:02}.jpg": b"%d" % number for number in range(50)})
        with self.world_of(world, tmp_path, Quota):
            found = world.run()
        # It does not go on for ever with a million files.
        assert running.GIVE_UP_AFTER <= found.failed < 30
        assert "one after the other" in found.stopped
        assert "Quota exceeded" in found.failures[0]["error"]
        assert found.waiting == 50

    def test_one_forbidden_file_does_not_keep_the_rest(self, world, tmp_path):
        class Picky(asyncssh.SFTPServer):
            def open(self, path, pflags, attrs):
                if b"b.jpg" in path:
                    raise asyncssh.SFTPPermissionDenied("Permission denied")
                return super().open(path, pflags, attrs)

        a, b, c = world.batch({"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"})
        with self.world_of(world, tmp_path, Picky):
            found = world.run()
        assert (found.copied, found.failed, found.stopped) == (2, 1, "")
        assert found.failures[0]["key"] == b
        assert "Permission denied" in found.failures[0]["error"]
        assert {key: row["state"] for key, row in world.rows().items()} == {
            a: "mirrored",
            b: "waiting",
            c: "mirrored",
        }

    def test_bytes_that_change_on_the_way_to_the_disk_are_noticed(self, world, tmp_path):
        class Bad(asyncssh.SFTPServer):
            def write(self, file_obj, offset, data):
                return super().write(file_obj, offset, b"\0" * len(data))

        (key,) = world.batch({"a.jpg": noise(1, 1000)})
        with self.world_of(world, tmp_path, Bad):
            found = world.run(attempts=2)
        assert "other bytes" in found.failures[0]["error"]
        assert world.files() == {}
        assert world.rows()[key]["held"] is None

    def test_a_server_without_extensions(self, world, tmp_path):
        """No atomic rename, no second names, no fsync, no statvfs."""

        class Old(asyncssh.SFTPServer):
            def posix_rename(self, *_):
                raise asyncssh.SFTPOpUnsupported("no")

            link = fsync = statvfs = posix_rename

        with self.world_of(world, tmp_path, Old):
            world.batch({"a.jpg": b"old"})
            assert world.run().good
            world.batch({"a.jpg": b"newer"})
            assert world.run().good
        day = planning.day_of(world.now)
        assert world.files() == {
            "uploads/photos/a.jpg": b"newer",
            f".trash/{day}/uploads/photos/a.jpg": b"old",
        }


class TestLogin:
    """Who gets in, and what those are told who do not."""

    def test_the_key_of_a_host_that_nobody_vouches_for(self, world):
        world.batch({"a.jpg": b"a"})
        found = world.run(host_key=None)
        assert world.server.host_key.get_fingerprint() in found.stopped
        assert f"mirror.host_key: '{world.server.host_line}'" in found.stopped
        assert world.files() == {}
        assert world.run(host_key=None, check_host_key=False).good

    def test_another_key_than_the_one_that_is_known(self, world):
        world.batch({"a.jpg": b"a"})
        for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256"):
            other = asyncssh.generate_private_key(kind).export_public_key().decode()
            found = world.run(host_key=other)
            assert "another key" in found.stopped
            assert world.server.host_key.get_fingerprint() in found.stopped

    def test_a_file_of_known_hosts(self, world, tmp_path):
        world.batch({"a.jpg": b"a"})
        file = tmp_path / "known_hosts"
        file.write_text(f"[127.0.0.1]:{world.server.port} {world.server.host_line}\n")
        assert world.run(host_key=None, known_hosts=file).good
        file.write_text(f"elsewhere {world.server.host_line}\n")
        world.batch({"b.jpg": b"b"})
        assert "another key" in world.run(host_key=None, known_hosts=file).stopped

    def test_passwords(self, world):
        world.batch({"a.jpg": b"a"})
        found = world.run(private_key=None, password="wrong")
        assert "does not let 'mirror' in" in found.stopped
        assert "wrong" not in found.stopped
        assert world.run(private_key=None, password=PASSWORD).good

    def test_what_is_no_key(self, world):
        world.batch({"a.jpg": b"a"})
        assert "PRIVATE_KEY" in world.run(private_key="nonsense").stopped
        assert "mirror.host_key" in world.run(host_key="nonsense").stopped

    def test_a_key_in_one_line(self, world):
        """As a variable of the environment often has it."""
        world.batch({"a.jpg": b"a"})
        key = world.server.client_key.export_private_key().decode().replace("\n", "\\n")
        assert world.run(private_key=key).good


def test_no_more_connections_than_wanted_and_all_used_again(world):
    world.batch({f"{number}.jpg": noise(number, 100) for number in range(40)})
    found = world.run(connections=3)
    assert found.copied == 40
    assert 1 <= found.connections <= 3
    assert world.server.logins == found.connections


def test_two_runs_at_once_copy_everything_once(world, catalog):
    contents = {f"{number}.jpg": noise(number, 3000) for number in range(150)}
    keys = world.batch(contents)
    rules = world.server.settings()
    settings = world.settings.model_copy(update={"mirror": rules})
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as threads:
        jobs = [
            threads.submit(running.mirror, settings, world.bucket, catalog, lambda: world.now)
            for _ in range(2)
        ]
        found = [job.result() for job in jobs]
    assert [one.good for one in found] == [True, True]
    assert sum(one.copied for one in found) == 150
    assert world.files() == dict(zip(map(path_of, keys), contents.values(), strict=True))
    assert {row["state"] for row in world.rows().values()} == {"mirrored"}


def test_a_run_that_is_killed_is_finished_by_the_next(world, catalog, tmp_path):
    """Its files are due again when its hold on them ends."""
    contents = {f"{number}.jpg": noise(number, 200_000) for number in range(60)}
    keys = world.batch(contents)
    rules = world.server.settings(connections=2)
    script = f"""
from datetime import datetime
from image_pipeline.catalog.engine import Catalog
from image_pipeline.mirror.running import mirror
from image_pipeline.settings import *
from image_pipeline.store.bucket import Bucket
settings = Settings.model_validate_json({world.settings.model_dump_json()!r})
values = {rules.model_dump(mode="json", exclude={"private_key", "password"})!r}
settings = settings.model_copy(update={{"mirror": Mirror(
    **values, private_key={rules.private_key.get_secret_value()!r})}})
def progress(stage, done, total):
    print(done, flush=True)
mirror(settings, Bucket(settings.bucket), Catalog({catalog.url!r}),
       lambda: datetime.fromisoformat({world.now.isoformat()!r}), progress)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    for _ in range(5):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(world.files()) < 60
    found = world.run()
    assert found.good
    assert found.copied + found.unchanged >= 55
    assert world.files() == dict(zip(map(path_of, keys), contents.values(), strict=True))


class TestForgetting:
    """What somebody wants forgotten is nowhere on the server."""

    def test_copies_parts_and_trash(self, world):
        keys = world.batch({"a.jpg": b"old", "b.jpg": b"b"})
        world.run()
        world.batch({"a.jpg": b"newer"})
        world.run()
        variant = world.publish("one", b"v", "small")
        world.run(variants=("small",))
        (world.root / "uploads/photos/.a.jpg.0123456789abcdef.part").write_bytes(b"half")
        settings = world.settings.model_copy(
            update={"mirror": world.server.settings(variants=("small",))}
        )
        image = variant.split("/")[1]
        assert forget_copies(settings, world.catalog, [keys[0]], [image]) == []
        assert world.files() == {path_of(keys[1]): b"b"}
        assert set(world.rows()) == {keys[1]}

    def test_a_server_that_is_away_is_told_of(self, world):
        (key,) = world.batch({"a.jpg": b"a"})
        world.run()
        settings = world.settings.model_copy(update={"mirror": world.server.settings()})
        with CutCable(world.server.port) as cable:
            cable.closed = True
            away = settings.mirror.model_copy(update={"port": cable.port})
            moved = settings.model_copy(update={"mirror": away})
            (remains,) = forget_copies(moved, world.catalog, [key], [])
        # That is another server, of which nothing was ever heard.
        assert "another mirror" in remains
        off = world.settings
        assert len(forget_copies(off, world.catalog, [key], [])) == 1

    def test_nothing_is_asked_where_there_never_was_a_mirror(self, world):
        assert forget_copies(world.settings, world.catalog, ["uploads/photos/a.jpg"], []) == []
        settings = world.settings.model_copy(update={"mirror": world.server.settings()})
        assert forget_copies(settings, world.catalog, ["uploads/photos/a.jpg"], []) == []
        assert world.server.logins == 0

    def test_a_file_that_is_forgotten_while_it_is_sent(self, world, catalog):
        """The run that sent it finds that nobody knows it any more."""
        (key,) = world.batch({"a.jpg": b"a"})

        async def connect(folders):
            remote = await running.open_sftp(world.server.settings(), folders)
            with catalog.write() as connection:
                catalog_mirror.drop(connection, target, [key])
            return remote

        target = planning.target_of(world.server.settings())
        world.run(connect=connect)
        assert world.files() == {}
        assert world.rows() == {}


def test_without_a_host_there_is_no_mirror(world):
    with pytest.raises(MirrorError, match=r"mirror\.host"):
        world.run(host=None)
