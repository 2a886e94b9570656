"""The embedded Valkey server, run for real: what it keeps, whom it serves, and how it ends."""

from __future__ import annotations

import os
import platform
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from image_pipeline import embedded, embedded_valkey
from image_pipeline.delivery.manifest_cache import Kind, ManifestCache
from image_pipeline.embedded import EmbeddedServerError
from image_pipeline.embedded_valkey import EmbeddedValkey, server_binary
from image_pipeline.settings import RedisSettings
from image_pipeline_tests.valkey import client_of, process_of, suspended

#: Starts a server on the folder it is given, says so, and waits to be killed.
OWNER = """
import sys, pathlib
from image_pipeline.embedded_valkey import EmbeddedValkey
server = EmbeddedValkey(pathlib.Path(sys.argv[1]))
server.start()
print(server.url, flush=True)
sys.stdin.read()
"""


#: The user of that name, by custom.
NOBODY = 65_534


def servers(data: Path) -> list[psutil.Process]:
    """Guards and servers of a folder, found by where they work."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(data) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_for_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []


@contextmanager
def killed_owner(data: Path, before: signal.Signals | None = None) -> Iterator[psutil.Process]:
    """The server of a process that was killed; ``before`` goes to the server first."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().startswith(b"redis://")
        server = process_of(data)
        if before is not None:
            server.send_signal(before)
        owner.kill()
    try:
        yield server
    finally:
        if server.is_running():
            server.kill()
        wait_for_end(servers(data))


