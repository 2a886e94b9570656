"""Pages to look at what a batch brought and what a source has: one HTML file each.

Styles and script are inside. Pictures are ``<picture>`` elements over the published files,
loaded as they come near the screen; until then, and wherever the bucket cannot be reached, the
placeholder stands for them. :func:`portable_page` makes of a page one that shows its pictures
from a disk and without a network.

Names of uploads are hostile. They appear as text and as values of ``title`` and ``aria-label``
only, escaped by Jinja and with invisible characters written out; never in an address, a
style or the script. The content security policy admits the page's own script and style by
their hashes and pictures from the hosts of the manifests, so markup that did get through
could neither run nor report anywhere.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jinja2

from image_pipeline.delivery import wording
from image_pipeline.delivery.cards import (
    FORMAT_NAMES,
    GalleryItem,
    Weight,
    canonical_of,
    card_styles,
    cards_of,
    data_uri,
    frame_shape,
    offered,
    refusal_of,
    variants_of,
    web_address,
    weighed,
)
from image_pipeline.delivery.manifest import FORMATS, PHONE_WIDTH, phone_distance

if TYPE_CHECKING:
    from image_pipeline.catalog.showing import SourceTotals

__all__ = ["BatchLine", "GalleryItem", "gallery_page", "portable_page", "source_page"]

#: Verdicts in the order of the page: how many uploads are called, and what became of them.
_VERDICTS = {
    "accepted": ("Accepted", "rendered and published"),
    "duplicate": ("Duplicates", "nothing rendered twice"),
    "rejected": ("Rejected", "not published"),
    "failed": ("Failed", "will be tried again"),
}

#: Batches that are seen at once on the page of a source; the others unfold.
_OPEN_BATCHES = 5

#: A ``<picture>`` of a finished page, with the key of the thumbnail that can stand for it. No
#: text of a page can look like it: every ``<`` in a name is escaped.
_PICTURE = re.compile(
    r'<picture data-thumbnail="([a-z0-9/._-]+)">.*?</picture>',
    re.DOTALL,
)

#: Media types by the ends of published keys.
_ENDINGS = {"avif": "avif", "webp": "webp", "jpg": "jpeg", "jpeg": "jpeg"}


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A batch on the page of its source: its own page, and its uploads by verdict."""

    id: str
    url: str
    created_at: datetime
    uploads: int
    bytes: int
    verdicts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Total:
    """A figure of the head of a page. ``verdict`` is what its filter shows, or empty."""

    verdict: str
    label: str
    count: str
    note: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A batch as the template writes it down."""

    id: str
    url: str
    iso: str
    moment: str
    uploads: str
    counts: list[tuple[str, int]]
    weight: str


def gallery_page(
    title: str, items: Sequence[GalleryItem], *, generated_at: datetime, source_url: str = ""
) -> str:
    """The page of a batch as text, to be stored as UTF-8.

    ``generated_at`` must have a zone; ``ValueError`` otherwise. Duplicates stand right behind
    their canonical if it is among ``items``. ``source_url`` is the page of the source.
    """
    shown = _in_families([item for item in items if item.verdict in ("accepted", "duplicate")])
    refused = [item for item in items if item.verdict not in ("accepted", "duplicate")]
    totals = _totals(items)
    return _page(
        title,
        shown,
        generated_at,
        kicker="Image pipeline, batch",
        source_url=web_address(source_url),
        totals=totals,
        filters=totals,
        newest=False,
        refusals=[refusal_of(item) for item in refused],
        batches=[],
        batches_left=0,
    )


def source_page(
    source: str,
    items: Sequence[GalleryItem],
    *,
    totals: SourceTotals,
    batches: Sequence[BatchLine],
    generated_at: datetime,
) -> str:
    """The page of a source as text, to be stored as UTF-8.

    ``items`` are its newest accepted uploads and ``batches`` its newest batches, the newest
    first; ``totals`` count all of them. ``generated_at`` must have a zone; ``ValueError``
    otherwise.
    """
    return _page(
        source,
        list(items),
        generated_at,
        kicker="Image pipeline, source",
        source_url="",
        totals=[
            _Total("", "Uploads", f"{totals.uploads:,}", "everything that was received"),
            _Total("", "Files", f"{totals.files:,}", "of different bytes"),
            _Total("", "Received", wording.weight(totals.bytes), "in all uploads"),
            _Total("", "Batches", f"{totals.batches:,}", "each with a page of its own"),
        ],
        filters=[],
        newest=True,
        refusals=[],
        batches=[_row(batch) for batch in batches],
        batches_left=totals.batches - len(batches),
    )


def portable_page(page: str, read: Callable[[str], bytes]) -> str:
    """A finished page with its thumbnails inside, to be opened without the bucket.

    ``read`` gives the bytes of a published object by its key; what it raises is raised.
    A card without a published thumbnail keeps its placeholder.
    """

    def inside(found: re.Match[str]) -> str:
        key = found[1]
        uri = data_uri(read(key), _ENDINGS[key.rsplit(".", 1)[-1]])
        return f'<img src="{uri}" alt="" decoding="async">'

    return _PICTURE.sub(inside, page)


def _page(title: str, shown: Sequence[GalleryItem], generated_at: datetime, **parts: Any) -> str:
    shape = frame_shape(shown)
    cards = cards_of(shown, shape)
    published = [item for item in shown if item.verdict == "accepted" and variants_of(item)]
    sheets = (_template(name).render() for name in ("colours.css", "gallery.css"))
    style = "".join([*sheets, card_styles(cards, shape)])
    script = _template("gallery.js").render()
    return _template("gallery.html").render(
        title=wording.visible(title),
        policy=_policy(style, script, shown),
        style=style,
        script=script,
        generated_at=generated_at.isoformat(),
        moment=wording.moment(generated_at),
        loads=_loads(published),
        published=len(published),
        phone_width=PHONE_WIDTH,
        cards=cards,
        open_batches=_OPEN_BATCHES,
        **parts,
    )


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("image_pipeline.delivery"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def _in_families(items: Sequence[GalleryItem]) -> list[GalleryItem]:
    """Every canonical with its duplicates behind it; strays stay where they first appear."""
    families: dict[object, list[GalleryItem]] = {}
    for position, item in enumerate(items):
        families.setdefault(canonical_of(item) or position, []).append(item)
    return [
        item
        for family in families.values()
        for item in sorted(family, key=lambda item: item.verdict != "accepted")
    ]


def _row(batch: BatchLine) -> _Row:
    return _Row(
        id=wording.visible(batch.id),
        url=web_address(batch.url),
        iso=batch.created_at.isoformat(),
        moment=wording.moment(batch.created_at),
        uploads=f"{batch.uploads:,}",
        counts=[(label, batch.verdicts.get(name, 0)) for name, (label, _) in _VERDICTS.items()],
        weight=wording.weight(batch.bytes),
    )


def _totals(items: Sequence[GalleryItem]) -> list[_Total]:
    """The uploads, then those of each verdict; failures only if there are any."""
    counts = Counter(item.verdict for item in items)
    sizes: Counter[str] = Counter()
    for item in items:
        sizes[item.verdict] += item.bytes_in
    uploads = _Total("all", "Uploads", f"{len(items):,}", wording.weight(sizes.total()))
    return [uploads] + [
        _Total(verdict, label, f"{counts[verdict]:,}", f"{wording.weight(sizes[verdict])}, {note}")
        for verdict, (label, note) in _VERDICTS.items()
        if counts[verdict] or verdict != "failed"
    ]


def _loads(items: Sequence[GalleryItem]) -> list[Weight]:
    """What a phone loads to see every picture once: as uploaded, then by format, best last.

    A browser that knows a format knows those after it in
    :data:`~image_pipeline.delivery.manifest.FORMATS` too, and takes them for pictures that
    lack it. A picture in none of them counts with what it has.
    """
    uploaded = sum(item.bytes_in for item in items)
    present = {variant["format"] for item in items for variant in offered(item)}
    phone = {name: sum(_phone_bytes(offered(item), name) for item in items) for name in present}
    rows = [
        weighed(FORMAT_NAMES[name], uploaded, phone[name])
        for name in reversed(FORMATS)
        if name in present
    ]
    return [Weight("Uploaded", wording.weight(uploaded), "", 100.0), *rows] if items else []


def _phone_bytes(variants: Sequence[Mapping[str, Any]], best: str) -> int:
    known = FORMATS[FORMATS.index(best) :]
    pool = [one for one in variants if one["format"] in known] or variants
    nearest = min(
        pool, key=lambda one: (FORMATS.index(one["format"]), phone_distance(one["width"]))
    )
    return int(nearest["bytes"])


def _policy(style: str, script: str, items: Iterable[GalleryItem]) -> str:
    urls = {web_address(variant["url"]) for item in items for variant in variants_of(item)}
    parts = [urlsplit(url) for url in urls if url]
    hosts = sorted({f"{part.scheme}://{part.netloc}" for part in parts})
    return "; ".join(
        [
            "default-src 'none'",
            " ".join(["img-src data:", *hosts]),
            f"style-src {_source_hash(style)}",
            f"script-src {_source_hash(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _source_hash(text: str) -> str:
    """A hash source of a content security policy (CSP level 3, section 2.3.1)."""
    digest = b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
    return f"'sha256-{digest}'"
