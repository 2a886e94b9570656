"""``image-pipeline intake``: the service for uploads of web applications, its keys, CORS."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image_pipeline.catalog import batches
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table
from image_pipeline.commands.local import local_bucket
from image_pipeline.settings import EMBEDDED, Intake, IntakeSource, Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.cors import cors, put_cors, with_upload_rule

if TYPE_CHECKING:
    import httpx

#: Where the service listens, unless it is told otherwise.
PORT = 8010

#: As ``settings.SourceName``, which names of keys are.
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,30}")

_ORIGIN = re.compile(r"https?://[^/\s]+")

#: Seconds that streams and requests get to end when the service is told to.
_STOP_SECONDS = 5

#: Pictures of the rehearsal: enough for a batch, and a second of work.
_PICTURES = 3

#: Seconds until a batch that the rehearsal runs would be taken for abandoned.
_HOLD_SECONDS = 3600.0


def run_serve(settings: Settings, host: str, port: int, proxies: Sequence[str]) -> int:
    """Serve until SIGTERM or Ctrl-C; an embedded bucket runs meanwhile.

    Raises ``click.ClickException`` where the intake is off.
    """
    import uvicorn

    from image_pipeline.intake.app import create_app

    if not settings.intake.sources:
        raise click.ClickException(
            "the intake is off: name a source in intake.sources (docs/intake.md)"
        )
    # Uvicorn ends in order and then raises the signal again: what is below is to end as well.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with local_bucket(settings) as bucket, closing(Catalog(settings.catalog.url)) as catalog:
        if settings.bucket.endpoint_url == EMBEDDED:
            let_pages_upload(settings, bucket, port)
        app = create_app(settings, bucket, catalog)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            forwarded_allow_ips=list(proxies),
            # Addresses hold ids, and whoever reads a log shall not upload.
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )

        class Server(uvicorn.Server):
            """Streams would never end by themselves."""

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                await app.state.streams.close()
                await super().shutdown(sockets)

        with suppress(KeyboardInterrupt):
            Server(config).run()
    return 0


@contextmanager
def running(settings: Settings, variables: Mapping[str, str], port: int = PORT) -> Iterator[str]:
    """The service as a process beside others; its URL, empty where the intake is off.

    ``variables`` are its environment, by which it finds the same settings.
    """
    if not settings.intake.sources:
        yield ""
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "image_pipeline.cli", "intake", "serve", "--port", str(port)],
        env=dict(variables),
        # A terminal's Ctrl-C reaches only whoever started it, and ends the others in order.
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(2 * _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def let_pages_upload(settings: Settings, bucket: Bucket, port: int) -> None:
    """The CORS rule of an embedded bucket, for the page of the service on this machine."""
    origins = {f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")}
    known = cors(bucket.client, bucket.name)
    wanted = with_upload_rule(known, origins | set(settings.intake.origins))
    if wanted != known:
        put_cors(bucket.client, bucket.name, wanted)


def run_key(name: str) -> int:
    """Print a new key, and its digest as the settings want it."""
    from image_pipeline.intake.keys import digest, new_key

    if not _NAME.fullmatch(name):
        raise click.UsageError("NAME: lower case letters, digits and _, at most 31 of them")
    key = new_key()
    click.echo(key)
    click.echo(
        f"It is shown this once. Let it in: intake.sources.<source>.keys:\n  {name}: {digest(key)}",
        err=True,
    )
    return 0


def run_cors(settings: Settings, origins: Sequence[str], *, apply: bool, as_json: bool) -> int:
    """Show the CORS rules that the bucket should have; with ``apply`` write them."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise click.UsageError(f"--origin: {origin!r} is not like https://upload.example")
    bucket = Bucket(settings.bucket)
    known = cors(bucket.client, bucket.name)
    wanted = with_upload_rule(known, [*settings.intake.origins, *origins])
    is_new = wanted != known
    if apply and is_new:
        put_cors(bucket.client, bucket.name, wanted)
    if as_json:
        print_json({"rules": wanted, "changed": is_new, "applied": apply and is_new})
        return 0
    rows = [
        (rule.get("ID", ""), ", ".join(rule["AllowedOrigins"]), ", ".join(rule["AllowedMethods"]))
        for rule in wanted
    ]
    print_table(("rule", "pages of", "may"), rows)
    told = "Written." if apply else "Write it with --apply."
    click.echo(told if is_new else "The bucket has it so already.")
    return 0


