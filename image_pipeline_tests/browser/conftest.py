"""Chromium, and a bucket with pages of 24 photographs in it, once for this folder.

All tests of the folder run in one process (``xdist_group``), and what they share is torn down
behind the last of them: playwright's event loop must not outlive them in a process that other
tests use.
"""

import io
import os
import secrets
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from image_pipeline.catalog import batches, uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.delivery.gallery import portable_page
from image_pipeline.samples import photograph
from image_pipeline.settings import BucketSettings, Recipe, Settings, Size, Source, Workers
from image_pipeline.stages.deduplicating import deduplicate_batch
from image_pipeline.stages.inspecting import inspect_batch
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.stages.rendering import render_batch
from image_pipeline.stages.tools import Tools, utc_now
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import gallery_key, image_manifest_key, source_gallery_key

from .pages import Pages, document_of, shown_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

PHOTOGRAPHS = 24

#: Small for a camera, so that they are drawn quickly; the share that is saved grows with pixels.
WIDTH, HEIGHT = 2400, 1800

#: The sizes of the defaults, but for the largest, which takes half of the time.
RECIPE = Recipe(
    sizes={
        "thumbnail": Size(role="thumbnail", width=400, height=400, fit="cover"),
        "small": Size(width=640, height=480),
        "medium": Size(width=1024, height=768),
        "large": Size(width=1920, height=1080),
    }
)

#: Names as strangers choose them. Each sets a flag on the page if any of it is ever run.
HOSTILE = (
    "<script>window.ran='script'</script>.jpg",
    '"><img src=x onerror="window.ran=\'handler\'">.jpg',
    "</title></style><svg onload=window.ran='svg'>.jpg",
    "' onmouseover='window.ran=1' x='.jpg",
    "javascript:window.ran='address'",
    "\u202egpj.exe\u2028.jpg",
)


def pytest_collection_modifyitems(items):
    """Every test of this folder is one for the browser, and runs where the others run."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="package")
def chromium():
    """Debian's chromium, driven by playwright."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no browser: install the package chromium")
    from playwright.sync_api import sync_playwright

    # Chromium does not start as root with its sandbox; nothing but our own pages is opened.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def _draw(seed):
    """A photograph, mirrored and upside down: three pictures for a third of the drawing."""
    picture = photograph(WIDTH, HEIGHT, seed)
    files = []
    for one in (picture, ImageOps.mirror(picture), ImageOps.flip(picture)):
        data = io.BytesIO()
        one.save(data, "JPEG", quality=92)
        files.append(data.getvalue())
    return files


def _cut_out():
    """A picture with transparency, of a few kilobytes."""
    picture = Image.new("RGBA", (900, 1200), (0, 0, 0, 0))
    picture.paste(Image.linear_gradient("L").resize((500, 700)).convert("RGBA"), (200, 250))
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


@dataclass(frozen=True)
class Studio:
    """What was published: manifests of the photographs, and what their uploads weigh."""

    bucket: Bucket
    batch: str
    manifests: list[dict]
    uploaded: int

    def url(self, key):
        return f"{self.bucket.url}/{key}"


@pytest.fixture(scope="package")
def studio(chromium, s3, tmp_path_factory):
    """24 photographs and some strange uploads, taken through every stage."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        photographs = [one for some in pool.map(_draw, range(PHOTOGRAPHS // 3)) for one in some]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("studio")
        bucket = BucketSettings(
            name=f"pictures-{secrets.token_hex(6)}", endpoint_url=s3.endpoint_url
        )
        settings = Settings(
            bucket=bucket,
            sources={"photos": Source(prefix="uploads/photos/")},
            recipes={"web": RECIPE},
            workers=Workers(processes=2, spool=folder / "spool"),
        )
        made = Bucket(bucket)
        made.create_if_missing()
        catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
        tools = Tools.open(settings, made, catalog, lambda *_: None)
        with tools.workers:
            batch = _process(tools, _files(photographs))
        manifests = [
            document_of(made, image_manifest_key("photos", row["image_id"]))
            for row in _report(catalog, batch)
            if row["verdict"] == "accepted" and row["key"].startswith("uploads/photos/photo")
        ]
        yield Studio(made, batch, manifests, sum(map(len, photographs)))
        catalog.close()
        made.client.close()


def _files(photographs):
    """Uploads by their names: photographs, a repeat, a cut-out, what is refused, all hostile."""
    files = {f"photo-{number:02}.jpg": data for number, data in enumerate(photographs)}
    files["zz cut-out.png"] = _cut_out()
    files[HOSTILE[0]] = photographs[0]
    files |= dict.fromkeys(HOSTILE[1:], b"no picture")
    return files


def _process(tools, files):
    rows = []
    for name, data in files.items():
        key = f"uploads/photos/{name}"
        tools.bucket.put(key, data, "application/octet-stream")
        etag = tools.bucket.head(key).etag
        rows.append(
            {
                "source": "photos", "key": key, "etag": etag, "size": len(data),
                "last_modified": utc_now(), "discovered_at": utc_now(),
            }
        )  # fmt: skip
    with tools.catalog.write() as connection:
        uploads.add(connection, rows)
        (batch,) = batches.form(connection, "photos", utc_now(), 100, lambda found: [list(found)])
        batches.request(connection, batch, utc_now())
    inspect_batch(tools, batch)
    deduplicate_batch(tools, batch)
    render_batch(tools, batch)
    assert finish_batch(tools, batch, publish_batch(tools, batch))
    return batch


def _report(catalog, batch):
    with catalog.read() as connection:
        return uploads.report(connection, batch)


@pytest.fixture(scope="package")
def pages(studio):
    """The addresses of the pages that are opened."""
    bucket = studio.bucket
    text = bucket.get(gallery_key(studio.batch)).decode()

    def put(name, page):
        bucket.put(f"pages/{name}.html", page.encode(), "text/html; charset=utf-8")
        return studio.url(f"pages/{name}.html")

    article = shown_page(studio.manifests)
    unknown = {"image/avif": "image/x-unknown-a", "image/webp": "image/x-unknown-w"}

    def without(page, *kinds):
        for kind in kinds:
            page = page.replace(f'type="{kind}"', f'type="{unknown[kind]}"')
        return page

    return Pages(
        gallery=studio.url(gallery_key(studio.batch)),
        source=studio.url(source_gallery_key("photos")),
        portable=put("portable", portable_page(text, bucket.get)),
        article=put("article", article),
        without_avif=put("webp", without(article, "image/avif")),
        jpeg_only=put("jpeg", without(article, "image/avif", "image/webp")),
    )


@pytest.fixture
def visit(chromium):
    """Open a page in a window of its own; what it complains about fails the test."""
    contexts = []
    complaints = []

    def open_page(url, width=1440, height=900, *, wait="load", slow=False, before=None, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        # A page without an icon is asked for one all the same.
        context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        if before:
            before(context)
        page = context.new_page()
        page.complaints = complaints
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.add_init_script(path=Path(__file__).with_name("watching.js"))
        page.pictures = []
        page.on(
            "requestfinished",
            lambda request: (
                page.pictures.append(request)
                if request.resource_type == "image" and request.url.startswith("http")
                else None
            ),
        )
        if slow:
            # A phone far from its mast: 150 ms, 3.2 Mbit/s; a page takes a second to arrive.
            network = {"latency": 150, "downloadThroughput": 400_000, "uploadThroughput": 90_000}
            context.new_cdp_session(page).send(
                "Network.emulateNetworkConditions", {"offline": False, **network}
            )
        page.goto(url, wait_until=wait)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
