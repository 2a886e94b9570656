"""What a page of 24 photographs costs: as uploaded, as JPEG only, and as the pipeline offers it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from playwright.sync_api import Browser, sync_playwright

from benchmarks.photos import photographs
from benchmarks.project import ONE_BATCH, SOURCE, Project, new_project, quiet_process, run_command
from benchmarks.report import Grid, Report, Row, describe_machine
from image_pipeline.delivery.manifest import FORMATS, picture_html
from image_pipeline.store.layout import batch_manifest_key

PHOTOGRAPHS = 24

#: At least 90 % less than the originals.
GOAL = 0.1

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

#: Width and height of a window in CSS pixels, and pixels of the screen to one of CSS.
WINDOWS = {
    "phone": (390, 844, 3),
    "tablet": (820, 1180, 2),
    "desktop": (1440, 900, 1),
    "desktop, dense": (1440, 900, 2),
}

#: What a browser is offered: all formats, and what is left without the better ones.
OFFERS = {
    "AVIF, WebP, JPEG": FORMATS,
    "WebP, JPEG": FORMATS[1:],
    "JPEG": FORMATS[2:],
}

#: Two columns on a phone, four elsewhere, and how wide the pictures in them are.
SIZES = "(min-width: 40rem) calc(25vw - 1.25rem), calc(50vw - 1.5rem)"

_STYLE = """
body { margin: 1rem; display: grid; gap: 1rem; grid-template-columns: repeat(2, 1fr); }
@media (min-width: 40rem) { body { grid-template-columns: repeat(4, 1fr); } }
img { display: block; width: 100%; height: auto; }
"""


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Publish photographs and look at them in a browser; raises ``ClickException`` without one."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise click.ClickException("no browser: install the package chromium")
    machine = describe_machine()
    files = photographs(min(images, PHOTOGRAPHS), folder)
    with new_project(ONE_BATCH) as project:
        batch = project.new_batch(files)
        print(f"page: publishing {len(files)} photographs", file=sys.stderr)
        with quiet_process(run_command(batch), project.environment):
            pass
        manifests, uploaded = _published(project, batch)
        pages = {name: _put(project, manifests, formats) for name, formats in OFFERS.items()}
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=arguments)
            version = browser.version
            costs = {
                window: {name: _loaded(browser, url, window) for name, url in pages.items()}
                for window in WINDOWS
            }
            browser.close()
    count = len(manifests)
    first = next(iter(OFFERS))
    return Report(
        "page",
        f"A page of {count} photographs in a browser, beside what was uploaded",
        tuple(
            Row(f"{window}: {first}", cost[first] / 1e6, "MB", uploaded / 1e6, GOAL, "ratio")
            for window, cost in costs.items()
        ),
        (
            f"Chromium {version}; all {count} pictures scrolled into view; bytes of pictures"
            f" only; sizes: {SIZES}",
            f"beside it: the {count} files as they were uploaded",
        ),
        machine,
        (_grid(costs, uploaded),),
    )


def _grid(costs: Mapping[str, Mapping[str, int]], uploaded: int) -> Grid:
    columns = ("window", "uploaded", *reversed(OFFERS), "of JPEG")
    best, *_, jpeg = OFFERS
    return Grid(
        columns,
        tuple(
            (
                f"{window} {WINDOWS[window][0]} px, {WINDOWS[window][2]}x",
                f"{uploaded / 1e6:.1f} MB",
                *(f"{cost[name] / 1e6:.2f} MB" for name in reversed(OFFERS)),
                f"{cost[best] / cost[jpeg]:.0%}",
            )
            for window, cost in costs.items()
        ),
    )


def _published(project: Project, batch: str) -> tuple[list[dict[str, Any]], int]:
    """The manifests of what a batch brought, and the bytes that were uploaded for them."""
    document = json.loads(project.bucket.get(batch_manifest_key(batch)))
    accepted = [one for one in document["uploads"] if one["verdict"] == "accepted"]
    manifests = [json.loads(project.bucket.get(one["manifest"])) for one in accepted]
    return manifests, sum(one["bytes"] for one in accepted)


def _put(project: Project, manifests: Sequence[Mapping[str, Any]], formats: Sequence[str]) -> str:
    """Write a page that offers only some formats; its address."""
    pictures = []
    for manifest in manifests:
        srcset = {name: text for name, text in manifest["srcset"].items() if name in formats}
        pictures.append(picture_html({**manifest, "srcset": srcset, "sizes": SIZES}, SOURCE))
    page = (
        '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style>{''.join(pictures)}"
    )
    key = f"pages/{len(formats)}.html"
    project.bucket.put(key, page.encode(), "text/html; charset=utf-8")
    return f"{project.bucket.url}/{key}"


def _loaded(browser: Browser, url: str, window: str) -> int:
    """Bytes of all pictures of a page, each of which is scrolled into view."""
    width, height, ratio = WINDOWS[window]
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=ratio
    )
    page = context.new_page()
    page.goto(url)
    for image in page.locator("img").all():
        image.scroll_into_view_if_needed()
        image.evaluate("(image) => image.decode()")
    entries: list[dict[str, Any]] = page.evaluate(
        "() => performance.getEntriesByType('resource').map((one) =>"
        " ({name: one.name, bytes: one.encodedBodySize}))"
    )
    context.close()
    return sum(int(one["bytes"]) for one in entries if "/variants/" in one["name"])
