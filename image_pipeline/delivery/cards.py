"""The cards of a gallery page: uploads turned into what the template writes down."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from image_pipeline.delivery import wording
from image_pipeline.delivery.manifest import FORMATS, placeholder_css

#: How a duplicate relates to its canonical, by the tier that found it.
TIERS = {"bytes": "Same bytes as", "pixels": "Same pixels as", "picture": "Same picture as"}

FORMAT_NAMES = {"avif": "AVIF", "webp": "WebP", "jpeg": "JPEG"}

#: How wide a card is, as the style sheet lays out 2, 3, 4 or 5 columns: up to which width of the
#: window, then shares of that width in percent and rem to take off.
_COLUMNS = (
    ("(max-width: 30rem) ", "1vw", 46.0, 0.45),
    ("(max-width: 60rem) ", "1vw", 92 / 3, 1.0),
    ("(max-width: 87.5rem) ", "1vw", 23.0, 1.125),
    ("", "min(1vw, 1rem)", 20.0, 2.6),
)

#: The widest card is 304 CSS pixels across (4 columns of 1400), on screens of up to three
#: pixels to one of CSS. Wider files than that are for the viewer.
_CARD_PIXELS = 3 * 304

#: A host with an optional port, of characters that cannot end a source of a policy.
_HOST = re.compile(r"([A-Za-z0-9.\-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?")


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """One upload on the page.

    ``key`` is the object key as it came, ``verdict`` one of ``accepted``, ``duplicate``,
    ``rejected``, ``failed``, ``reason`` the code of a rejection or the tier of a duplicate.
    ``width`` and ``height`` in pixels (0 if not known), ``seconds`` of work. ``manifest`` is
    the image manifest of its canonical, None for what was not accepted. ``thumbnail`` holds
    an encoded picture of ``thumbnail_format`` (``jpeg``, ``webp``, ``avif``), which is put into
    the page where URLs work only signed, see :func:`_embedded`. ``batch`` is the batch of the
    upload and ``batch_url`` its page, where they are worth saying.
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
    thumbnail: bytes | None = None
    thumbnail_format: str = ""
    batch: str = ""
    batch_url: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """An upload's name and, if it has a card on this page, the card's number."""

    name: str
    number: int | None


@dataclass(frozen=True, slots=True)
class File:
    """A row of a card's table of files. ``url`` is empty unless it is http or https.

    ``mime`` is the media type of a file that the viewer may choose, else empty.
    """

    size: str
    format: str
    width: int
    height: int
    pixels: str
    weight: str
    url: str
    mime: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The files of one format that a browser chooses from, as the value of a ``srcset``."""

    mime: str
    srcset: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What a card shows. ``width`` and ``height`` are those of ``src``, in pixels.

    ``offers`` are the best format first; the last belongs to the ``img`` itself. There are none
    for a picture inside the page. ``thumbnail`` is the key of the file that
    :func:`~image_pipeline.delivery.gallery.portable_page` puts there instead, if there is one.
    """

    src: str
    width: int
    height: int
    offers: tuple[Offer, ...] = ()
    sizes: str = ""
    thumbnail: str = ""


@dataclass(frozen=True, slots=True)
class Weight:
    """What one format makes of an upload, or of all of them. ``share`` is 0 to 100."""

    label: str
    weight: str
    change: str
    share: float


