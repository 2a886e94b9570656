"""Manifests: JSON that names what was published, with all that a ``<picture>`` needs.

Everything here is a function of its arguments: the same images give the same bytes, so a
manifest is only written anew when something in it has changed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from html import escape
from typing import Any, Self, TypedDict

SCHEMA_VERSION = 1

#: Formats in the order a browser should be offered them: it takes the first it can decode.
#: Each is the second half of its media type.
FORMATS = ("avif", "webp", "jpeg")

#: Pixels across that a phone asks for: 360 to 430 CSS pixels at a density of 2.5 to 3 make
#: 900 to 1290.
PHONE_WIDTH = 1080

#: Widest file for clients that read neither ``<picture>`` nor ``srcset`` (feed readers,
#: mail, link previews). Such a client never shows more than a column of text is wide.
FALLBACK_WIDTH = 1280

VERDICTS = ("accepted", "duplicate", "rejected", "failed")

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_DATA_URI = re.compile(r"data:image/[a-z]+;base64,[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True, slots=True)
class Variant:
    """One published file. Sizes in pixels and bytes; ``sha256`` in hex; ``key`` in the bucket.

    ``role`` is ``responsive`` or ``thumbnail``, ``size`` the recipe's name for the step, and
    ``format`` one of :data:`FORMATS`.
    """

    role: str
    size: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    key: str


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """A canonical image with everything published for it.

    ``id`` is the SHA-256 of the original's bytes in hex, ``width`` and ``height`` its pixels
    after EXIF orientation. ``dominant_color`` is ``#rrggbb``, ``placeholder`` a base64 data
    URI. ``uploads`` are the keys of the uploads that it stands for, its own and its
    duplicates'; ``aliases`` the image ids of its duplicates. ``focal_point`` is what catches
    the eye, as shares 0-1 of width and height; ``thumbhash`` base64, None where the image was
    inspected before there were any. ``access`` is ``public``, or ``private`` where URLs work
    only signed; what is stored names them unsigned.
    """

    id: str
    source: str
    width: int
    height: int
    has_alpha: bool
    animated: bool
    dominant_color: str
    placeholder: str
    variants: tuple[Variant, ...]
    uploads: tuple[str, ...]
    aliases: tuple[str, ...]
    focal_point: tuple[float, float] = (0.5, 0.5)
    thumbhash: str | None = None
    access: str = "public"

    @classmethod
    def from_rows(
        cls,
        source: str,
        access: str,
        row: Mapping[str, Any],
        variants: Iterable[Mapping[str, Any]],
        uploads: Iterable[str],
        aliases: Iterable[str] = (),
    ) -> Self:
        """The image of a row of the catalog and rows of its files."""
        fields = [field.name for field in dataclass_fields(Variant)]
        return cls(
            id=row["id"],
            source=source,
            width=row["width"],
            height=row["height"],
            has_alpha=row["has_alpha"],
            animated=row["animated"],
            dominant_color=row["dominant_color"],
            placeholder=row["placeholder"],
            variants=tuple(Variant(*(one[name] for name in fields)) for one in variants),
            uploads=tuple(sorted(set(uploads))),
            aliases=tuple(sorted(set(aliases))),
            focal_point=(row["focal_x"], row["focal_y"]),
            thumbhash=row["thumbhash"],
            access=access,
        )


@dataclass(frozen=True, slots=True)
class BatchUpload:
    """What became of one upload of a batch. ``bytes`` is the size of the uploaded object.

    ``reason`` is the code of a rejection or failure, or the tier of a duplicate.
    """

    key: str
    etag: str
    bytes: int
    verdict: str
    reason: str | None = None
    message: str | None = None
    image_id: str | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """Images that all had the files ``old``, and have ``new`` since; both object keys.

    ``old`` is empty for images that were not published before.
    """

    images: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]


class WarmEntry(TypedDict):
    """A URL worth having in a cache. ``rank`` 0 comes first; many entries share a rank.

    ``key`` is the object behind it, ``image`` the id of the canonical image it shows.
    """

    url: str
    key: str
    image: str
    bytes: int
    rank: int


def image_manifest(
    image: PublishedImage, url_of: Callable[[str], str], sizes: str = "100vw"
) -> dict[str, Any]:
    """The manifest of a canonical image, ready for :func:`to_json`.

    ``srcset`` has one entry per format that has the widest responsive file, whose ``w``
    descriptors are the real widths of the files, as the HTML standard asks for. ``src`` is None
    and ``html`` empty if nothing is published for the image.
    """
    variants = sorted(image.variants, key=_place)
    fallback = _fallback(variants)
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "id": image.id,
        "source": image.source,
        "access": image.access,
        "canonical": image.id,
        "aliases": sorted(image.aliases),
        "uploads": sorted(image.uploads),
        "width": image.width,
        "height": image.height,
        "aspect_ratio": round(image.width / image.height, 4),
        "has_alpha": image.has_alpha,
        "animated": image.animated,
        "dominant_color": image.dominant_color,
        "placeholder": image.placeholder,
        "thumbhash": image.thumbhash,
        "focal_point": {"x": image.focal_point[0], "y": image.focal_point[1]},
        "variants": [_entry(variant, url_of) for variant in variants],
        "srcset": _srcsets(variants, url_of),
        "sizes": sizes,
        "src": url_of(fallback.key) if fallback else None,
    }
    return {**manifest, "html": picture_html(manifest)}


def alias_manifest(manifest: Mapping[str, Any], alias_id: str) -> dict[str, Any]:
    """The manifest of a duplicate: its own id, everything else that of its canonical.

    Raises ``ValueError`` if the canonical does not list ``alias_id`` among its aliases.
    """
    if alias_id not in manifest["aliases"]:
        raise ValueError(f"{alias_id} is no alias of {manifest['canonical']}")
    return {**manifest, "id": alias_id}


def mockup_manifest(
    image: PublishedImage,
    template: str,
    recipe: str,
    url_of: Callable[[str], str],
    sizes: str = "100vw",
) -> dict[str, Any]:
    """The manifest of a picture on a template: that of an image, and which template it is.

    ``image`` has the id of the design; all else of it is what the composed picture looks like.
    ``recipe`` is the fingerprint of the template and the encoders.
    """
    return {**image_manifest(image, url_of, sizes), "template": template, "recipe": recipe}


def batch_manifest(
    batch: str,
    source: str,
    images: Sequence[PublishedImage],
    uploads: Sequence[BatchUpload],
    manifest_key: Callable[[str], str],
) -> dict[str, Any]:
    """What a batch brought, upload by upload, ready for :func:`to_json`.

    ``images`` are the canonicals that the batch's uploads are, or are duplicates of; an
    upload whose image is none of them has no manifest. ``manifest_key`` gives the object key
    of an image's manifest from its id.
    """
    canonical_of = {image.id: image.id for image in images}
    for image in images:
        canonical_of.update(dict.fromkeys(image.aliases, image.id))
    verdicts = Counter(upload.verdict for upload in uploads)
    variants = [variant for image in images for variant in image.variants]
    return {
        "schema_version": SCHEMA_VERSION,
        "batch": batch,
        "source": source,
        "uploads": [
            _upload(upload, canonical_of, manifest_key)
            for upload in sorted(uploads, key=lambda upload: (upload.key, upload.etag))
        ],
        "images": [
            {
                "id": image.id,
                "manifest": manifest_key(image.id),
                "variants": len(image.variants),
                "bytes": sum(variant.bytes for variant in image.variants),
            }
            for image in sorted(images, key=lambda image: image.id)
        ],
        "totals": {
            "uploads": len(uploads),
            **{verdict: verdicts[verdict] for verdict in VERDICTS},
            "bytes_in": sum(upload.bytes for upload in uploads),
            "images": len(images),
            "variants": len(variants),
            "bytes_out": sum(variant.bytes for variant in variants),
        },
    }


def batch_delta(
    batch: str,
    source: str,
    replacements: Iterable[Replacement],
    before: Collection[str],
    after: Collection[str],
    url_of: Callable[[str], str],
) -> dict[str, Any]:
    """What a batch changed of the URLs that the manifests of its source name.

    ``replacements`` cover every image whose files are others than before the batch. ``before``
    are keys that were named then by images not among them, ``after`` keys that are named now by
    whatever image. So ``added`` and ``removed`` are URLs that were new, or are named by no
    manifest of the source any more.
    """
    replacements = sorted(replacements, key=lambda one: one.images)
    old = {key for one in replacements for key in one.old}
    new = {key for one in replacements for key in one.new}
    return {
        "schema_version": SCHEMA_VERSION,
        "batch": batch,
        "source": source,
        "added": sorted(map(url_of, new - old - set(before))),
        "replaced": [
            {
                "images": sorted(one.images),
                "old": sorted(map(url_of, one.old)),
                "new": sorted(map(url_of, one.new)),
            }
            for one in replacements
            if one.old
        ],
        "removed": sorted(map(url_of, old - new - set(after))),
    }


def warm_list(images: Iterable[PublishedImage], url_of: Callable[[str], str]) -> list[WarmEntry]:
    """The URLs that a cache should hold, most wanted first, each once.

    Thumbnails come before responsive variants: lists and search results ask for many of them
    at a time. Then come formats, best first, and within one format the width nearest to what
    a phone asks for, then the next nearest. All images share the ranks, so a warmer that
    stops early has done the same for each of them.
    """
    found: dict[str, tuple[tuple[int, int, int], Variant, str]] = {}
    for image in images:
        steps: Counter[tuple[int, int]] = Counter()
        for variant in sorted(image.variants, key=_wanted):
            kind = (int(variant.role != "thumbnail"), _preference(variant.format))
            place = (*kind, steps[kind])
            found.setdefault(url_of(variant.key), (place, variant, image.id))
            steps[kind] += 1
    places = sorted({place for place, _, _ in found.values()})
    ranks = {place: rank for rank, place in enumerate(places)}
    entries = [
        WarmEntry(url=url, key=variant.key, image=image, bytes=variant.bytes, rank=ranks[place])
        for url, (place, variant, image) in found.items()
    ]
    return sorted(entries, key=lambda entry: (entry["rank"], entry["url"]))


def picture_html(manifest: Mapping[str, Any], alt: str = "") -> str:
    """A ``<picture>`` for an image manifest, every value escaped; empty without a ``src``.

    The placeholder is the background until the picture has loaded, except behind a picture
    with transparency, where it would stay visible. ``width`` and ``height`` are those of the
    fallback file: they reserve the space, and a page's ``img {max-width: 100%; height:
    auto}`` makes it fit.
    """
    fallback = next((one for one in manifest["variants"] if one["url"] == manifest["src"]), None)
    if fallback is None:
        return ""
    srcset, sizes = manifest["srcset"], manifest["sizes"]
    attributes = {"src": manifest["src"]}
    if fallback["format"] in srcset:
        attributes |= {"srcset": srcset[fallback["format"]], "sizes": sizes}
    attributes |= {"width": fallback["width"], "height": fallback["height"], "alt": alt}
    attributes |= {"loading": "lazy", "decoding": "async"}
    if background := placeholder_css(manifest):
        attributes["style"] = background
    sources = [
        _tag("source", {"type": f"image/{name}", "srcset": srcset[name], "sizes": sizes})
        for name in sorted(srcset, key=_preference)
        if name != fallback["format"]
    ]
    return f"<picture>{''.join(sources)}{_tag('img', attributes)}</picture>"


def placeholder_css(manifest: Mapping[str, Any]) -> str:
    """CSS for the style attribute; only values that cannot end the declaration get into it."""
    if manifest["has_alpha"]:
        return ""
    color, placeholder = manifest["dominant_color"], manifest["placeholder"]
    parts = [color] if _COLOR.fullmatch(color) else []
    if _DATA_URI.fullmatch(placeholder):
        parts.append(f"url({placeholder}) center/cover no-repeat")
    return f"background:{' '.join(parts)}" if parts else ""


def to_json(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Compact UTF-8 JSON with sorted names: the same document gives the same bytes."""
    text = json.dumps(
        document,
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=True,
        separators=(",", ":"),
    )
    return text.encode("utf-8")


