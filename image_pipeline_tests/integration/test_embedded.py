"""The embedded S3 server, run for real: what it keeps, whom it serves, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import psutil
import pytest

from image_pipeline import embedded
from image_pipeline.embedded import EmbeddedS3, EmbeddedServerError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BODY = bytes(range(256)) * 40

#: Starts a server on the folder it is given, says so, and waits to be killed.
OWNER = """
import sys, pathlib
from image_pipeline.embedded import EmbeddedS3
server = EmbeddedS3(pathlib.Path(sys.argv[1]))
server.start()
print(server.endpoint_url, flush=True)
sys.stdin.read()
"""


@contextmanager
def client_of(server: EmbeddedS3) -> Iterator[S3Client]:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name=server.environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=server.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server.environment["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        yield client
    finally:
        client.close()


def put(server: EmbeddedS3, key: str) -> None:
    with client_of(server) as client:
        client.create_bucket(Bucket="images")
        client.put_object(Bucket="images", Key=key, Body=BODY, CacheControl="max-age=60")


def check(server: EmbeddedS3, key: str) -> None:
    with client_of(server) as client:
        answer = client.get_object(Bucket="images", Key=key)
        assert answer["Body"].read() == BODY
        assert answer["CacheControl"] == "max-age=60"
        assert [entry["Key"] for entry in client.list_objects_v2(Bucket="images")["Contents"]] == [
            key
        ]


def servers(data: Path) -> list[psutil.Process]:
    """Every process that serves a folder, found by its command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if str(data) in line and any(part.endswith("embedded.py") for part in line):
            found.append(process)
    return found


@contextmanager
def killed_owner(data: Path, before: signal.Signals | None = None) -> Iterator[psutil.Process]:
    """The server of a process that was killed; ``before`` goes to the server first."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().startswith(b"http://127.0.0.1:")
        (server,) = servers(data)
        if before is not None:
            server.send_signal(before)
        owner.kill()
    try:
        yield server
        assert servers(data) == []
    finally:
        if server.is_running():
            server.kill()


def test_serves_until_stopped_and_leaves_no_process(tmp_path: Path) -> None:
    with EmbeddedS3(tmp_path) as server:
        put(server, "uploads/été +1.jpg")
        check(server, "uploads/été +1.jpg")
        port = int(server.endpoint_url.rpartition(":")[2])
        assert len(servers(tmp_path)) == 1

    assert servers(tmp_path) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with pytest.raises(EmbeddedServerError, match="not started"):
        _ = server.endpoint_url


def test_listens_on_loopback_only_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIND_HOST", "0.0.0.0")
    monkeypatch.setenv("USE_SSL", "1")
    monkeypatch.setenv("AUTH", "true")
    with EmbeddedS3(tmp_path, services=("s3", "sqs")) as server:
        put(server, "a.jpg")
        (process,) = servers(tmp_path)
        listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert [c.laddr.ip for c in listening] == ["127.0.0.1"]
        # A terminal's Ctrl-C goes to a session; the server must not be in ours.
        assert os.getsid(process.pid) == process.pid


def test_objects_and_address_survive_a_restart(tmp_path: Path) -> None:
    with EmbeddedS3(tmp_path) as server:
        put(server, "a.jpg")
        url = server.endpoint_url
    with server:
        assert server.endpoint_url == url
        check(server, "a.jpg")


def test_objects_survive_a_killed_server(tmp_path: Path) -> None:
    with EmbeddedS3(tmp_path) as server:
        put(server, "a.jpg")
        url = server.endpoint_url
        (process,) = servers(tmp_path)
        process.kill()
    with EmbeddedS3(tmp_path) as server:
        assert server.endpoint_url == url
        check(server, "a.jpg")


def test_a_second_start_uses_the_running_server_and_leaves_it(tmp_path: Path) -> None:
    with EmbeddedS3(tmp_path) as first:
        with EmbeddedS3(tmp_path) as second:
            assert second.endpoint_url == first.endpoint_url
            put(second, "a.jpg")
            assert len(servers(tmp_path)) == 1
        check(first, "a.jpg")
        with pytest.raises(EmbeddedServerError, match="does not offer sqs"):
            EmbeddedS3(tmp_path, services=("s3", "sqs")).start()
    assert servers(tmp_path) == []


def test_starts_at_the_same_moment_make_one_server(tmp_path: Path) -> None:
    candidates = [EmbeddedS3(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads, ExitStack() as stack:
        for candidate in candidates:
            stack.callback(candidate.stop)
        list(threads.map(EmbeddedS3.start, candidates))
        assert len({candidate.endpoint_url for candidate in candidates}) == 1
        assert len(servers(tmp_path)) == 1
    assert servers(tmp_path) == []


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    with killed_owner(tmp_path) as server:
        server.wait(10)


def test_a_start_replaces_the_server_of_a_killed_process(tmp_path: Path) -> None:
    with EmbeddedS3(tmp_path) as first:
        put(first, "a.jpg")
    with killed_owner(tmp_path) as orphan, EmbeddedS3(tmp_path) as server:
        assert server.endpoint_url == first_url(tmp_path)
        check(server, "a.jpg")
        assert orphan not in servers(tmp_path)


def test_a_start_kills_an_orphan_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.2)
    with killed_owner(tmp_path, before=signal.SIGSTOP) as orphan, EmbeddedS3(tmp_path) as server:
        put(server, "a.jpg")
        assert orphan not in servers(tmp_path)


def test_stop_kills_a_server_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.2)
    with EmbeddedS3(tmp_path):
        servers(tmp_path)[0].suspend()
    assert servers(tmp_path) == []


def test_a_running_server_that_hangs_is_reported_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedS3(tmp_path):
        (process,) = servers(tmp_path)
        process.suspend()
        monkeypatch.setattr(embedded, "_START_SECONDS", 0.2)
        with pytest.raises(EmbeddedServerError, match=f"process {process.pid} .* not answer"):
            EmbeddedS3(tmp_path).start()
        process.resume()


def test_a_taken_port_is_refused_when_asked_for_and_replaced_when_remembered(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(EmbeddedServerError, match=f"port {taken} is taken"):
            EmbeddedS3(tmp_path, port=taken).start()
        (tmp_path / "port").write_text(f"{taken}\n")
        with EmbeddedS3(tmp_path) as server:
            assert server.endpoint_url != f"http://127.0.0.1:{taken}"
            assert server.endpoint_url == first_url(tmp_path)


def test_a_server_that_cannot_start_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken" / "ministack"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("")
    (broken / "app.py").write_text("raise RuntimeError('the disk is on fire')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    server = EmbeddedS3(tmp_path / "data")
    with pytest.raises(EmbeddedServerError, match=r"ended with 1(?s:.)*the disk is on fire"):
        server.start()
    assert servers(tmp_path / "data") == []


def test_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match=r"image-pipeline\[embedded\]"):
        EmbeddedS3(tmp_path).start()


def first_url(data: Path) -> str:
    """The address that the folder remembers."""
    return f"http://127.0.0.1:{int((data / 'port').read_text())}"