@dataclass(frozen=True, slots=True)
class Card:
    """An accepted upload or a duplicate."""

    number: int
    item: GalleryItem
    name: str
    key: str
    message: str
    pixels: str
    weight: str
    picture: Picture | None
    weights: list[Weight]
    relation: str
    canonical: Place | None
    duplicates: list[Place]
    files: list[File]
    image_id: str
    batch_url: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row of the table of uploads that were not accepted."""

    verdict: str
    name: str
    key: str
    reason: str
    message: str
    pixels: str
    weight: str


def cards_of(items: Sequence[GalleryItem], shape: tuple[int, int]) -> list[Card]:
    """A card for every item, in their order; ``shape`` is width and height of the frames."""
    heads: dict[str, Place] = {}
    followers: dict[str, list[Place]] = {}
    for number, item in enumerate(items):
        if canonical := canonical_of(item):
            place = Place(_name(item), number)
            if item.verdict == "accepted":
                heads.setdefault(canonical, place)
            else:
                followers.setdefault(canonical, []).append(place)
    return [
        _card(number, item, shape, heads, followers.get(canonical_of(item) or "", []))
        for number, item in enumerate(items)
    ]


def frame_shape(items: Iterable[GalleryItem]) -> tuple[int, int]:
    """Width and height of the first published thumbnail: the shape of all frames of a page."""
    for item in items:
        if variants := variants_of(item):
            thumbnails = [one for one in variants if one["role"] == "thumbnail"]
            chosen = (thumbnails or variants)[0]
            return (chosen["width"], chosen["height"])
    return (1, 1)


def card_styles(cards: Sequence[Card], shape: tuple[int, int]) -> str:
    """Placeholders, as rules of the one style sheet so that no style attribute is needed."""
    rules = [f":root{{--shape:{shape[0]}/{shape[1]}}}"]
    for card in cards:
        if card.item.manifest is None:
            continue
        focus = card.item.manifest["focal_point"]
        at = f"{100 * focus['x']:.3g}% {100 * focus['y']:.3g}%"
        declarations = [placeholder_css(card.item.manifest), f"--at:{at}"]
        rules.append(f".p{card.number}{{{';'.join(filter(None, declarations))}}}")
    return "\n".join([*rules, ""])


def refusal_of(item: GalleryItem) -> Refusal:
    """The row of an upload that was not accepted."""
    return Refusal(
        verdict=item.verdict,
        name=_name(item),
        key=wording.visible(item.key),
        reason=wording.visible(item.reason),
        message=wording.visible(item.message),
        pixels=wording.pixels(item.width, item.height),
        weight=wording.weight(item.bytes_in),
    )


def canonical_of(item: GalleryItem) -> str | None:
    """The id of the image that stands for an upload."""
    return None if item.manifest is None else str(item.manifest["canonical"])


def variants_of(item: GalleryItem) -> list[Mapping[str, Any]]:
    """What is published for an upload."""
    return list(item.manifest["variants"]) if item.manifest else []


def offered(item: GalleryItem) -> Sequence[Mapping[str, Any]]:
    """The files that a browser chooses from."""
    variants = variants_of(item)
    formats = item.manifest["srcset"] if item.manifest else {}
    responsive = [one for one in variants if one["role"] == "responsive"]
    return [one for one in responsive if one["format"] in formats] or responsive or variants


def weighed(label: str, before: int, after: int) -> Weight:
    """``after`` bytes beside the ``before`` that were uploaded."""
    share = min(100.0, 100 * after / before) if before else 0.0
    text = wording.weight(after)
    return Weight(label, text, wording.change(before, after), round(share, 2))


def web_address(url: str) -> str:
    """``url`` if it leads to a web server, else nothing: never a script or a local file."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) else ""


def _name(item: GalleryItem) -> str:
    """The last part of the key, or all of it if the key ends with a slash."""
    return wording.visible(item.key.rsplit("/", 1)[-1] or item.key)


def _card(
    number: int,
    item: GalleryItem,
    shape: tuple[int, int],
    heads: Mapping[str, Place],
    followers: list[Place],
) -> Card:
    canonical = canonical_of(item) or ""
    duplicate = item.verdict == "duplicate"
    earlier = Place("one uploaded earlier", None)
    return Card(
        number=number,
        item=item,
        name=_name(item),
        key=wording.visible(item.key),
        message=wording.visible(item.message),
        pixels=wording.pixels(item.width, item.height),
        weight=wording.weight(item.bytes_in),
        picture=_embedded(item) or _published(item, shape),
        weights=[] if duplicate else _weights(item),
        relation=TIERS.get(item.reason, "Duplicate of") if duplicate else "",
        canonical=heads.get(canonical, earlier) if duplicate else None,
        duplicates=[] if duplicate else followers,
        files=_files(item),
        image_id=canonical,
        batch_url=web_address(item.batch_url),
    )


