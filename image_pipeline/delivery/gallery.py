"""A page to look at what a batch brought: one HTML file that needs nothing else.

The page works from a disk and without a network: styles, script and thumbnails are inside.
Published files are loaded by the viewer, which falls back to the thumbnail, and in place of
thumbnails that were not embedded.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import jinja2

from image_pipeline.delivery import wording
from image_pipeline.delivery.manifest import (
    FORMATS,
    PHONE_WIDTH,
    phone_distance,
    placeholder_css,
)

#: How a duplicate relates to its canonical, by the tier that found it.
TIERS = {"bytes": "Same bytes as", "pixels": "Same pixels as", "picture": "Same picture as"}

#: Verdicts in the order of the page: how many uploads are called, and what became of them.
_VERDICTS = {
    "accepted": ("Accepted", "rendered and published"),
    "duplicate": ("Duplicates", "nothing rendered twice"),
    "rejected": ("Rejected", "not published"),
    "failed": ("Failed", "will be tried again"),
}

_FORMAT_NAMES = {"avif": "AVIF", "webp": "WebP", "jpeg": "JPEG"}

#: A host with an optional port, of characters that cannot end a source of a policy.
_HOST = re.compile(r"([A-Za-z0-9.\-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?")


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """One upload on the page.

    ``key`` is the object key as it came, ``verdict`` one of ``accepted``, ``duplicate``,
    ``rejected``, ``failed``, ``reason`` the code of a rejection or the tier of a duplicate.
    ``width`` and ``height`` in pixels (0 if not known), ``seconds`` of work. ``manifest`` is
    the image manifest of its canonical, None for what was not accepted. ``thumbnail`` holds
    an encoded picture of ``thumbnail_format`` (``jpeg``, ``webp``, ``avif``); without it the
    published one is linked.
    """

    key: str
    verdict: str
    reason: str
    message: str
    width: int
    height: int
    bytes_in: int
    seconds: float
    manifest: Mapping[str, Any] | None
    thumbnail: bytes | None
    thumbnail_format: str


@dataclass(frozen=True, slots=True)
class _Place:
    """An upload's name and, if it has a card on this page, the card's number."""

    name: str
    number: int | None


@dataclass(frozen=True, slots=True)
class _File:
    """A row of a card's table of files. ``url`` is empty unless it is http or https."""

    size: str
    format: str
    pixels: str
    weight: str
    url: str


@dataclass(frozen=True, slots=True)
class _Weight:
    """What one format makes of an upload, or of all of them. ``share`` is 0 to 100."""

    label: str
    weight: str
    change: str
    share: float