def phone_distance(width: int) -> float:
    """How far a file ``width`` pixels wide is from what a phone asks for; 0 is exact.

    Browsers weigh the candidates of a ``srcset`` by ratio, not by difference.
    """
    return abs(math.log(width / PHONE_WIDTH))


def _preference(format_name: str) -> int:
    return FORMATS.index(format_name)


def _place(variant: Variant) -> tuple[str, int, int, int, str]:
    order = _preference(variant.format)
    return (variant.role, order, variant.width, variant.bytes, variant.key)


def _wanted(variant: Variant) -> tuple[float, str]:
    return (phone_distance(variant.width), variant.key)


def _entry(variant: Variant, url_of: Callable[[str], str]) -> dict[str, Any]:
    return {
        "role": variant.role,
        "size": variant.size,
        "format": variant.format,
        "mime": f"image/{variant.format}",
        "width": variant.width,
        "height": variant.height,
        "bytes": variant.bytes,
        "sha256": variant.sha256,
        "key": variant.key,
        "url": url_of(variant.key),
    }


def _srcsets(variants: Sequence[Variant], url_of: Callable[[str], str]) -> dict[str, str]:
    """One srcset per format. Of files of one width the smallest stays: they look alike.

    A format that lacks a width is left out, but for the oldest: its file was no smaller than the
    next format's, and a browser that prefers the format would load a wider file of it, or
    enlarge a narrower one.
    """
    by_format: dict[str, dict[int, str]] = {}
    for variant in variants:
        if variant.role == "responsive":
            widths = by_format.setdefault(variant.format, {})
            widths.setdefault(variant.width, url_of(variant.key))
    every = {width for widths in by_format.values() for width in widths}
    oldest = max(by_format, key=_preference, default="")
    return {
        name: ", ".join(f"{url} {width}w" for width, url in widths.items())
        for name, widths in by_format.items()
        if name == oldest or widths.keys() == every
    }


