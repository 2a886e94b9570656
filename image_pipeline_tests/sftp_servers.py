"""SFTP servers of one's own: asyncssh in a thread, OpenSSH as a process, and a bad cable."""

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import asyncssh

from image_pipeline.settings import Mirror

PASSWORD = "a password of tests"


class Sftpd:
    """An SFTP server on 127.0.0.1: ``port``, ``username``, ``folder`` and two keys."""

    host = "127.0.0.1"
    username = "mirror"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0

    @property
    def host_line(self) -> str:
        """What ``mirror.host_key`` takes."""
        return " ".join(self.host_key.export_public_key().decode().split()[:2])

    def settings(self, **changes) -> Mirror:
        """The mirror's settings for this server."""
        values = {
            "host": self.host,
            "port": self.port,
            "username": self.username,
            "private_key": self.client_key.export_private_key().decode(),
            "host_key": self.host_line,
            "path": str(self.folder / "mirror"),
            "connections": 3,
            "transfers": 2,
            "timeout_seconds": 10,
        }
        return Mirror(**{**values, **changes})


class AsyncsshServer(Sftpd):
    """asyncssh's server. ``sftp`` is its class, ``logins`` counts who came in."""

    def __init__(self, folder: Path, sftp=asyncssh.SFTPServer) -> None:
        super().__init__(folder)
        self.sftp = sftp
        self.logins = 0
        self._connections = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._server = self._run(self._listen())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self):
        outer = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, connection):
                outer._connections.add(connection)

            def begin_auth(self, username):
                return True

            def password_auth_supported(self):
                return True

            def validate_password(self, username, password):
                return username == outer.username and password == PASSWORD

            def auth_completed(self):
                outer.logins += 1

        keys = self.client_key.export_public_key().decode()
        return await asyncssh.listen(
            self.host,
            0,
            server_factory=Server,
            server_host_keys=[self.host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(keys),
            sftp_factory=self.sftp,
        )

    async def _close(self):
        self._server.close()
        for connection in self._connections:
            connection.abort()
        await self._server.wait_closed()
        # Whatever a server of tests still sleeps over.
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


#: Debian's package openssh-server brings it.
SSHD = shutil.which("sshd") or next((p for p in ("/usr/sbin/sshd",) if Path(p).exists()), None)
NO_SSHD = "there is no sshd: install the package openssh-server"

_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp {options}
MaxStartups 10:30:100
"""


class OpenSsh(Sftpd):
    """OpenSSH's server, as the user of the tests; ``options`` are those of ``internal-sftp``."""

    def __init__(self, folder: Path, options: str = "") -> None:
        super().__init__(folder)
        self.username = pwd.getpwuid(os.getuid()).pw_name
        self.options = options

    def __enter__(self):
        if os.getuid() == 0:
            # Where it goes to be without rights; it refuses to start without.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._own = tempfile.TemporaryDirectory(prefix="sshd-")
        own = Path(self._own.name)
        (own / "host_key").write_bytes(self.host_key.export_private_key())
        (own / "host_key").chmod(0o600)
        (own / "authorized_keys").write_bytes(self.client_key.export_public_key())
        with socket.socket() as free:
            free.bind((self.host, 0))
            self.port = free.getsockname()[1]
        config = _CONFIG.format(port=self.port, folder=own, options=self.options)
        (own / "sshd_config").write_text(config)
        self.start()
        return self

    def start(self) -> None:
        """Begin to listen."""
        own = Path(self._own.name)
        self._log = (own / "log").open("ab")
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(own / "sshd_config")], stderr=self._log
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((own / "log").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        """No more listening, and no connection left."""
        # Its children have processes of their own, in the same group of ours: found by parent.
        import psutil

        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self._log.close()

    def __exit__(self, *_):
        self.stop()
        self._own.cleanup()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1) as s:
            return s.recv(4) == b"SSH-"
        return False


class CutCable:
    """A proxy before a server that cuts its ``n``-th connection after so many bytes to it.

    ``cuts`` are the bytes, one for each connection in their order; those that come later are
    whole. With ``silent`` it stops to pass on instead. ``closed`` refuses new connections.
    """

    host = "127.0.0.1"

    def __init__(self, port: int, cuts=()) -> None:
        self.to = port
        self.cuts = list(cuts)
        self.made = 0
        self.closed = False
        self.silent = False

    def __enter__(self):
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection that there is."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if self.closed:
                    here.close()
                    continue
                limit = self.cuts[self.made] if self.made < len(self.cuts) else None
                self.made += 1
                there = socket.create_connection((self.host, self.to))
                for one in (here, there):
                    # Or every answer waits 40 ms for more to come.
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._open.append(one)
                for args in ((here, there, limit), (there, here, None)):
                    threading.Thread(target=self._pass_on, args=args, daemon=True).start()

    def _pass_on(self, one, other, limit) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                passed += len(data)
                if limit is not None and passed > limit:
                    if self.silent:
                        continue
                    break
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
