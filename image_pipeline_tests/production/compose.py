"""docker-compose.yml as Compose reads it, and what becomes of its places on one machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from image_pipeline_tests.ports import free_port

ROOT = Path(__file__).parents[2]

_VARIABLE = re.compile(r"\$\{(\w+)(?::(-|\?)([^}]*))?\}")


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """A part of the file with ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?why}`` filled in."""
    if isinstance(value, dict):
        return {key: interpolated(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [interpolated(part, variables) for part in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        if known := variables.get(name):
            return known
        if kind == "?":
            raise KeyError(f"{name}: {text}")
        return text or ""

    return _VARIABLE.sub(fill, value)


def services_in_order(services: Mapping[str, Any], profile: str) -> list[str]:
    """Names of the services of a profile, each after those it depends on."""
    wanted = [
        name for name, one in services.items() if profile in one.get("profiles", [profile])
    ]  # fmt: skip
    order: list[str] = []

    def add(name: str) -> None:
        for other in services[name].get("depends_on", {}):
            if other in wanted and other not in order:
                add(other)
        if name not in order:
            order.append(name)

    for name in wanted:
        add(name)
    return order


class Places:
    """The one place where containers become this machine: their names, ports and folders.

    Nothing else of a command, a variable or a mounted file is changed.
    """

    #: Ports that services listen on in their containers, Valkey's being its default.
    PORTS = (5432, 6379, 4566, 4000, 3000, 8080)

    #: Folders of containers that are the container's own.
    FOLDERS = (
        "/app", "/dagster", "/data", "/work", "/tmp", "/home/pipeline", "/var/cache/nginx",
        "/etc/nginx",
    )  # fmt: skip

    def __init__(self, names: list[str], folder: Path) -> None:
        self.ports = {port: free_port() for port in self.PORTS}
        self.folder = folder
        self._hosts = {*names, "0.0.0.0"}
        ports = "|".join(map(str, self.PORTS))
        hosts = "|".join(map(re.escape, {*self._hosts, "127.0.0.1"}))
        self._address = re.compile(rf"(?<![\w.-])(?:{hosts}):({ports})\b")
        folders = "|".join(self.FOLDERS)
        self._path = re.compile(rf"(?<![\w./-])({folders})(?=[/:\s;]|$)")

    def path(self, service: str, path: str) -> Path:
        """Where a path of a container lies here."""
        return self.folder / service / path.lstrip("/")

    def text(self, service: str, text: str, name: str = "") -> str:
        """A text of a container, as it has to be here; ``name`` is that of its field."""
        if name.lower().endswith("host") and text in self._hosts:
            return "127.0.0.1"
        if text.isdigit() and int(text) in self.ports:
            return str(self.ports[int(text)])
        text = self._address.sub(lambda found: f"127.0.0.1:{self.ports[int(found[1])]}", text)
        return self._path.sub(lambda found: str(self.path(service, found[1])), text)

    def value(self, service: str, value: Any, name: str = "") -> Any:
        """The same for all scalars of a structure."""
        if isinstance(value, dict):
            return {key: self.value(service, part, key) for key, part in value.items()}
        if isinstance(value, list):
            return [self.value(service, part) for part in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return self.ports.get(value, value)
        return self.text(service, value, name) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Image:
    """What deploy/Dockerfile says of the processes of its containers."""

    folder: str
    environment: dict[str, str]
    files: dict[str, str]

    @classmethod
    def read(cls) -> Image:
        """Folder, variables, and the configuration files: path in the image -> path here."""
        folder, environment, files = "/", {}, {}
        for word, *rest in _instructions((ROOT / "deploy" / "Dockerfile").read_text("utf-8")):
            if word == "WORKDIR":
                (folder,) = rest
            elif word == "ENV":
                environment |= dict(one.split("=", 1) for one in rest)
            elif word == "COPY":
                *sources, target = rest
                files |= {
                    f"{target.replace('./', folder + '/').rstrip('/')}/{Path(one).name}": one
                    for one in sources
                    if one.endswith(".yaml")
                }
        return cls(folder, environment, files)


def _instructions(text: str) -> Iterator[list[str]]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if words := shlex.split(line):
            yield words


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """docker-compose.yml with its variables filled in."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    filled: dict[str, Any] = interpolated(yaml.safe_load(text), variables)
    return filled
