"""Every kind of document is as its published schema says, and nothing else is."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from image_pipeline.delivery.index import Entry, index_page, source_index
from image_pipeline.delivery.manifest import (
    SCHEMA_VERSION,
    BatchUpload,
    PublishedImage,
    Replacement,
    Variant,
    alias_manifest,
    batch_delta,
    batch_manifest,
    image_manifest,
    mockup_manifest,
    to_json,
    warm_list,
)
from image_pipeline.store import layout

from .helpers import a_variant, an_image, on_cdn

DOCS = Path(__file__).parents[3] / "docs"
SCHEMAS = sorted((DOCS / "schemas").glob("*.schema.json"))

IMAGE, ALIAS, OTHER = "a1" * 32, "b2" * 32, "c3" * 32
BATCH = "photos-20260301-120000-abcdef"


def validator(kind: str) -> Draft202012Validator:
    schema = json.loads((DOCS / "schemas" / f"{kind}.schema.json").read_text())
    return Draft202012Validator(schema, format_checker=FormatChecker())


def variant(kind: str, width: int, role: str = "responsive") -> Variant:
    made = a_variant(kind, width, width * 2 // 3, 1000, role=role)
    extension = {"jpeg": "jpg"}.get(kind, kind)
    key = layout.variant_key(IMAGE, "small", width, width * 2 // 3, "0a1b2c3d4e5f", extension)
    return replace(made, sha256="5e" * 32, key=key)


def image(*variants: Variant, **changes: Any) -> PublishedImage:
    return an_image(*variants, **{"id": IMAGE, **changes})


FULL = image(
    *(variant(kind, width) for kind in ("avif", "webp", "jpeg") for width in (640, 1280)),
    variant("webp", 400, "thumbnail"),
    aliases=(ALIAS,),
    uploads=("uploads/photos/sea.jpg", 'uploads/photos/<b>"&,\u00e9\n.jpg'),
    thumbhash="3OcRJYB4d3h/iIeHeEh3eIhw+j3A",
)
#: The widest WebP and every AVIF but one came out too large and were dropped.
DROPPED = image(variant("avif", 640), variant("webp", 640), *(variant("jpeg", w) for w in (640, 9)))
EMPTY = image(access="private", aliases=(), uploads=())


def image_documents() -> Iterator[dict[str, Any]]:
    full = image_manifest(FULL, on_cdn)
    yield full
    yield alias_manifest(full, ALIAS)
    yield image_manifest(DROPPED, on_cdn, "(min-width: 60rem) 50vw, 100vw")
    yield image_manifest(replace(FULL, has_alpha=True, access="private"), on_cdn)
    yield image_manifest(replace(FULL, animated=True, focal_point=(0.0, 1.0)), on_cdn)
    yield image_manifest(EMPTY, on_cdn)


def mockup_documents() -> Iterator[dict[str, Any]]:
    full = replace(FULL, aliases=(), uploads=())
    yield mockup_manifest(full, "mug", "0a1b2c3d4e5f", on_cdn)
    private = replace(full, has_alpha=True, access="private", variants=DROPPED.variants)
    yield mockup_manifest(private, "poster_a2-wide", "0a1b2c3d4e5f", on_cdn, "50vw")


def batch_documents() -> Iterator[dict[str, Any]]:
    uploads = [
        BatchUpload("uploads/photos/sea.jpg", "e1", 5000, "accepted", image_id=IMAGE),
        BatchUpload("uploads/photos/sea.jpg", "e2", 5000, "duplicate", "picture", None, ALIAS),
        BatchUpload("uploads/photos/x.gif", "e3", 0, "rejected", "truncated", "It ends early."),
        BatchUpload(
            "uploads/photos/y.jpg", "e4", 9, "failed", "storage_error", "No answer.", OTHER
        ),
    ]
    yield batch_manifest(BATCH, "photos", [FULL], uploads, key_of)
    yield batch_manifest(BATCH, "photos", [], uploads, key_of)
    yield batch_manifest(BATCH, "photos", [], [], key_of)


def key_of(name: str) -> str:
    return layout.image_manifest_key("photos", name)


def deltas() -> Iterator[dict[str, Any]]:
    changes = [
        Replacement((IMAGE,), (), ("variants/a/1.jpg",)),
        Replacement((ALIAS, OTHER), ("variants/b/1.jpg",), ("variants/a/1.jpg",)),
    ]
    yield batch_delta(BATCH, "photos", changes, [], [], on_cdn)
    yield batch_delta(BATCH, "photos", [], [], [], on_cdn)


def warm_documents() -> Iterator[dict[str, Any]]:
    # As the stage writes it.
    for images in ([FULL, DROPPED], [EMPTY], []):
        urls = warm_list(images, on_cdn)
        yield {"schema_version": SCHEMA_VERSION, "batch": BATCH, "source": "photos", "urls": urls}


ENTRY = Entry(IMAGE, IMAGE, on_cdn("m.json"), 3000, 2000, "#336699", on_cdn("t.webp"), 2)
ENTRIES = [ENTRY, replace(ENTRY, id=ALIAS), replace(ENTRY, id=OTHER, thumbnail=None)]


def index_pages() -> Iterator[dict[str, Any]]:
    yield json.loads(index_page("photos", 0, ENTRIES)[1])
    yield json.loads(index_page("photos", 12, ENTRIES[:1])[1])


def indexes() -> Iterator[dict[str, Any]]:
    page, _ = index_page("photos", 0, ENTRIES)
    for pages in ({0: page, 1_234_567: page}, {}):
        yield source_index(
            "photos",
            pages,
            lambda number, one: layout.index_page_key("photos", number, one.name),
            on_cdn,
        )


DOCUMENTS = {
    "image-manifest": image_documents,
    "mockup-manifest": mockup_documents,
    "batch-manifest": batch_documents,
    "delta": deltas,
    "warm-list": warm_documents,
    "index-page": index_pages,
    "source-index": indexes,
}
CASES = [
    pytest.param(kind, document, id=f"{kind} {number}")
    for kind, documents in DOCUMENTS.items()
    for number, document in enumerate(documents(), 1)
]


def test_there_is_a_schema_for_every_kind() -> None:
    assert {path.name.removesuffix(".schema.json") for path in SCHEMAS} == set(DOCUMENTS)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_schema_is_one_and_strict(path: Path) -> None:
    schema = json.loads(path.read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    objects = [one for one in parts(schema) if "properties" in one and "type" in one]
    assert objects
    for one in objects:
        assert one["additionalProperties"] is False
        # Every field is always there: nobody has to tell "null" from "not there".
        assert set(one["required"]) == set(one["properties"])
    described = [one for one in objects for one in one["properties"].values()]
    undescribed = [one for one in described if "description" not in one]
    assert all(self_explaining(one) for one in undescribed), undescribed


def self_explaining(one: dict[str, Any]) -> bool:
    return "enum" in one or one.get("type") in ("string", "integer", "number")


def parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from parts(one)
    elif isinstance(value, list):
        for one in value:
            yield from parts(one)


@pytest.mark.parametrize(("kind", "document"), CASES)
def test_what_is_written_is_as_its_schema_says(kind: str, document: dict[str, Any]) -> None:
    validator(kind).validate(json.loads(to_json(document)))


@pytest.mark.parametrize(("kind", "document"), CASES)
def test_whatever_is_changed_in_a_document_is_noticed(kind: str, document: dict[str, Any]) -> None:
    check = validator(kind)
    mutants = list(mutated(json.loads(to_json(document))))
    assert len(mutants) > len(document) * 2
    for how, mutant in mutants:
        assert not check.is_valid(mutant), how


def mutated(document: Any) -> Iterator[tuple[str, Any]]:
    """The document without one of its fields, with one too many, or with one of another kind."""
    for path in paths(document):
        *parents, last = path
        if "srcset" not in parents and isinstance(last, str):
            yield f"without {path}", changed(document, path, lambda parent, at: parent.pop(at))
        yield f"other {path}", changed(document, path, lambda one, at: one.update({at: {"x": []}}))
        if isinstance(last, str):
            yield f"more {path}", changed(document, path, lambda one, at: one.update({"extra": 1}))


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every named field."""
    for name, one in value.items() if isinstance(value, dict) else ():
        yield (*before, name)
        yield from paths(one, (*before, name))
    for number, one in enumerate(value if isinstance(value, list) else ()):
        yield from paths(one, (*before, number))