def test_serves_until_stopped_and_leaves_no_process(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        with client_of(server.url) as client:
            assert client.ping()
        port = server.port
        assert len(servers(tmp_path)) == 2

    assert servers(tmp_path) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with pytest.raises(EmbeddedServerError, match="not started"):
        _ = server.url


def test_settings_find_it_by_its_folder(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path):
        cache = ManifestCache(RedisSettings(url="embedded", data=tmp_path), "images")
        assert list(cache.publish("photos", [("a", 1, b"x")])) == [1]
        assert cache.look("photos", Kind.MANIFEST, "a").value == b"x"
        cache.close()


def test_listens_on_loopback_only_and_lets_in_whoever_may_read_the_folder(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        process = process_of(tmp_path / "valkey")
        listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert [c.laddr.ip for c in listening] == ["127.0.0.1"]
        stranger = client_of(f"redis://127.0.0.1:{server.port}/0")
        with stranger as client, pytest.raises(redis.AuthenticationError):
            client.get("a")
        assert stat.S_IMODE((tmp_path / "valkey").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "valkey" / "password").stat().st_mode) == 0o600
        password = (tmp_path / "valkey" / "password").read_text()
        assert len(password) == 48
        lines = [" ".join(one.cmdline()) for one in servers(tmp_path / "valkey")]
        assert not any(password in line for line in lines)
        # A terminal's Ctrl-C goes to a session; the server must not be in ours.
        assert os.getsid(process.pid) not in (0, os.getsid(0))


def test_data_address_and_password_survive_a_restart(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        url = server.url
        with client_of(url) as client:
            client.set("a", "kept")
    with server:
        assert server.url == url
        with client_of(url) as client:
            assert client.get("a") == b"kept"


def test_data_survive_a_killed_server(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        with client_of(server.url) as client:
            client.set("a", "kept")
            # Beyond the second that it may take until something is on the disk.
            client.execute_command("WAITAOF", 1, 0, 5000)
        processes = servers(tmp_path)
        process_of(tmp_path).kill()
        wait_for_end(processes)
    with EmbeddedValkey(tmp_path) as server, client_of(server.url) as client:
        assert client.get("a") == b"kept"


def test_a_second_start_uses_the_running_server_and_leaves_it(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first:
        with EmbeddedValkey(tmp_path) as second:
            assert second.url == first.url
            assert len(servers(tmp_path)) == 2
        with client_of(first.url) as client:
            assert client.ping()
    assert servers(tmp_path) == []


def test_starts_at_the_same_moment_make_one_server(tmp_path: Path) -> None:
    candidates = [EmbeddedValkey(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads, ExitStack() as stack:
        for candidate in candidates:
            stack.callback(candidate.stop)
        list(threads.map(EmbeddedValkey.start, candidates))
        assert len({candidate.url for candidate in candidates}) == 1
        assert len(servers(tmp_path)) == 2
    assert servers(tmp_path) == []


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    with killed_owner(tmp_path):
        wait_for_end(servers(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent")
def test_a_server_ends_with_its_guard(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path):
        server = process_of(tmp_path)
        guard = server.parent()
        assert guard is not None
        guard.kill()
        wait_for_end([server])


def test_a_start_replaces_the_server_of_a_killed_process(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first, client_of(first.url) as client:
        client.set("a", "kept")
    with killed_owner(tmp_path), EmbeddedValkey(tmp_path) as server, client_of(server.url) as again:
        assert again.get("a") == b"kept"


@pytest.mark.faults
def test_a_start_kills_an_orphan_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.2)
    with (
        killed_owner(tmp_path, before=signal.SIGSTOP) as orphan,
        EmbeddedValkey(tmp_path) as server,
        client_of(server.url) as client,
    ):
        assert client.ping()
        assert process_of(tmp_path) != orphan


@pytest.mark.faults
def test_a_start_kills_a_server_that_hangs_without_its_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.2)
    with EmbeddedValkey(tmp_path):
        server = process_of(tmp_path)
        guard = server.parent()
        assert guard is not None
        server.suspend()
        guard.kill()
        with EmbeddedValkey(tmp_path) as second, client_of(second.url) as client:
            assert client.ping()
            assert process_of(tmp_path) != server
        wait_for_end([server])


@pytest.mark.faults
def test_stop_kills_a_server_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.2)
    with EmbeddedValkey(tmp_path):
        both = servers(tmp_path)
        for one in both:
            one.suspend()
    wait_for_end(both)


@pytest.mark.faults
def test_a_running_server_that_hangs_is_reported_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedValkey(tmp_path), suspended(tmp_path):
        monkeypatch.setattr(embedded_valkey, "_START_SECONDS", 0.2)
        monkeypatch.setattr(embedded_valkey, "_ANSWER_SECONDS", 0.1)
        pid = process_of(tmp_path).pid
        with pytest.raises(EmbeddedServerError, match=f"process {pid} .* not answer"):
            EmbeddedValkey(tmp_path).start()


def test_a_port_that_is_taken_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (tmp_path / "port").write_text(f"{taken}\n")
        with EmbeddedValkey(tmp_path) as server:
            assert server.port != taken
            assert int((tmp_path / "port").read_text()) == server.port


def test_a_port_that_is_taken_at_the_last_moment_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        free = iter([taken, 29_871, 29_872, 29_873])
        monkeypatch.setattr(EmbeddedValkey, "_free_ports", lambda _: free)
        with EmbeddedValkey(tmp_path) as server:
            assert server.port != taken


def test_a_server_that_cannot_start_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "appendonlydir").write_text("not a folder")
    with pytest.raises(EmbeddedServerError, match=r"ended with 1(?s:.)*appendonlydir"):
        EmbeddedValkey(tmp_path).start()
    assert servers(tmp_path) == []


def test_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match=r"image-pipeline\[embedded\]"):
        EmbeddedValkey(tmp_path).start()


def test_says_where_there_is_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_binary().is_file()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(
        EmbeddedServerError, match=r"no server for linux on riscv64: set redis\.url"
    ):
        server_binary()


def test_a_password_that_was_never_written_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "password").touch(0o600)
    with EmbeddedValkey(tmp_path) as server:
        assert len((tmp_path / "password").read_text()) == 48
        with client_of(server.url) as client:
            assert client.ping()


def _nobody_can_run_python() -> bool:
    """Whether root, who is running this, has an interpreter that others may run too."""
    try:
        return (
            os.getuid() == 0
            and subprocess.run([sys.executable, "-c", ""], user=NOBODY, check=False).returncode == 0
        )
    except PermissionError:
        return False


@pytest.mark.skipif(not _nobody_can_run_python(), reason="needs root, and a Python for everybody")
def test_serves_those_who_are_not_root(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("nobody")
    for one in (folder, *folder.parents[:2]):
        one.chmod(one.stat().st_mode | 0o011)
    (folder / "data").mkdir()
    os.chown(folder / "data", NOBODY, NOBODY)
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder / "data")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=(),
        cwd="/", env={"PATH": "/usr/bin", "PYTHONPATH": str(Path(embedded.__file__).parents[1])},
    ) as owner:  # fmt: skip
        assert owner.stdout is not None
        url = owner.stdout.readline().decode().strip()
        with client_of(url) as client:
            assert client.ping()
        assert process_of(folder / "data").uids().real == NOBODY
        owner.kill()
    wait_for_end(servers(folder / "data"))
