"""The embedded S3 server: ministack as a child process, on the loopback interface only.

Two servers on one folder would ruin it. So the server holds a lock on ``server.lock`` for as
long as it lives, and the kernel releases that lock however it dies: who finds it held finds in
it who serves where, who finds it free may serve. ``start.lock`` lets one process at a time look
and decide. A server also ends when the process that started it is gone, and one that has not
noticed yet is ended by the next start.

This file is also the child's program: it runs as a script and imports nothing of the package.
"""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import importlib
import importlib.util
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"

#: A start takes 0.2 s plus 4 s per 100,000 objects kept; a loaded machine may need many times that.
_START_SECONDS = 20.0

#: Open connections get 3 s to finish (hypercorn's default), then state is written.
_STOP_SECONDS = 8.0

POLL_SECONDS = 0.02

#: Below the ports systems hand out to outgoing connections (Linux from 32768, macOS and IANA
#: from 49152), so that a remembered port is not taken by some program's passing connection.
PORTS = range(20_000, 30_000)

#: What the server inherits. Everything else could reconfigure it (AUTH, USE_SSL, AWS_*, ...).
_INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ")


class EmbeddedServerError(Exception):
    """The embedded server cannot be used; the message says why and quotes its log."""


@dataclass(frozen=True, slots=True)
class _Server:
    """What a running server says of itself in ``server.lock``."""

    pid: int
    owner: int
    port: int