def _fallback(variants: Sequence[Variant]) -> Variant | None:
    """The file for clients that know only ``src``: of the oldest format, of moderate width."""
    choice = [one for one in variants if one.role == "responsive"] or list(variants)
    oldest = max((_preference(one.format) for one in choice), default=0)
    choice = [one for one in choice if _preference(one.format) == oldest]
    fitting = [one for one in choice if one.width <= FALLBACK_WIDTH]
    if fitting:
        return max(fitting, key=lambda one: (one.width, -one.bytes, one.key))
    return min(choice, key=lambda one: (one.width, one.bytes, one.key), default=None)


def _upload(
    upload: BatchUpload,
    canonical_of: Mapping[str, str],
    manifest_key: Callable[[str], str],
) -> dict[str, Any]:
    image = upload.image_id
    canonical = canonical_of.get(image) if image else None
    return {
        "key": upload.key,
        "etag": upload.etag,
        "bytes": upload.bytes,
        "verdict": upload.verdict,
        "reason": upload.reason,
        "message": upload.message,
        "image": image,
        "canonical": canonical,
        "manifest": manifest_key(image) if image and canonical else None,
    }


def _tag(name: str, attributes: Mapping[str, object]) -> str:
    written = " ".join(f'{key}="{escape(str(value))}"' for key, value in attributes.items())
    return f"<{name} {written}>"
