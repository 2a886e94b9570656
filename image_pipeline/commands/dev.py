"""``image-pipeline dev``: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

import click
import psutil

from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.intake import running
from image_pipeline.commands.local import dagster_home, environment, local_bucket, project_folder
from image_pipeline.delivery.manifest_cache import shown_address
from image_pipeline.settings import Settings

HOST = "127.0.0.1"

#: Dagster's processes get this long to end by themselves; a run that is cut off here is
#: noticed by its lease and tried again at the next start.
GRACE_SECONDS = 10.0


def run_dev(settings: Settings, config: Path | None, port: int, verbose: bool) -> int:
    """Run bucket, UI, daemon and code server until a signal ends them or one of them dies."""
    folder = project_folder(config)
    if _is_taken(port):
        raise click.ClickException(
            f"port {port} is taken: is another 'make dev' running? Choose one with --port"
        )
    Catalog(settings.catalog.url).migrate()
    with local_bucket(settings) as bucket:
        home = dagster_home(folder)
        click.echo(f"Bucket       {bucket.url}")
        if settings.redis.url:
            click.echo(f"Manifests    {shown_address(settings.redis)}")
        click.echo(f"Dagster UI   http://{HOST}:{port}")
        variables = {**os.environ, **environment(config, home)}
        with running(settings, variables) as url:
            if url:
                click.echo(f"Intake       {url}")
            first = next(iter(settings.sources))
            click.echo(f"Upload       image-pipeline upload DIR --source {first}")
            click.echo("End          Ctrl-C\n")
            return _supervise(_command(folder / "workspace.yaml", port, verbose), home, variables)


def _command(workspace: Path, port: int, verbose: bool) -> list[str]:
    level = "info" if verbose else "warning"
    return [
        # `dg dev` wants another layout of the project; until it does not, this one notice is moot.
        sys.executable, "-W", "ignore:Function `dev_command` is superseded",
        "-m", "dagster", "dev", "--workspace", str(workspace),
        "--host", HOST, "--port", str(port),
        "--log-level", level, "--code-server-log-level", level,
    ]  # fmt: skip


def _supervise(command: list[str], folder: Path, variables: dict[str, str]) -> int:
    """Wait for a signal or for the end of the process, then end its whole tree."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    # A session of its own: the terminal's Ctrl-C reaches only this process, which then ends
    # the others in order.
    # In its own folder: Dagster's processes import from where they are started, and a file of
    # the project could stand before one of their modules.
    process = subprocess.Popen(command, cwd=folder, env=variables, start_new_session=True)
    try:
        while process.poll() is None and not ended.wait(0.5):
            pass
        if ended.is_set():
            return 0
        # `dagster dev` answers the death of its daemon or web server with exit code 0.
        click.echo(f"Dagster ended by itself, with exit code {process.returncode}", err=True)
        return process.returncode or 1
    finally:
        end_session(process.pid)
        process.wait()


def end_session(pid: int, grace_seconds: float = GRACE_SECONDS) -> None:
    """End the session that a process leads: first politely, then without asking."""
    tree = _of_session(pid)
    for process in tree:
        _signal(process, signal.SIGINT)
    psutil.wait_procs(tree, timeout=grace_seconds)
    # Looked up again: a run may have been launched while its launcher was being ended.
    alive = _of_session(pid)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=grace_seconds)


def _of_session(leader: int) -> list[psutil.Process]:
    """Every process of a session, also those whose parents have ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
