"""What people say of groups: this is another picture; no, it was the same after all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import near as catalog_near
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.images import Member
from image_pipeline.settings import Settings
from image_pipeline.stages.regrouping import judge_again, regroup


class SeparationError(Exception):
    """It cannot be done; the message says why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Separation:
    """What was done: which image is kept apart from which others, or together with them again.

    ``batch`` renders and publishes what follows; ``regrouped`` are the images whose canonical
    or tier has changed.
    """

    source: str
    image: str
    others: list[str]
    batch: str
    regrouped: list[str]


def split(
    catalog: Catalog, settings: Settings, source: str, image: str, now: datetime
) -> Separation:
    """Take an image out of its group for ever: pairs with all who are in it now are recorded.

    An image that stands alone is kept apart from what was reported as near to it.
    """
    with catalog.write() as connection:
        catalog_groups.hold_groups(connection, source)
        member = _member(connection, source, image)
        group = catalog_groups.members_under(connection, source, [member.canonical_id])
        others = [row.image_id for row in group if row.image_id != image]
        if not others:
            pairs = catalog_near.near_of(connection, source, [image])
            others = sorted({one for p in pairs for one in (p.image_id, p.canonical_id)} - {image})
        if not others:
            raise SeparationError(
                f"image {image} stands alone in source {source!r}: no other image shares its"
                " variants, and none was found near. Uploads of the same bytes are one image"
                " and cannot be told apart"
            )
        catalog_groups.separate(connection, source, image, others, now)
        return _follow(connection, settings, member, others, now)


def rejoin(
    catalog: Catalog, settings: Settings, source: str, image: str, now: datetime
) -> Separation:
    """Take back everything that was said of an image: it is grouped by the evidence again."""
    with catalog.write() as connection:
        catalog_groups.hold_groups(connection, source)
        member = _member(connection, source, image)
        others = catalog_groups.unite(connection, source, image)
        if not others:
            raise SeparationError(
                f"image {image} was never split from another one in source {source!r}"
            )
        return _follow(connection, settings, member, others, now)


def _member(connection: sa.Connection, source: str, image: str) -> Member:
    member = catalog_images.members_of(connection, source, [image]).get(image)
    if member is None:
        raise SeparationError(
            f"image {image} is in no group of source {source!r}: it was not accepted there, or"
            " its batch has not come so far; 'image-pipeline status' shows what is under way"
        )
    return member


def _follow(
    connection: sa.Connection,
    settings: Settings,
    member: Member,
    others: Iterable[str],
    now: datetime,
) -> Separation:
    """Group anew at once, and let the batch of the image publish what comes of it."""
    source, image, others = member.source, member.image_id, list(others)
    policy = settings.sources[source].duplicates
    uploads = catalog_groups.uploads_of(connection, source, [image])
    batch = next(row["batch_id"] for row in uploads if row["id"] == member.upload_id)
    present = catalog_images.members_of(connection, source, [image, *others])
    changed = regroup(connection, source, policy, batch, present, {})
    judge_again(connection, source, policy, changed, now)
    # Also where no group changes: what is near is looked for again.
    current = catalog_images.members_of(connection, source, [image])[image]
    catalog_groups.change_members(connection, [replace(current, batch_id=batch)])
    catalog_batches.reopen(connection, [batch], now)
    return Separation(source, image, others, batch, sorted(row.image_id for row in changed))


def find_image(
    catalog: Catalog, settings: Settings, name: str, source: str | None
) -> tuple[str, str]:
    """Source and id of the image that a person means by a key, or by an id or its beginning.

    Raises :class:`SeparationError` where that is nobody, or not one alone.
    """
    sources = [source] if source else sorted(settings.sources)
    with catalog.read() as connection:
        uploads = catalog_groups.uploads_named(
            connection, {one: [name, settings.sources[one].prefix + name] for one in sources}
        )
        for row in uploads:
            if row["reason"] == "bytes" and row["verdict"] == "duplicate":
                raise SeparationError(
                    f"{row['key']} has the very bytes of another upload: it is the same image"
                    " and cannot be split from it. To split that image from its group, name it"
                    f" by its id: {row['image_id']}"
                )
        found = {(row["source"], row["image_id"]) for row in uploads if row["image_id"]}
        found |= set(catalog_groups.members_named(connection, sources, name))
    if len(found) == 1:
        return found.pop()
    where = f"source {source!r}" if source else "any source"
    if not found:
        raise SeparationError(
            f"{name!r} is neither the key of an upload nor the beginning (8 digits or more) of"
            f" an image's id in {where}; 'image-pipeline duplicates list' shows both"
        )
    several = ", ".join(f"{image[:12]} in {place}" for place, image in sorted(found))
    raise SeparationError(f"{name!r} is several images ({several}): name one, with --source")