def data_uri(data: bytes, format_name: str) -> str:
    """A picture as an address that holds all of it."""
    return f"data:image/{format_name};base64,{b64encode(data).decode()}"


def _embedded(item: GalleryItem) -> Picture | None:
    """The thumbnail itself, for pictures of private sources.

    Their URLs stand in the page unsigned: who may read the page could see nothing else. Pages
    of public sources would only grow by it, and load what nobody scrolls to.
    """
    if item.manifest is None or item.manifest.get("access") != "private":
        return None
    if not item.thumbnail or item.thumbnail_format not in FORMATS:
        return None
    width, height = frame_shape([item])
    return Picture(data_uri(item.thumbnail, item.thumbnail_format), width, height)


def _published(item: GalleryItem, shape: tuple[int, int]) -> Picture | None:
    """A choice of responsive files, cut to the frame by the browser; else the thumbnail."""
    thumbnails = [one for one in variants_of(item) if one["role"] == "thumbnail"]
    files = [one for one in offered(item) if web_address(one["url"])]
    if not any(one["role"] == "responsive" for one in files):
        files = [one for one in thumbnails if web_address(one["url"])]
    if not files:
        return None
    # A picture wider than the frame is as high as it, and wider than what is seen of it.
    factor = max(1.0, files[0]["width"] * shape[1] / (files[0]["height"] * shape[0]))
    most = _CARD_PIXELS * factor
    enough = min((one["width"] for one in files if one["width"] >= most), default=most)
    by_format: dict[str, dict[int, Mapping[str, Any]]] = {}
    for one in files:
        if one["width"] <= enough:
            by_format.setdefault(one["format"], {}).setdefault(one["width"], one)
    formats = sorted(by_format, key=FORMATS.index)
    smallest = by_format[formats[-1]][min(by_format[formats[-1]])]
    return Picture(
        src=smallest["url"],
        width=smallest["width"],
        height=smallest["height"],
        offers=tuple(
            Offer(
                f"image/{name}",
                ", ".join(f"{one['url']} {width}w" for width, one in by_format[name].items()),
            )
            for name in formats
        ),
        sizes=_sizes(factor),
        thumbnail=_best_known(thumbnails),
    )


def _best_known(thumbnails: Iterable[Mapping[str, Any]]) -> str:
    """The key of the WebP thumbnail if there is one: nearly every browser reads it."""
    keys = {one["format"]: str(one["key"]) for one in thumbnails}
    return next((keys[name] for name in ("webp", "jpeg", "avif") if name in keys), "")


def _sizes(factor: float) -> str:
    """How wide a picture is drawn that is ``factor`` times as wide as its card."""
    return ", ".join(
        f"{window}calc({share * factor:.4g} * {unit} - {less * factor:.4g}rem)"
        for window, unit, share, less in _COLUMNS
    )


def _weights(item: GalleryItem) -> list[Weight]:
    """Per format the largest published file, against the upload."""
    largest: dict[str, Mapping[str, Any]] = {}
    for variant in variants_of(item):
        name = variant["format"]
        if variant["role"] == "responsive" and (
            name not in largest or variant["width"] > largest[name]["width"]
        ):
            largest[name] = variant
    return [
        weighed(FORMAT_NAMES[name], item.bytes_in, largest[name]["bytes"])
        for name in FORMATS
        if name in largest
    ]


def _files(item: GalleryItem) -> list[File]:
    choice = {one["url"] for one in offered(item) if one["role"] == "responsive"}
    return [
        File(
            size=variant["size"],
            format=FORMAT_NAMES[variant["format"]],
            width=variant["width"],
            height=variant["height"],
            pixels=wording.pixels(variant["width"], variant["height"]),
            weight=wording.weight(variant["bytes"]),
            url=web_address(variant["url"]),
            mime=f"image/{variant['format']}" if variant["url"] in choice else "",
        )
        for variant in variants_of(item)
    ]