def changed(document: Any, path: tuple[Any, ...], change: Any) -> Any:
    mutant = copy.deepcopy(document)
    *parents, last = path
    parent = mutant
    for name in parents:
        parent = parent[name]
    change(parent, last)
    return mutant


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("image-manifest", ("id",), "A1" * 32),
        ("image-manifest", ("access",), "secret"),
        ("image-manifest", ("aspect_ratio",), 0),
        ("image-manifest", ("dominant_color",), "red"),
        ("image-manifest", ("placeholder",), "data:text/html;base64,AA=="),
        ("image-manifest", ("focal_point", "x"), 1.5),
        ("image-manifest", ("variants", 0, "mime"), "image/webp"),
        ("image-manifest", ("variants", 0, "width"), 0),
        ("image-manifest", ("variants", 0, "key"), "uploads/photos/sea.jpg"),
        ("image-manifest", ("srcset", "avif"), "https://cdn.test/a b.avif 640w"),
        ("image-manifest", ("srcset", "avif"), "https://cdn.test/a.avif"),
        ("image-manifest", ("srcset", "gif"), "https://cdn.test/a.gif 640w"),
        ("image-manifest", ("html",), "<script></script>"),
        ("image-manifest", ("schema_version",), 2),
        ("mockup-manifest", ("template",), "../mug"),
        ("mockup-manifest", ("recipe",), "0a1b"),
        ("mockup-manifest", ("aliases",), [ALIAS]),
        ("batch-manifest", ("uploads", 0, "verdict"), "good"),
        ("batch-manifest", ("totals", "uploads"), -1),
        ("delta", ("replaced", 0, "old"), []),
        ("warm-list", ("urls", 0, "rank"), 0.5),
        ("index-page", ("images",), []),
        ("source-index", ("pages", 0, "key"), "indexes/photos/0.json"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_values_out_of_range_are_refused(kind: str, path: tuple[Any, ...], value: Any) -> None:
    document = json.loads(to_json(next(iter(DOCUMENTS[kind]()))))
    assert validator(kind).is_valid(document)
    mutant = changed(document, path, lambda parent, at: parent.__setitem__(at, value))
    assert not validator(kind).is_valid(mutant)


@pytest.mark.parametrize(
    ("number", "kind"), [(0, "image-manifest"), (1, "source-index"), (2, "index-page")]
)
def test_the_examples_of_the_documentation_are_as_their_schemas_say(number: int, kind: str) -> None:
    text = (DOCS / "manifests.md").read_text()
    block = re.findall(r"```json\n(.*?)```", text, re.DOTALL)[number]
    # What an example leaves out for brevity is put back.
    for short, whole in (
        (r'"([0-9a-f]{4})\.\.\."', r'"\g<1>' + "0" * 60 + '"'),
        (r"variants/5f1c\.\.\.", f"variants/{IMAGE}"),
        (r"base64,\.\.\.", "base64,AA=="),
        (r"https://\.\.\.", "https://cdn.test/x"),
        (r'"webp": "\.\.\.", "jpeg": "\.\.\."', '"webp": "https://x.test 1w"'),
    ):
        block = re.sub(short, whole, block)
    validator(kind).validate(json.loads(block))
