"""The upload page with all that is behind it: service, bucket, catalog, and runs of batches."""

import io
import json
import secrets
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import pytest
import uvicorn
from PIL import Image

from image_pipeline.catalog.batches import hold, retry_at
from image_pipeline.catalog.engine import Catalog
from image_pipeline.intake.app import create_app
from image_pipeline.samples import photograph
from image_pipeline.settings import (
    Batches,
    BucketSettings,
    Formats,
    Intake,
    Jpeg,
    Recipe,
    Settings,
    Size,
    Source,
    Webp,
    Workers,
)
from image_pipeline.stages.batching import look_at_source
from image_pipeline.stages.deduplicating import deduplicate_batch
from image_pipeline.stages.inspecting import inspect_batch
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.stages.rendering import render_batch
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import Bucket

RECIPE = Recipe(
    sizes={
        "thumbnail": Size(role="thumbnail", width=200, height=200, fit="cover"),
        "small": Size(width=640, height=480),
    },
    formats=Formats(webp=Webp(quality=80), jpeg=Jpeg(quality=80)),
)

#: Seconds until a batch that a test runs would be taken for abandoned.
HOLD_SECONDS = 600.0


@contextmanager
def served(app):
    """The URL of an ASGI application that is served by a thread of this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, ws="none", log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@dataclass
class Site:
    """The page's address, and the pipeline that takes what is uploaded."""

    url: str
    tools: Tools

    def run_batches(self):
        """What sensor and runs do: find what came, form batches, and publish them."""
        tools = self.tools
        look = look_at_source(
            tools.settings, tools.bucket, tools.catalog, "photos", "", lambda batches: {}
        )
        for request in look.requests:
            batch = request.batch
            with tools.catalog.write() as connection:
                until = retry_at(tools.clock(), 1, HOLD_SECONDS)
                hold(connection, batch, "test", until)
            inspect_batch(tools, batch)
            deduplicate_batch(tools, batch)
            render_batch(tools, batch)
            finish_batch(tools, batch, publish_batch(tools, batch))


@contextmanager
def opened(s3, folder, sources):
    """A site before a bucket of its own; ``sources`` are those of the intake, all watched."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        settings = Settings(
            bucket=BucketSettings(
                name=f"site-{secrets.token_hex(6)}", endpoint_url=s3.endpoint_url
            ),
            sources={name: Source(prefix=f"uploads/{name}/") for name in sources},
            recipes={"web": RECIPE},
            batches=Batches(max_age_seconds=0, quiet_seconds=0),
            workers=Workers(processes=1, spool=folder / "spool"),
            intake=Intake(sources=sources, per_second=1000, burst=1000, multipart_megabytes=5),
        )
        bucket = Bucket(settings.bucket)
        bucket.create_if_missing()
        catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
        tools = Tools.open(settings, bucket, catalog, lambda *_: None)
        with tools.workers, served(create_app(settings, bucket, catalog)) as url:
            yield Site(url, tools)
        catalog.close()
        bucket.client.close()


@dataclass
class Sent:
    """Requests of a page that carry bytes or ask for permission, as they were made."""

    requests: list = field(default_factory=list)

    def see(self, request):
        if request.method in ("POST", "PUT", "DELETE"):
            self.requests.append(request)

    def parts(self):
        """Numbers of the parts that were put, in their order."""
        return [
            int(one.url.split("partNumber=")[1].split("&")[0])
            for one in self.requests
            if one.method == "PUT"
        ]

    def whole(self):
        """How many files were posted to the bucket."""
        return sum(1 for one in self.requests if "multipart/form-data" in _kind(one))

    def asked(self):
        """Names of files for which permission was asked, request by request."""
        return [
            [file["name"] for file in json.loads(one.post_data)["files"]]
            for one in self.requests
            if one.url.endswith("/uploads")
        ]


def _kind(request):
    return request.headers.get("content-type", "")


@cache
def jpeg(seed, width=900, height=600):
    """A photograph as a small JPEG."""
    data = io.BytesIO()
    photograph(width, height, seed).save(data, "JPEG", quality=85)
    return data.getvalue()


@cache
def bitmap(width, height):
    """A picture of three bytes a pixel: large without taking long to make or to read."""
    data = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(data, "BMP")
    return data.getvalue()


def file(name, data, kind="image/jpeg"):
    """What playwright gives to a file chooser."""
    return {"name": name, "mimeType": kind, "buffer": data}
