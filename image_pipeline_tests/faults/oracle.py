"""What must hold of a project, read from the bucket, the catalog and the machine themselves.

Only :func:`image_pipeline.stages.rendering.expected_keys` is asked of the product, beside an
own calculation; everything else comes from plain boto3, sqlite3, Pillow and psutil.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from image_pipeline.stages.rendering import expected_keys

from .processes import wait_until
from .project import PREFIX, RECIPE, Project

FINAL = ("accepted", "duplicate", "rejected")

MEDIA_TYPES = {"avif": "image/avif", "webp": "image/webp", "jpg": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a browser gets it."""

    data: bytes
    media_type: str
    cache: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class Oracle:
    """One look at a project. Listings and rows are read once, when they are first needed."""

    def __init__(self, project: Project) -> None:
        self.project = project

    @cached_property
    def variants(self) -> dict[str, Stored]:
        """Everything under ``variants/``, by key."""
        return dict(self._objects("variants/"))

    @cached_property
    def originals(self) -> dict[str, Stored]:
        return dict(self._objects(PREFIX))

    @cached_property
    def variant_rows(self) -> dict[str, dict[str, Any]]:
        return {row["key"]: row for row in self.project.rows("SELECT * FROM variants")}

    @cached_property
    def upload_rows(self) -> list[dict[str, Any]]:
        return self.project.rows("SELECT * FROM uploads ORDER BY id")

    @cached_property
    def members(self) -> dict[str, str]:
        """The canonical of each image."""
        rows = self.project.rows("SELECT image_id, canonical_id FROM members")
        return {row["image_id"]: row["canonical_id"] for row in rows}

    @cached_property
    def image_manifests(self) -> dict[str, dict[str, Any]]:
        """Manifests of images by the id in their key."""
        return {
            key.rpartition("/")[2].removesuffix(".json"): json.loads(stored.data)
            for key, stored in self._objects("manifests/photos/")
        }

    @cached_property
    def index(self) -> list[dict[str, Any]]:
        """The entries of every page that the index of the source names."""
        stored = dict(self._objects("indexes/photos/"))
        pointer = stored.get("indexes/photos/index.json")
        entries = []
        for page in json.loads(pointer.data)["pages"] if pointer else ():
            assert stored[page["key"]].sha256 == page["sha256"], page
            entries += json.loads(stored[page["key"]].data)["images"]
        return entries

    def check_what_is_visible(self) -> None:
        """At any moment: what a visitor can find is whole, and is what it is said to be."""
        for key, stored in self.variants.items():
            _check_picture(key, stored)
        for key, row in self.variant_rows.items():
            if row["dropped"]:
                assert key not in self.variants, f"dropped, and yet there: {key}"
                continue
            assert key in self.variants, f"a row without its object: {key}"
            self._check_row(row, self.variants[key])
        for manifest in self.image_manifests.values():
            for entry in manifest["variants"]:
                stored = self.variants[entry["key"]]
                assert (entry["sha256"], entry["bytes"]) == (stored.sha256, len(stored.data))
        for entry in self.index:
            assert entry["id"] in self.image_manifests, "listed without a manifest"

    def check_all(self, expected: Mapping[str, tuple[str, ...]]) -> None:
        """After recovery. ``expected`` has the right verdicts of every key under the source."""
        self.check_what_is_visible()
        self.check_uploads(expected)
        self.check_variants()
        self.check_manifests()
        self.check_index()
        self.check_batches()
        check_nothing_is_left(self.project)

    def check_uploads(self, expected: Mapping[str, tuple[str, ...]]) -> None:
        """Every object under the source has one row, in one batch, with a right verdict."""
        keys = Counter(row["key"] for row in self.upload_rows)
        assert set(self.originals) == set(expected)
        assert keys == dict.fromkeys(expected, 1)
        for row in self.upload_rows:
            assert row["verdict"] in FINAL, row
            assert row["verdict"] in expected[row["key"]], row
            assert row["batch_id"] is not None, row
            if row["verdict"] != "rejected":
                assert row["image_id"] == self.originals[row["key"]].sha256
                is_canonical = self.members[row["image_id"]] == row["image_id"]
                assert is_canonical or row["verdict"] == "duplicate", row
        accepted = Counter(
            row["image_id"] for row in self.upload_rows if row["verdict"] == "accepted"
        )
        assert set(accepted) == self.canonicals
        assert set(accepted.values()) == {1}

    def check_variants(self) -> None:
        """Each canonical has exactly the files of the recipe, but for those it was not worth.

        So has who was a canonical before a better picture came; nothing else is published.
        """
        dropped = {key for key, row in self.variant_rows.items() if row["dropped"]}
        assert set(self.variants) == set(self.variant_rows) - dropped
        found: dict[str, dict[tuple[str, int, int, str], str]] = {}
        for key in self.variant_rows:
            _, image, name = key.split("/")
            size, _, rest = name.partition("-")
            pixels, fingerprint, extension = rest.split(".")
            width, height = map(int, pixels.split("x"))
            names = found.setdefault(image, {})
            assert (size, width, height, extension) not in names, f"two names for one file: {key}"
            names[size, width, height, extension] = fingerprint
        assert self.canonicals <= set(found) <= set(self.members)
        recipe = self.project.settings.recipes["tiny"]
        by_image = {row["image_id"]: row["key"] for row in self.upload_rows if row["image_id"]}
        for image, names in found.items():
            original = Image.open(io.BytesIO(self.originals[by_image[image]].data))
            assert set(names) == set(planned(*original.size))
            assert len(set(names.values())) == 1, "files of one image with several fingerprints"
            keys = {key for key in self.variant_rows if f"/{image}/" in key}
            assert keys == set(expected_keys(image, *original.size, recipe))

    def check_manifests(self) -> None:
        """Every published image has its manifest, which names all its files and no other."""
        published = {row["image_id"] for row in self._published}
        assert set(self.image_manifests) == published
        for image, manifest in self.image_manifests.items():
            canonical = self.members[image]
            assert (manifest["id"], manifest["canonical"]) == (image, canonical)
            named = {entry["key"] for entry in manifest["variants"]}
            assert named == {key for key in self.variants if f"/{canonical}/" in key}
            assert set(manifest["uploads"]) == {
                row["key"] for row in self._published if self.members[row["image_id"]] == canonical
            }

    def check_index(self) -> None:
        """The index lists every published image once, as its manifest says it is."""
        listed = {entry["id"]: entry["canonical"] for entry in self.index}
        assert len(self.index) == len(listed)
        assert listed == {
            image: manifest["canonical"] for image, manifest in self.image_manifests.items()
        }

    def check_batches(self) -> None:
        """Every batch is done, and every upload is named by exactly one batch."""
        batches = self.project.rows("SELECT * FROM batches")
        assert {row["state"] for row in batches} == {"done"}, batches
        batch_of = {(row["key"], row["etag"]): row["batch_id"] for row in self.upload_rows}
        listed: dict[tuple[str, str], str] = {}
        for key, stored in self._objects("batches/"):
            for upload in json.loads(stored.data)["uploads"]:
                assert (upload["key"], upload["etag"]) not in listed, upload
                listed[upload["key"], upload["etag"]] = key[len("batches/") : -len(".json")]
        assert listed == batch_of
        manifests = dict(self._objects("manifests/batches/"))
        assert len(manifests) == len(batches)
        self._check_deltas(len(batches))
        told = [one for stored in manifests.values() for one in json.loads(stored.data)["uploads"]]
        # As it was then: a later batch may have brought a better picture of the same.
        shown = {"accepted": "published", "duplicate": "published"}
        verdicts = {
            (row["key"], row["etag"]): shown.get(row["verdict"], row["verdict"])
            for row in self.upload_rows
        }
        assert verdicts == {
            (one["key"], one["etag"]): shown.get(one["verdict"], one["verdict"]) for one in told
        }
        for asset in ("raw_uploads", "deduped_images", "responsive_variants", "thumbnails"):
            assert len(dict(self._objects(f"tables/{asset}/"))) == len(batches)

    def _check_deltas(self, batches: int) -> None:
        """What was added by some batch and not removed by another is what is named now."""
        deltas = [json.loads(stored.data) for _, stored in self._objects("manifests/deltas/")]
        assert len(deltas) == batches
        added = {url for delta in deltas for url in delta["added"]}
        removed = {url for delta in deltas for url in delta["removed"]}
        named = {
            entry["url"]
            for manifest in self.image_manifests.values()
            for entry in manifest["variants"]
        }
        assert added - removed == named

    @property
    def canonicals(self) -> set[str]:
        return {self.members[row["image_id"]] for row in self._published}

    @property
    def _published(self) -> list[dict[str, Any]]:
        return [row for row in self.upload_rows if row["verdict"] in ("accepted", "duplicate")]

    def _check_row(self, row: Mapping[str, Any], stored: Stored) -> None:
        assert (row["sha256"], row["bytes"]) == (stored.sha256, len(stored.data)), row["key"]

    def _objects(self, prefix: str) -> Iterator[tuple[str, Stored]]:
        client, bucket = self.project.bucket.client, self.project.bucket.name
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                answer = client.get_object(Bucket=bucket, Key=entry["Key"])
                yield (
                    entry["Key"],
                    Stored(
                        answer["Body"].read(), answer["ContentType"], answer.get("CacheControl", "")
                    ),
                )


