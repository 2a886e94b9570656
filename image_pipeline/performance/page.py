"""The report as one HTML file: no script, no address, nothing loaded from anywhere.

Keys of uploads, messages and statements are text from outside: escaped by Jinja, with invisible
characters written out. The content security policy admits the page's own style and nothing else.
Each key is there once more as a URL has it, so that the page is found when an upload is forgotten.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2

from image_pipeline.delivery import wording as delivery_wording
from image_pipeline.performance import wording
from image_pipeline.performance.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Series,
    bar_chart,
    next_duration,
)
from image_pipeline.performance.report import Report, Span

#: What stages do, for people who do not know their names.
STAGE_NOTES = {
    "wait": "from upload until its run begins",
    "fetch": "a download; the clock is what the run waited for them",
    "inspect": "checked, decoded, fingerprinted by a worker",
    "dedupe": "compared with every known picture",
    "near": "compared with pictures that resemble it",
    "render": "all sizes and formats, by a worker",
    "store": "waiting for files and rows to be written",
    "publish": "manifests, index, galleries",
    "warm": "a file asked for at the edge",
}


def report_page(report: Report) -> str:
    """The page as text, to be stored as UTF-8."""
    colours = resources.files("image_pipeline.delivery") / "templates" / "colours.css"
    own = _environment().get_template("report.css").render()
    style = colours.read_text(encoding="utf-8") + own
    return _environment().get_template("report.html").render(
        report=report,
        style=style,
        policy=_policy(style),
        charts=charts(report),
        notes=STAGE_NOTES,
        frame={
            "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP,
            "base": HEIGHT - BOTTOM,
        },
    )  # fmt: skip


def charts(report: Report) -> list[Chart]:
    """What is drawn, day by day."""
    spans = report.by_day
    chosen = report.explanation.day if report.explanation else None

    def drawn(
        name: str, title: str, note: str, say: Any, *series: Series, overlaid: bool = False
    ) -> Chart:
        days = [span.first for span in spans]
        return bar_chart(
            name, title, note, days, series, say, chosen=chosen, overlaid=overlaid,
            round_up=next_duration if say is wording.duration else None,
        )  # fmt: skip

    def line(label: str, css: str, field: str) -> Series:
        return Series(label, css, values(spans, field))

    return [
        drawn("images", "Images a day", "Uploads that were looked into.", _number,
              line("images", "main", "images")),
        drawn("pace", "Images per second", "Of the time that runs took until they had published.",
              _rate, line("images per second", "main", "images_per_second")),
        drawn("render", "Time to render a picture", "All its sizes and formats, by one worker.",
              wording.duration, line("95 of 100 took at most", "back", "render_p95"),
              line("median", "main", "render_median"), overlaid=True),
        drawn("wait", "Wait before a run", "From upload until its batch begins.",
              wording.duration, line("95 of 100 waited at most", "back", "wait_p95"),
              line("median", "main", "wait_median"), overlaid=True),
        drawn("bytes", "Bytes in and out", "Originals received, and files made of them.",
              _weight, line("originals", "back", "bytes_in"),
              line("made of them", "main", "bytes_out")),
        drawn("duplicates", "Share of duplicates", "Uploads that needed no rendering.",
              wording.share, line("duplicates", "main", "duplicate_rate")),
    ]  # fmt: skip


def values(spans: Sequence[Span], field: str) -> list[float | None]:
    """One field of every span; None where there were no images to tell it of."""
    return [getattr(span, field) if span.images else None for span in spans]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def _rate(value: float) -> str:
    return wording.rate(value)


def _weight(value: float) -> str:
    return delivery_wording.weight(round(value))


def _policy(style: str) -> str:
    digest = b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("image_pipeline.performance"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        duration=wording.duration,
        rate=wording.rate,
        share=wording.share,
        day_name=wording.day_name,
        weight=delivery_wording.weight,
        moment=delivery_wording.moment,
        visible=delivery_wording.visible,
        quoted=quote,
    )
    return made
