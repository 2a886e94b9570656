"""The services of docker-compose.yml as plain processes of this machine.

What an image brings that is no process of ours (Postgres and Valkey from wheels, nginx) is
started as its own entry point would. Everything else is the file's: commands, variables, health
checks, the order of the start, and what is started again after it ended.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import yaml

from image_pipeline.embedded_valkey import server_binary
from image_pipeline_tests.edge import NGINX
from image_pipeline_tests.postgres import Postgres
from image_pipeline_tests.production.compose import (
    ROOT,
    Image,
    Places,
    load,
    services_in_order,
)

#: In the environment of every process of a service: the kernel keeps it readable as long as a
#: process lives, so that none is overlooked.
MARKER = "COMPOSE_SERVICE"

#: A start takes about 10 s on two idle cores, and ten times that where others work on them.
PATIENCE = 240.0

_BINARIES = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]

_NGINX = """
daemon off; master_process off; pid {tmp}/pid; error_log {tmp}/error.log;
events {{ }}
http {{
  access_log off; default_type application/octet-stream;
  client_body_temp_path {tmp}/t1; proxy_temp_path {tmp}/t2; fastcgi_temp_path {tmp}/t3;
  uwsgi_temp_path {tmp}/t4; scgi_temp_path {tmp}/t5;
  include {conf}/*.conf;
}}
"""


class Service:
    """One service: a process with the command and the variables of the file."""

    #: What it listens on in its container, where a health check may have to be replaced.
    port: int | None = None

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.name = name
        self.said = stack.services[name]
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.image = Image.read()
        self._lay_out()
        self._before = dict(self._files())

    def path(self, path: str) -> Path:
        """Where a path of this container lies."""
        return self.stack.places.path(self.name, path)

    def text(self, text: str, name: str = "") -> str:
        """A text of this container, with its places; ``name`` is that of its field."""
        return self.stack.places.text(self.name, text, name)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes know of their surroundings; nothing of this machine's."""
        said = {"HOME": "/home/pipeline", "TMPDIR": "/tmp", **self.image.environment}
        for file in self.said.get("env_file", ()):
            assert file["path"] == ".env"
            said |= self.stack.variables
        said |= self.said.get("environment", {})
        placed = {name: self.text(str(value), name) for name, value in said.items()}
        return {**placed, "PATH": self._search_path(), MARKER: f"{self.stack.folder}:{self.name}"}

    @property
    def command(self) -> list[str]:
        """Its program and arguments."""
        words = self.said["command"]
        return [self.text(word, before) for word, before in zip(words, ["", *words], strict=False)]

    def start(self) -> None:
        """Start its process."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.path(self.image.folder),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.stack.folder / f"{self.name}.log"

    def exit_code(self) -> int | None:
        """None as long as its first process lives."""
        assert self.process
        return self.process.poll()

    def run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Another command in its container, as ``docker compose exec`` or ``run`` do."""
        return subprocess.run(
            [self.text(word) for word in command],
            env=self.environment, cwd=self.path(self.image.folder), timeout=PATIENCE,
            capture_output=True, check=False,
        )  # fmt: skip

    def is_healthy(self) -> bool:
        """One look of its health check; what cannot be run here is replaced and named."""
        kind, *words = self.said["healthcheck"]["test"]
        program = words[0].split()[0]
        if shutil.which(program, path=self._search_path()) is None:
            self.stack.not_run[self.name] = program
            return self._answers()
        command = ["sh", "-c", words[0]] if kind == "CMD-SHELL" else words
        return self.run(*command).returncode == 0

    def kill(self) -> None:
        """``kill -9`` everything in its container, as the kernel does when it is out of memory."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        assert self.process
        self.process.wait(20)

    def stop(self) -> None:
        """As ``docker stop``: SIGTERM to the first process, and patience; then ``kill -9``."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(self._grace_seconds())
        except subprocess.TimeoutExpired:
            self.stack.killed.append(self.name)
        self.kill()

    def processes(self) -> list[psutil.Process]:
        """Its processes, also those whose parents have ended."""
        return list(marked(f"{self.stack.folder}:{self.name}"))

    def written(self) -> list[str]:
        """Files of its container that it made or changed where the file lets nobody write."""
        allowed = tuple(self._writable())
        after = dict(self._files())
        changed = {path for path, state in after.items() if self._before.get(path) != state}
        return sorted(path for path in changed if not path.startswith(allowed))

    def _writable(self) -> Iterator[str]:
        for one in self.said.get("tmpfs", ()):
            yield one.split(":")[0] + "/"
        for volume in self.said.get("volumes", ()):
            yield volume.split(":")[1] + "/"

    def _files(self) -> Iterator[tuple[str, int]]:
        root = self.stack.folder / self.name
        for path in root.rglob("*"):
            if path.is_file():
                yield f"/{path.relative_to(root)}", path.stat().st_mtime_ns

    def _lay_out(self) -> None:
        for folder in (*Places.FOLDERS, "/dagster/storage", "/work/spool", "/work/tmp"):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        for target, source in self.image.files.items():
            self._put(target, ROOT / source)
        for volume in self.said.get("volumes", ()):
            source, target, *_ = volume.split(":")
            if source.startswith("./"):
                self._put(target, ROOT / source)

    def _put(self, target: str, source: Path) -> None:
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        if source.suffix == ".yaml":
            value = self.stack.places.value(self.name, yaml.safe_load(text))
            text = yaml.safe_dump(value)
        path.write_text(text, encoding="utf-8")

    def _search_path(self) -> str:
        return ":".join(_BINARIES)

    def _grace_seconds(self) -> float:
        return float(self.said.get("stop_grace_period", "10s").removesuffix("s"))

    def _answers(self) -> bool:
        assert self.port
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.stack.places.ports[self.port])) == 0


class PostgresService(Service):
    """The server of the wheel, with what the image's entry point makes of the variables."""

    port = 5432

    def start(self) -> None:
        """Make role and databases, then start with the options of the command."""
        self.starts += 1
        self._server = Postgres()
        self._server.port = self.stack.places.ports[self.port]
        self._server.__enter__()
        said = self.said["environment"]
        user, password = said["POSTGRES_USER"], said["POSTGRES_PASSWORD"]
        self._execute(f"CREATE ROLE \"{user}\" LOGIN SUPERUSER PASSWORD '{password}'")
        self._execute(f'CREATE DATABASE "{said["POSTGRES_DB"]}" OWNER "{user}"')
        for script in self.path("/docker-entrypoint-initdb.d").glob("*.sql"):
            self._execute(script.read_text(encoding="utf-8"))
        program, *options = self.said["command"]
        assert (program, set(options[::2])) == ("postgres", {"-c"})
        for option in options[1::2]:
            self._execute("ALTER SYSTEM SET {} = {}".format(*option.split("=")))
        hba = self._server.folder / "data" / "pg_hba.conf"
        only = f"host all {user} 127.0.0.1/32 scram-sha-256\n"
        hba.write_text(only + hba.read_text(encoding="utf-8"), encoding="utf-8")
        self._server.stop()
        self._server.start()

    @property
    def environment(self) -> dict[str, str]:
        """In its container the default port is its own."""
        return {**super().environment, "PGPORT": str(self._server.port)}

    def exit_code(self) -> int | None:
        """None: no test kills it here."""
        return None

    def crash(self) -> None:
        """``kill -9``, and started again on what it left, as Docker does."""
        self._server.kill()
        self._server.start()

    def kill(self) -> None:
        """End it and remove its folder."""
        self._server.__exit__()

    def stop(self) -> None:
        """The same, after it has written everything."""
        if self.starts:
            self._server.stop()
            self.kill()

    def _execute(self, statement: str) -> None:
        connection = psycopg2.connect(self._server._dsn("postgres"))
        connection.autocommit = True
        connection.cursor().execute(statement)
        connection.close()

    def _search_path(self) -> str:
        return f"{self._server._bin}:{super()._search_path()}"


class ValkeyService(Service):
    """The server of the wheel, at the address that the container would have for itself."""

    port = 6379

    @property
    def command(self) -> list[str]:
        """The file's, on this machine's port."""
        port = str(self.stack.places.ports[self.port])
        own = ["--bind", "127.0.0.1", "--port", port, "--dir", str(self.path("/data"))]
        return [*super().command, *own]

    def _search_path(self) -> str:
        return f"{server_binary().parent}:{super()._search_path()}"


class EdgeService(Service):
    """nginx, with the template filled in as its entry point does."""

    port = 8080

    @property
    def command(self) -> list[str]:
        """With a frame like the image's nginx.conf around it."""
        assert NGINX
        return [NGINX, "-p", str(self.path("/tmp")), "-c", str(self.path("/tmp/nginx.conf"))]

    def start(self) -> None:
        """Put the variables into the template."""
        values = {name: str(value) for name, value in self.said["environment"].items()}
        if values.pop("NGINX_ENTRYPOINT_LOCAL_RESOLVERS", None):
            values["NGINX_LOCAL_RESOLVERS"] = "127.0.0.1"
        conf = self.path("/etc/nginx/conf.d")
        for template in self.path("/etc/nginx/templates").glob("*.template"):
            text = template.read_text(encoding="utf-8")
            for name, value in values.items():
                text = text.replace(f"${{{name}}}", value)
            port = str(self.stack.places.ports[self.port])
            text = re.sub(rf"(listen ){self.port};", rf"\g<1>127.0.0.1:{port};", text)
            (conf / template.stem).write_text(self.text(text), encoding="utf-8")
        frame = _NGINX.format(tmp=self.path("/tmp"), conf=conf)
        self.path("/tmp/nginx.conf").write_text(frame, encoding="utf-8")
        super().start()

    def _lay_out(self) -> None:
        super()._lay_out()
        self.path("/etc/nginx/conf.d").mkdir(exist_ok=True)


_KINDS: dict[str, type[Service]] = {
    "postgres": PostgresService, "valkey": ValkeyService, "edge": EdgeService,
}  # fmt: skip


class Stack:
    """All services of a profile; a context manager."""

    def __init__(self, folder: Path, variables: dict[str, str], profile: str) -> None:
        self.folder = folder
        #: What stands in .env.
        self.variables = variables
        self.services: dict[str, Any] = load(variables)["services"]
        order = services_in_order(self.services, profile)
        self.places = Places(list(self.services), folder)
        #: Services whose health check is a program that is not installed here, and which.
        self.not_run: dict[str, str] = {}
        #: Services that had to be killed at the end.
        self.killed: list[str] = []
        self.running = {name: _KINDS.get(name, Service)(self, name) for name in order}
        self.started: list[str] = []

    def __enter__(self) -> Stack:
        try:
            for name, service in self.running.items():
                self._await_what_it_depends_on(name)
                service.start()
                self.started.append(name)
            for name in self.running:
                self._await(name, self._default_condition(name))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __getitem__(self, name: str) -> Service:
        return self.running[name]

    def stop(self) -> None:
        """End all, the last first."""
        while self.started:
            self.running[self.started.pop()].stop()

    def pause(self, *names: str) -> None:
        """``docker compose stop``: what is ended like this stays so."""
        for name in names:
            self.started.remove(name)
            self.running[name].stop()

    def resume(self, *names: str) -> None:
        """``docker compose up``."""
        for name in names:
            self.running[name].start()
            self.started.append(name)

    def tend(self) -> None:
        """Start again what has ended, as Docker does by the restart policy."""
        for name in self.started:
            service = self.running[name]
            code = service.exit_code()
            policy = service.said["restart"]
            if code is None or policy == "no" or (policy == "on-failure" and code == 0):
                continue
            service.kill()
            service.start()

    def wait_until(self, is_so: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait for a condition while the services are tended; returns its value."""
        deadline = time.monotonic() + seconds
        while not (found := is_so()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:g} s\n{self.logs()}")
            self.tend()
            time.sleep(0.2)
        return found

    def logs(self) -> str:
        """The end of every log."""
        parts = []
        for name in self.running:
            log = self.folder / f"{name}.log"
            if log.is_file():
                parts.append(f"--- {name}\n{log.read_text(errors='replace')[-1500:]}")
        return "\n".join(parts)

    def url(self, port: int) -> str:
        """Where the port of a container is here."""
        return f"http://127.0.0.1:{self.places.ports[port]}"

    def _await_what_it_depends_on(self, name: str) -> None:
        for other, terms in self.services[name].get("depends_on", {}).items():
            if other in self.running:
                self._await(other, terms["condition"])
            else:
                assert not terms.get("required", True), f"{name} needs {other}"

    def _default_condition(self, name: str) -> str:
        is_once = "healthcheck" not in self.services[name]
        return "service_completed_successfully" if is_once else "service_healthy"

    def _await(self, name: str, condition: str) -> None:
        service = self.running[name]
        tests = {
            "service_started": lambda: True,
            "service_healthy": service.is_healthy,
            "service_completed_successfully": lambda: service.exit_code() == 0,
        }
        self.wait_until(tests[condition], f"{name}: {condition}")


def marked(value: str) -> Iterator[psutil.Process]:
    """Processes with this marker in their environment."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == value and process.status() != "zombie":
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def left_of(folder: Path) -> list[str]:
    """Command lines of processes of any service of a stack that are alive."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARKER, "").startswith(f"{folder}:"):
                found.append(" ".join(process.cmdline()))
    return found
