"""Warming a cache, beside what a load generator gets out of the same cache."""

from __future__ import annotations

import json
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.look import peak_bytes, resident_bytes
from benchmarks.ports import free_port
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.delivery.warmer import Warmer
from image_pipeline.settings import Warming

FILES = 10_000
BYTES = 20_000
CONCURRENCY = 16
ROUNDS = 3
SECONDS_OF_LOAD = 5

_CONFIG = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  proxy_cache_path {folder}/cache keys_zone=edge:20m max_size=2g use_temp_path=off;
  server {{ listen 127.0.0.1:{origin}; root {folder}/files; }}
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{edge};
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache edge; proxy_cache_valid 200 1d; add_header X-Cache $upstream_cache_status always;
    }}
  }}
}}
"""

_SCRIPT = """
local n = -1
request = function()
  n = n + 1
  return wrk.format("GET", "/" .. (n % {files}) .. ".jpg")
end
"""


def measure(images: int, photos: Path | None, quick: bool) -> Report:
    """Warm the same files through an empty and a full cache; then let wrk ask for them."""
    machine = describe_machine()
    files, rounds = (1_000, 1) if quick else (FILES, ROUNDS)
    nginx, wrk = _tool("nginx"), _tool("wrk")
    if nginx is None:
        note = "nginx is not installed: apt-get install nginx-light"
        return Report("warming", "Warming a cache", (), (note,), machine)
    cold, warm, load = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_files(folder / "files", files)
        for number in range(rounds):
            print(f"warming: round {number + 1} of {rounds}", file=sys.stderr)
            with _edge(nginx, folder) as url:
                cold.append(_warm(url, files))
                warm.append(_warm(url, files))
                if wrk:
                    load.append(files / _load(wrk, url, folder, files))
    beside = median(load) if load else None
    few = min(one["grown"] for one in cold) / 1e6
    return Report(
        "warming",
        f"Warming {files:,} files of {BYTES / 1000:g} kB with {CONCURRENCY} connections",
        (
            Row(
                f"{files:,} files, cache full", median(one["seconds"] for one in warm), "s",
                beside, 1.667, "ratio",
            ),
            Row(f"{files:,} files, cache empty", median(one["seconds"] for one in cold), "s"),
            Row(
                "CPU of one file, cache full",
                median(one["cpu"] for one in warm) / files * 1e6, "us",
            ),
            Row("hits of the second pass", min(one["hits"] for one in warm) / files * 100, "%"),
            Row("memory grown by a pass", few, "MB"),
        ),
        (
            "beside it: the time in which wrk gets as many answers from the same full cache, with"
            f" one thread and {CONCURRENCY} connections; 1.667 times that are 60 % of its rate",
            "edge and origin are one nginx on the same cores; through an empty cache it is the"
            " edge, which writes every file to its disk, that sets the pace",
            "CPU is that of the warmer's process; on a busy machine it says more than the time",
            *(() if wrk else ("wrk is not installed: apt-get install wrk",)),
        ),
        machine,
    )  # fmt: skip


def _tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _write_files(folder: Path, files: int) -> None:
    folder.mkdir()
    for number in range(files):
        (folder / f"{number}.jpg").write_bytes(number.to_bytes(4, "big") * (BYTES // 4))


@contextmanager
def _edge(nginx: str, folder: Path) -> Iterator[str]:
    """An edge with an empty cache; its URL."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    edge, origin = free_port(), free_port()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, edge=edge, origin=origin), encoding="utf-8")
    # Its workers are another user's where it is started by root.
    folder.chmod(0o755)
    with subprocess.Popen([nginx, "-p", str(folder), "-c", str(config)]) as process:
        try:
            _await(edge)
            yield f"http://127.0.0.1:{edge}"
        finally:
            process.terminate()


def _await(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _warm(url: str, files: int) -> dict[str, Any]:
    """One pass in a process of its own."""
    call = [sys.executable, "-m", "benchmarks.warming", url, str(files)]
    output = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output)
    return found


def _load(wrk: str, url: str, folder: Path, files: int) -> float:
    """Answers a second that wrk gets."""
    script = folder / "load.lua"
    script.write_text(_SCRIPT.format(files=files), encoding="utf-8")
    call = [wrk, "-t1", f"-c{CONCURRENCY}", f"-d{SECONDS_OF_LOAD}", "-s", str(script), url]
    output = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Requests/sec:\s*([\d.]+)", output)
    assert found is not None, output
    return float(found[1])


def main() -> None:
    """One pass over the files of an edge; what it took, as JSON."""
    url, files = sys.argv[1], int(sys.argv[2])
    rules = Warming(concurrency=CONCURRENCY, per_second=1e6, allow_private_addresses=True)
    with Warmer(rules, [url]) as warmer:
        idle = resident_bytes()
        started, used = time.perf_counter(), _cpu_seconds()
        targets = ((str(number), f"{url}/{number}.jpg") for number in range(files))
        hits = good = 0
        for _, answer in warmer.warm(targets):
            hits += answer.cache == "hit"
            good += answer.warm
        seconds, cpu = time.perf_counter() - started, _cpu_seconds() - used
    assert good == files, f"{good} of {files} answers were good"
    grown = peak_bytes() - idle
    print(json.dumps({"seconds": seconds, "cpu": cpu, "hits": hits, "grown": grown}))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