@dataclass(frozen=True, slots=True)
class _Card:
    """An accepted upload or a duplicate."""

    number: int
    item: GalleryItem
    name: str
    key: str
    message: str
    pixels: str
    weight: str
    thumbnail: str
    thumbnail_size: tuple[int, int]
    weights: list[_Weight]
    relation: str
    canonical: _Place | None
    duplicates: list[_Place]
    files: list[_File]
    image_id: str


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A row of the table of uploads that were not accepted."""

    verdict: str
    name: str
    key: str
    reason: str
    message: str
    pixels: str
    weight: str


@dataclass(frozen=True, slots=True)
class _Total:
    """How many uploads have a verdict (or ``all``)."""

    verdict: str
    label: str
    count: int
    note: str


def gallery_page(title: str, items: Sequence[GalleryItem], *, generated_at: datetime) -> str:
    """The page as text, to be stored as UTF-8.

    ``generated_at`` must have a zone; ``ValueError`` otherwise. Duplicates stand right behind
    their canonical if it is among ``items``.
    """
    shown = _in_families([item for item in items if item.verdict in ("accepted", "duplicate")])
    refused = [item for item in items if item.verdict not in ("accepted", "duplicate")]
    cards = _cards(shown)
    published = [item for item in shown if item.verdict == "accepted" and _variants(item)]
    style = _template("gallery.css").render() + _card_styles(cards)
    script = _template("gallery.js").render()
    return _template("gallery.html").render(
        title=wording.visible(title),
        policy=_policy(style, script, shown),
        style=style,
        script=script,
        generated_at=generated_at.isoformat(),
        moment=wording.moment(generated_at),
        totals=_totals(items),
        loads=_loads(published),
        published=len(published),
        phone_width=PHONE_WIDTH,
        cards=cards,
        refusals=[_refusal(item) for item in refused],
        views=[_view(card.item) for card in cards],
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


def _canonical(item: GalleryItem) -> str | None:
    return None if item.manifest is None else str(item.manifest["canonical"])


def _variants(item: GalleryItem) -> list[Mapping[str, Any]]:
    return list(item.manifest["variants"]) if item.manifest else []


def _name(item: GalleryItem) -> str:
    """The last part of the key, or all of it if the key ends with a slash."""
    return wording.visible(item.key.rsplit("/", 1)[-1] or item.key)


def _in_families(items: Sequence[GalleryItem]) -> list[GalleryItem]:
    """Every canonical with its duplicates behind it; strays stay where they first appear."""
    families: dict[object, list[GalleryItem]] = {}
    for position, item in enumerate(items):
        families.setdefault(_canonical(item) or position, []).append(item)
    return [
        item
        for family in families.values()
        for item in sorted(family, key=lambda item: item.verdict != "accepted")
    ]


def _cards(items: Sequence[GalleryItem]) -> list[_Card]:
    heads: dict[str, _Place] = {}
    followers: dict[str, list[_Place]] = {}
    for number, item in enumerate(items):
        if canonical := _canonical(item):
            place = _Place(_name(item), number)
            if item.verdict == "accepted":
                heads.setdefault(canonical, place)
            else:
                followers.setdefault(canonical, []).append(place)
    return [
        _card(number, item, heads, followers.get(_canonical(item) or "", []))
        for number, item in enumerate(items)
    ]


def _card(
    number: int, item: GalleryItem, heads: Mapping[str, _Place], followers: list[_Place]
) -> _Card:
    canonical = _canonical(item) or ""
    duplicate = item.verdict == "duplicate"
    earlier = _Place("one uploaded earlier", None)
    return _Card(
        number=number,
        item=item,
        name=_name(item),
        key=wording.visible(item.key),
        message=wording.visible(item.message),
        pixels=wording.pixels(item.width, item.height),
        weight=wording.weight(item.bytes_in),
        thumbnail=_data_uri(item) or _linked_thumbnail(item),
        thumbnail_size=_thumbnail_size(item),
        weights=[] if duplicate else _weights(item),
        relation=TIERS.get(item.reason, "Duplicate of") if duplicate else "",
        canonical=heads.get(canonical, earlier) if duplicate else None,
        duplicates=[] if duplicate else followers,
        files=[_file(variant) for variant in _variants(item)],
        image_id=canonical,
    )


def _data_uri(item: GalleryItem) -> str:
    if not item.thumbnail or item.thumbnail_format not in FORMATS:
        return ""
    return f"data:image/{item.thumbnail_format};base64,{b64encode(item.thumbnail).decode()}"


def _linked_thumbnail(item: GalleryItem) -> str:
    """The URL of a published thumbnail, for pages of more pictures than can be embedded."""
    published = {one["format"]: one["url"] for one in _variants(item) if one["role"] == "thumbnail"}
    # WebP first: the page cannot ask the browser, and nearly all read it.
    return next(
        (str(published[name]) for name in ("webp", "jpeg", "avif") if name in published), ""
    )


def _thumbnail_size(item: GalleryItem) -> tuple[int, int]:
    """Pixels of the published thumbnail, the shape that the embedded one has too."""
    for variant in _variants(item):
        if variant["role"] == "thumbnail":
            return (variant["width"], variant["height"])
    return (max(item.width, 1), max(item.height, 1))


def _weights(item: GalleryItem) -> list[_Weight]:
    """Per format the largest published file, against the upload."""
    largest: dict[str, Mapping[str, Any]] = {}
    for variant in _variants(item):
        name = variant["format"]
        if variant["role"] == "responsive" and (
            name not in largest or variant["width"] > largest[name]["width"]
        ):
            largest[name] = variant
    return [
        _weighed(_FORMAT_NAMES[name], item.bytes_in, largest[name]["bytes"])
        for name in FORMATS
        if name in largest
    ]


def _weighed(label: str, before: int, after: int) -> _Weight:
    share = min(100.0, 100 * after / before) if before else 0.0
    text = wording.weight(after)
    return _Weight(label, text, wording.change(before, after), round(share, 2))


def _file(variant: Mapping[str, Any]) -> _File:
    return _File(
        size=variant["size"],
        format=_FORMAT_NAMES[variant["format"]],
        pixels=wording.pixels(variant["width"], variant["height"]),
        weight=wording.weight(variant["bytes"]),
        url=_web_address(variant["url"]),
    )


def _refusal(item: GalleryItem) -> _Refusal:
    return _Refusal(
        verdict=item.verdict,
        name=_name(item),
        key=wording.visible(item.key),
        reason=wording.visible(item.reason),
        message=wording.visible(item.message),
        pixels=wording.pixels(item.width, item.height),
        weight=wording.weight(item.bytes_in),
    )


def _totals(items: Sequence[GalleryItem]) -> list[_Total]:
    """The uploads, then those of each verdict; failures only if there are any."""
    counts = Counter(item.verdict for item in items)
    sizes: Counter[str] = Counter()
    for item in items:
        sizes[item.verdict] += item.bytes_in
    uploads = _Total("all", "Uploads", len(items), wording.weight(sizes.total()))
    return [uploads] + [
        _Total(verdict, label, counts[verdict], f"{wording.weight(sizes[verdict])}, {note}")
        for verdict, (label, note) in _VERDICTS.items()
        if counts[verdict] or verdict != "failed"
    ]


def _loads(items: Sequence[GalleryItem]) -> list[_Weight]:
    """What a phone loads to see every picture once: as uploaded, then by format, best last.

    A browser that knows a format knows those after it in :data:`FORMATS` too, and takes them
    for pictures that lack it. A picture in none of them counts with what it has.
    """
    uploaded = sum(item.bytes_in for item in items)
    present = {variant["format"] for item in items for variant in _offered(item)}
    phone = {name: sum(_phone_bytes(_offered(item), name) for item in items) for name in present}
    rows = [
        _weighed(_FORMAT_NAMES[name], uploaded, phone[name])
        for name in reversed(FORMATS)
        if name in present
    ]
    return [_Weight("Uploaded", wording.weight(uploaded), "", 100.0), *rows] if items else []


def _offered(item: GalleryItem) -> Sequence[Mapping[str, Any]]:
    """The files that a browser chooses from."""
    variants = _variants(item)
    offered = item.manifest["srcset"] if item.manifest else {}
    responsive = [one for one in variants if one["role"] == "responsive"]
    return [one for one in responsive if one["format"] in offered] or responsive or variants


def _phone_bytes(variants: Sequence[Mapping[str, Any]], best: str) -> int:
    known = FORMATS[FORMATS.index(best) :]
    pool = [one for one in variants if one["format"] in known] or variants
    nearest = min(
        pool, key=lambda one: (FORMATS.index(one["format"]), phone_distance(one["width"]))
    )
    return int(nearest["bytes"])


def _view(item: GalleryItem) -> dict[str, Any]:
    """What the viewer needs of an item: sources, best format first, and a word on each file."""
    srcsets: dict[str, dict[int, str]] = {}
    files: dict[str, str] = {}
    largest = (0, 0)
    for variant in _offered(item):
        url = _web_address(variant["url"])
        if variant["role"] == "responsive" and url:
            width, height, kind = variant["width"], variant["height"], variant["format"]
            srcsets.setdefault(kind, {}).setdefault(width, url)
            weight = wording.weight(variant["bytes"])
            files[url] = f"{_FORMAT_NAMES[kind]}, {wording.pixels(width, height)}, {weight}"
            largest = max(largest, (width, height))
    return {
        "width": largest[0],
        "height": largest[1],
        "sources": [
            {
                "type": f"image/{name}",
                "srcset": ", ".join(f"{url} {width}w" for width, url in srcsets[name].items()),
            }
            for name in FORMATS
            if name in srcsets
        ],
        "files": files,
    }


def _web_address(url: str) -> str:
    """``url`` if it leads to a web server, else nothing: never a script or a local file."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) else ""


def _card_styles(cards: Sequence[_Card]) -> str:
    """Placeholders, as rules of the one style sheet so that no style attribute is needed."""
    placeholders = [
        placeholder_css(card.item.manifest) if card.item.manifest else "" for card in cards
    ]
    rules = [
        f".p{card.number}{{{declaration}}}"
        for card, declaration in zip(cards, placeholders, strict=True)
        if declaration
    ]
    shape = next((card.thumbnail_size for card in cards if card.files), (1, 1))
    return "\n".join([f":root{{--shape:{shape[0]}/{shape[1]}}}", *rules, ""])


def _policy(style: str, script: str, items: Iterable[GalleryItem]) -> str:
    urls = {_web_address(variant["url"]) for item in items for variant in _variants(item)}
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