class EmbeddedS3:
    """An S3 server whose objects live under a folder; a context manager.

    ``data`` is the folder: objects in ``s3/``, bucket settings in ``state/``, ``server.log``,
    and ``port``. Without ``port`` the one used last time is taken again, so that published URLs
    stay valid; if something else has it by now, or the first time, a free one is chosen.
    ``services`` are AWS services by their short names. With ``check_access`` signatures and the
    policies of IAM users count (of the service ``iam``); else everybody may do everything.

    If a server of another :class:`EmbeddedS3` already works on the folder, it is used as it is,
    whatever its port, and is left running by :meth:`stop`.
    """

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        services: Sequence[str] = ("s3",),
        *,
        check_access: bool = False,
    ) -> None:
        self._data = data.resolve()
        self._wanted_port = port
        self._services = tuple(services)
        self._check_access = check_access
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """``http://127.0.0.1:<port>``; raises :class:`EmbeddedServerError` before a start."""
        if self._port is None:
            raise EmbeddedServerError("the embedded S3 server is not started")
        return f"http://{HOST}:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables for client processes: credentials the server takes, and no proxy before it."""
        past = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        direct = f"{past},{HOST}" if past else HOST
        return {
            "AWS_ACCESS_KEY_ID": "embedded",
            "AWS_SECRET_ACCESS_KEY": "embedded",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": direct,
            "no_proxy": direct,
        }

    def start(self) -> None:
        """Start the server, or find the one that runs, and wait until it answers.

        Raises :class:`EmbeddedServerError` if it ends, does not answer within 20 s, does not
        offer a service asked for, or if a port asked for by number is taken.
        """
        if self._process is not None:
            return
        _require("ministack", "psutil")
        self._data.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _START_SECONDS
        with locked(self._data / "start.lock", deadline):
            if not self._join(deadline):
                self._launch(deadline)

    def stop(self) -> None:
        """End the server if this object started it; returns when its process is gone."""
        process, self._process, self._port = self._process, None, None
        if process is not None:
            process.terminate()
            kill_unless(lambda: process.poll() is not None, process.pid)
            process.wait()

    def _join(self, deadline: float) -> bool:
        """Use the server that runs on the folder. False if none does, after ending an orphan."""
        lock = self._data / "server.lock"
        while is_held(lock):
            server = _read(lock)
            if server is not None and _is_orphaned(server):
                send_signal(server.pid, signal.SIGTERM)
                kill_unless(lambda: not is_held(lock), server.pid)
            elif server is not None and (services := _services_at(server.port)) is not None:
                self._require_services(services)
                self._port = server.port
                return True
            if time.monotonic() > deadline:
                who = f"process {server.pid}" if server else "an unknown process"
                raise EmbeddedServerError(
                    f"{self._data}: {who} serves this folder but does not answer; end it first"
                )
            time.sleep(POLL_SECONDS)
        return False

    def _launch(self, deadline: float) -> None:
        with self._listen() as listener, (self._data / "server.log").open("wb") as log:
            port = listener.getsockname()[1]
            self._process = subprocess.Popen(
                # -P keeps this file's folder off the import path: its modules have plain names.
                [
                    *(sys.executable, "-P", __file__, str(self._data)),
                    *(str(os.getpid()), str(listener.fileno()), str(port)),
                ],
                env=self._server_environment(port),
                cwd=self._data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(),),
                # Its own session: a terminal's Ctrl-C reaches us, and we end it in order.
                start_new_session=True,
            )
        try:
            self._require_services(self._await_services(port, deadline))
            (self._data / "port").write_text(f"{port}\n", encoding="ascii")
            self._port = port
        except BaseException:
            self.stop()
            raise

    def _await_services(self, port: int, deadline: float) -> set[str]:
        assert self._process is not None
        while (services := _services_at(port)) is None:
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                what = f"ended with {code}" if code is not None else "does not answer"
                raise EmbeddedServerError(f"the embedded S3 server {what}\n{self._log_end()}")
            time.sleep(POLL_SECONDS)
        return services

    def _require_services(self, offered: set[str]) -> None:
        missing = sorted(set(self._services) - offered)
        if missing:
            raise EmbeddedServerError(
                f"the server on {self._data} does not offer {', '.join(missing)}"
            )

    def _listen(self) -> socket.socket:
        """A listening socket. The server inherits it, so nobody can take the port in between."""
        for port in self._ports():
            listener = socket.socket()
            # A server that was killed leaves connections in TIME_WAIT; they hold no port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
                listener.listen()
            except OSError:
                listener.close()
            else:
                return listener
        wanted = self._wanted_port
        raise EmbeddedServerError(f"port {wanted} is taken" if wanted else "found no free port")

    def _ports(self) -> Iterator[int]:
        if self._wanted_port is not None:
            yield self._wanted_port
            return
        with suppress(OSError, ValueError):
            yield int((self._data / "port").read_text(encoding="ascii"))
        yield from random.sample(PORTS, 100)

    def _server_environment(self, port: int) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {
            **inherited,
            # Presigned URLs are checked against the server's own credentials: those of clients.
            "AWS_ACCESS_KEY_ID": "embedded",
            "AWS_SECRET_ACCESS_KEY": "embedded",
            "GATEWAY_PORT": str(port),
            "SERVICES": ",".join(self._services),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._data / "s3"),
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self._data / "state"),
            "LOG_LEVEL": "WARNING",
            # Brokers of other services, which would listen on every interface.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            **({"AUTH": "true"} if self._check_access else {}),
            # It would look for containers of its own to remove, in the user's Docker.
            "DOCKER_HOST": f"unix://{self._data}/no-docker",
        }

    def _log_end(self) -> str:
        log = (self._data / "server.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(log.splitlines()[-20:])


def _require(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise EmbeddedServerError(
            f"{', '.join(missing)} not installed: pip install 'image-pipeline[embedded]'"
        )


@contextmanager
def locked(path: Path, deadline: float) -> Iterator[int]:
    """Hold an exclusive lock on a file; yields its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"{path} stays locked by another process")
            time.sleep(POLL_SECONDS)
        yield descriptor
    finally:
        # Said aloud: a process forked meanwhile shares the lock and would keep it.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether some process holds the lock on a file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _read(lock: Path) -> _Server | None:
    """Who holds the lock; ``None`` in the instant before the holder has said so."""
    try:
        return _Server(**json.loads(lock.read_text(encoding="ascii")))
    except (ValueError, TypeError):
        return None


def _is_orphaned(server: _Server) -> bool:
    import psutil

    try:
        return bool(psutil.Process(server.pid).ppid() != server.owner)
    except psutil.NoSuchProcess:
        return True


def _services_at(port: int) -> set[str] | None:
    """The services of the server on a port; ``None`` if there is no answer yet."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/_ministack/health")
        return set(json.loads(connection.getresponse().read())["services"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def kill_unless(done: Callable[[], bool], pid: int) -> None:
    """Wait for a server told to end; when its time is up, kill its process group."""
    deadline = time.monotonic() + _STOP_SECONDS
    while not done():
        if time.monotonic() > deadline:
            send_signal(-pid, signal.SIGKILL)
            return
        time.sleep(POLL_SECONDS)


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process, or with a negative number a group of them; one that is gone is fine."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _end_with(owner: int) -> None:
    """End this process once its parent is another than ``owner``.

    Looked up rather than signalled: Linux's parent-death signal comes when the *thread* that
    started us ends, and macOS has none.
    """
    while os.getppid() == owner:
        time.sleep(0.25)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _serve(data: Path, owner: int, listener: int, port: int) -> None:
    """The child: lock the folder, then serve on an inherited socket until SIGTERM."""
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    # A server whose start was interrupted may still be ending, hence the patience.
    with locked(data / "server.lock", time.monotonic() + _STOP_SECONDS) as lock:
        os.ftruncate(lock, 0)
        os.write(lock, json.dumps(asdict(_Server(os.getpid(), owner, port))).encode("ascii"))
        # Every client process keeps up to 50 connections; the usual soft limits are 256 to 1024.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):  # macOS names a limit that it then refuses.
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

        from hypercorn.asyncio import serve
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"fd://{listener}"]
        config.keep_alive_timeout = 75
        config.loglevel = "WARNING"
        asyncio.run(serve(importlib.import_module("ministack.app").app, config))


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), *map(int, sys.argv[2:]))
