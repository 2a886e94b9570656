"""The intake service under a steady load: permissions to upload, and what became of uploads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.ports import free_port
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.settings import BucketSettings
from image_pipeline.store.bucket import Bucket

#: The load that the service has to stand: requests a second, for so long.
RATE = 200
SECONDS = 60

#: Connections that hey shares the rate among, as a web application's servers would.
CONNECTIONS = 10

#: Seconds in which wrk asks as fast as it is answered.
FULL_SECONDS = 10

_ASKED = {"source": "photos", "files": [{"name": "a.jpg", "size": 4_000_000, "type": "image/jpeg"}]}

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[{body}]]
"""


@dataclass(frozen=True, slots=True)
class _Load:
    """What a tool saw: milliseconds by percentile, answers by status, and what had none."""

    rate: float
    milliseconds: dict[int, float]
    statuses: dict[int, int]
    errors: int
    cpu: float

    @property
    def failed(self) -> int:
        """Requests without an answer of 200."""
        return self.errors + sum(n for status, n in self.statuses.items() if status != 200)


def measure(images: int, photos: Path | None, quick: bool) -> Report:
    """Ask at 200 requests a second with hey, then as fast as it goes with wrk."""
    machine = describe_machine()
    title = f"The intake at {RATE} requests a second"
    hey, wrk = shutil.which("hey"), shutil.which("wrk")
    if hey is None:
        return Report("intake", title, (), ("hey is not installed: apt-get install hey",), machine)
    seconds = 10 if quick else SECONDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body = folder / "body.json"
        body.write_text(json.dumps(_ASKED), encoding="utf-8")
        with _service(folder) as (url, process):
            upload = _upload(url, folder)
            asking = ["-m", "POST", "-T", "application/json", "-D", str(body), f"{url}/uploads"]
            _load(hey, 2, asking, process)
            load = _load(hey, seconds, asking, process)
            floor = _load(hey, seconds // 4, [f"{url}/health"], process)
            state = _load(hey, seconds // 4, [f"{url}/uploads/{upload}"], process)
            full = _full(wrk, folder, url) if wrk else None
    answers = sum(load.statuses.values())
    rows = [
        Row("POST /uploads, median", load.milliseconds[50], "ms", floor.milliseconds[50], 20.0),
        Row("POST /uploads, 95 of 100", load.milliseconds[95], "ms", floor.milliseconds[95]),
        Row("POST /uploads, 99 of 100", load.milliseconds[99], "ms", floor.milliseconds[99]),
        Row(f"POST /uploads, failed of {answers:,}", load.failed, "", None, 0.0),
        Row("POST /uploads, answered", load.rate, "per s"),
        Row("POST /uploads, CPU of one", load.cpu * 1000, "ms", floor.cpu * 1000),
        Row("GET /uploads/{id}, median", state.milliseconds[50], "ms", floor.milliseconds[50]),
        Row("GET /uploads/{id}, failed", state.failed, "", None, 0.0),
    ]
    if full is not None:
        rows.append(Row("POST /uploads, as fast as it goes", full, "per s"))
    notes = (
        f"{seconds} s of POST /uploads with one file each, {CONNECTIONS} connections, by hey; one"
        " process of `image-pipeline intake serve`, on the same cores as hey and the bucket",
        "beside it: GET /health of the same service in the same minute, which does nothing",
        "the upload that is asked for has arrived and waits: a question to the catalog each time",
        *(
            (f"as fast as it goes: wrk, {CONNECTIONS} connections for {FULL_SECONDS} s",)
            if full is not None
            else ("wrk is not installed: apt-get install wrk",)
        ),
    )
    return Report("intake", title, tuple(rows), notes, machine)


@contextmanager
def _service(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A service of its own; its URL and its process."""
    port = free_port()
    config = folder / "pipeline.yaml"
    # Whoever measures is nobody to be slowed down.
    intake = {
        "sources": {"photos": {"anonymous": True}}, "per_second": 1_000_000, "burst": 1_000_000,
    }  # fmt: skip
    config.write_text(yaml.safe_dump({"bucket": {"endpoint_url": "embedded"}, "intake": intake}))
    command = [sys.executable, "-m", "image_pipeline.cli", "intake", "serve"]
    options = ["--port", str(port), "--config", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        _await(f"{url}/health", process, folder / "log")
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the service does not answer:\n{log.read_text()}") from None
            time.sleep(0.1)
        else:
            return


def _upload(url: str, folder: Path) -> str:
    """An upload that has arrived, and that nobody has discovered yet; its id."""
    request = urllib.request.Request(
        f"{url}/uploads", json.dumps(_ASKED).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)["files"][0]
    bucket = Bucket(BucketSettings(endpoint_url="embedded", data=folder / ".data" / "s3"))
    bucket.put(found["key"], b"a picture", "image/jpeg")
    bucket.client.close()
    return str(found["id"])


def _load(hey: str, seconds: int, options: list[str], process: psutil.Process) -> _Load:
    """Hey at :data:`RATE` requests a second, shared evenly among its connections."""
    print(f"intake: {seconds} s of {options[-1]}", file=sys.stderr)
    each = str(RATE // CONNECTIONS)
    before = _cpu(process)
    call = [hey, "-z", f"{seconds}s", "-c", str(CONNECTIONS), "-q", each, *options]
    output = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    statuses = {
        int(status): int(count)
        for status, count in re.findall(r"\[(\d{3})\]\s+(\d+) responses", output)
    }
    errors = output.partition("Error distribution:")[2]
    taken = re.findall(r"(\d+)% in ([\d.]+) secs", output)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", output)
    assert rate is not None, output
    assert taken, output
    answers = sum(statuses.values())
    return _Load(
        rate=float(rate[1]),
        milliseconds={int(share): float(value) * 1000 for share, value in taken},
        statuses=statuses,
        errors=sum(map(int, re.findall(r"\[(\d+)\]", errors))),
        cpu=(_cpu(process) - before) / answers,
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _full(wrk: str, folder: Path, url: str) -> float:
    """Answers a second that wrk gets."""
    script = folder / "load.lua"
    script.write_text(_SCRIPT.format(body=json.dumps(_ASKED)), encoding="utf-8")
    call = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{FULL_SECONDS}", "-s", str(script)]
    done = subprocess.run([*call, f"{url}/uploads"], check=True, capture_output=True, text=True)
    found = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    assert "Non-2xx" not in done.stdout, done.stdout
    return float(found[1])