def planned(width: int, height: int) -> Iterator[tuple[str, int, int, str]]:
    """Size name, pixels and extension of every file for a picture larger than all sizes."""
    for name, size in RECIPE["sizes"].items():
        pixels = size["width"], size["height"]
        scale = min(pixels[0] / width, pixels[1] / height)
        assert scale < 1
        if size.get("fit") != "cover":
            pixels = round(width * scale), round(height * scale)
        for extension in MEDIA_TYPES:
            yield (name, *pixels, extension)


def _check_picture(key: str, stored: Stored) -> None:
    """A picture that decodes to its last row, has the pixels of its name, and is served right."""
    assert stored.media_type == MEDIA_TYPES[key.rpartition(".")[2]]
    assert stored.cache == "public, max-age=31536000, immutable"
    with Image.open(io.BytesIO(stored.data)) as picture:
        picture.load()
        width, height = picture.size
    assert f"-{width}x{height}." in key


def check_nothing_is_left(project: Project) -> None:
    """No process, no spooled original, no run that is said to go on."""
    # Workers whose parent was killed notice it by themselves, within a second or so.
    wait_until(lambda: not project.processes(), "the end of every process", 20)
    spool = project.settings.workers.spool
    assert not spool.exists() or list(spool.iterdir()) == []
    assert set(runs(project)) <= {"SUCCESS", "FAILURE", "CANCELED"}


def runs(project: Project) -> list[str]:
    """The states of all runs in the order they were made, as Dagster's own database has them."""
    with closing(sqlite3.connect(project.home / "history" / "runs.db")) as connection:
        return [row[0] for row in connection.execute("SELECT status FROM runs ORDER BY id")]