def rehearse(settings: Settings, config: Path | None, bucket: Bucket) -> int:
    """Upload generated pictures through the service, and follow them until they are published.

    Exit code 0 if each of them was, and what breaks a limit was refused.
    """
    source = next(iter(settings.sources))
    intake = Intake(sources={source: IntakeSource(anonymous=True)}, per_second=1000.0, burst=1000)
    settings = settings.model_copy(update={"intake": intake})
    with (
        closing(Catalog(settings.catalog.url)) as catalog,
        _served(settings, bucket, catalog) as client,
    ):
        pictures = _pictures()
        answers = _ask(client, source, pictures)
        allowed = [one for one in answers if "post" in one]
        for one in allowed:
            _post(one["post"], pictures[one["name"]])
        before = {one["id"]: client.get(f"/uploads/{one['id']}").json() for one in allowed}
        _run_batches(settings, bucket, catalog, source)
        after = {one["id"]: client.get(f"/uploads/{one['id']}").json() for one in allowed}
        status = client.get("/status").json()
    rows = [_row(one, before, after) for one in answers]
    click.echo("\nUploads of a web application, through the intake\n")
    print_table(("file", "the service said", "sent", "then", "manifest"), rows)
    click.echo(
        f"\n{status['queue_depth']} waiting, {status['throughput_per_minute']:g} a minute; no byte"
        " of a picture went through the service."
    )
    fine = len(allowed) == _PICTURES and all(one["state"] == "published" for one in after.values())
    return 0 if fine else 1


def _pictures() -> dict[str, bytes]:
    """Generated photographs by their names."""
    import io

    from image_pipeline.samples import photograph

    pictures = {}
    for number in range(_PICTURES):
        data = io.BytesIO()
        photograph(640, 427, 100 + number).save(data, "JPEG", quality=88)
        pictures[f"holiday-{number + 1}.jpg"] = data.getvalue()
    return pictures


def _ask(client: httpx.Client, source: str, pictures: dict[str, bytes]) -> list[dict[str, Any]]:
    """The service's answers: about the pictures, one that is too large, and one that is none."""
    files = [
        {"name": name, "size": len(data), "type": "image/jpeg"} for name, data in pictures.items()
    ]
    files.append({"name": "poster.tif", "size": 90_000_000, "type": "image/tiff"})
    files.append({"name": "logo.svg", "size": 4_000, "type": "image/svg+xml"})
    answer = client.post("/uploads", json={"source": source, "files": files})
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["files"]
    return found


def _post(permission: dict[str, Any], data: bytes) -> None:
    import httpx

    answer = httpx.post(
        permission["url"], data=permission["fields"], files={"file": data}, trust_env=False
    )
    answer.raise_for_status()


def _row(
    one: dict[str, Any], before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]
) -> tuple[str, ...]:
    if "error" in one:
        return one["name"], one["error"]["code"], "", "", one["error"]["message"]
    first, last = before[one["id"]], after[one["id"]]
    arrived = "arrived" if first["received"] else "missing"
    return one["name"], "may be sent", arrived, last["state"], last["manifest"] or ""


def _run_batches(settings: Settings, bucket: Bucket, catalog: Catalog, source: str) -> None:
    """What sensor and runs do with what has arrived."""
    from image_pipeline.stages.batching import look_at_source
    from image_pipeline.stages.deduplicating import deduplicate_batch
    from image_pipeline.stages.inspecting import inspect_batch
    from image_pipeline.stages.publishing import finish_batch, publish_batch
    from image_pipeline.stages.rendering import render_batch
    from image_pipeline.stages.tools import Tools, quiet

    quick = settings.batches.model_copy(update={"max_age_seconds": 1})
    settings = settings.model_copy(update={"batches": quick})
    tools = Tools.open(settings, bucket, catalog, quiet)
    look = look_at_source(settings, bucket, catalog, source, "", lambda batches: {})
    with tools.workers:
        for request in look.requests:
            with catalog.write() as connection:
                until = batches.retry_at(tools.clock(), 1, _HOLD_SECONDS)
                batches.hold(connection, request.batch, "rehearsal", until)
            inspect_batch(tools, request.batch)
            deduplicate_batch(tools, request.batch)
            render_batch(tools, request.batch)
            finish_batch(tools, request.batch, publish_batch(tools, request.batch))
    tools.spool.clear()


@contextmanager
def _served(settings: Settings, bucket: Bucket, catalog: Catalog) -> Iterator[httpx.Client]:
    """A client of the service, which a thread of this process serves meanwhile."""
    import threading

    import httpx
    import uvicorn

    from image_pipeline.intake.app import create_app

    app = create_app(settings, bucket, catalog)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
