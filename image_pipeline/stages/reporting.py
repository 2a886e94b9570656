"""What there is to say of the duplicates of a batch, in the words of its uploads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import near as catalog_near
from image_pipeline.catalog.near import Near
from image_pipeline.catalog.reports import Effort, Group, groups_of, mean_effort
from image_pipeline.dedupe.grouping import rank
from image_pipeline.dedupe.near import near_groups
from image_pipeline.stages.regrouping import canonicals_of_batch
from image_pipeline.stages.rendering import batch_source
from image_pipeline.stages.tools import Tools


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups that a batch has to do with, and what a picture of its source costs."""

    source: str
    groups: list[Group]
    effort: Effort | None


def describe_groups(tools: Tools, batch: str) -> Groups:
    """The groups a batch looks after that have duplicates, the largest first."""
    with tools.catalog.read() as connection:
        source = batch_source(connection, batch)
        canonicals = sorted(canonicals_of_batch(connection, source, batch))
        groups = groups_of(connection, source, canonicals)
        effort = mean_effort(connection, source)
    return Groups(source, sorted(groups, key=lambda one: (-len(one.duplicates), one.key)), effort)


def near_pairs(tools: Tools, batch: str, source: str) -> list[dict[str, Any]]:
    """Pairs near to a canonical of a batch, the best score first; see :func:`worded`."""
    with tools.catalog.read() as connection:
        canonicals = canonicals_of_batch(connection, source, batch)
        return worded(connection, source, catalog_near.near_of(connection, source, canonicals))


def worded(connection: sa.Connection, source: str, pairs: Iterable[Near]) -> list[dict[str, Any]]:
    """Pairs by the keys of their uploads: ``image`` is the poorer picture, of ``near_to``.

    With the ids (``image_id``, ``canonical_id``), ``found_by``, ``transform`` (what brings the
    image over the other), ``distance`` in bits and ``score`` 0-1.
    """
    pairs = list(pairs)
    ids = {image for pair in pairs for image in (pair.image_id, pair.canonical_id)}
    key_of: dict[str, str] = {}
    for row in catalog_groups.uploads_of(connection, source, sorted(ids)):
        key_of.setdefault(row["image_id"], row["key"])
    return [
        {
            "image": key_of.get(pair.image_id, pair.image_id),
            "near_to": key_of.get(pair.canonical_id, pair.canonical_id),
            "image_id": pair.image_id,
            "canonical_id": pair.canonical_id,
            "found_by": pair.found_by,
            "transform": pair.transform,
            "distance": pair.distance,
            "score": round(pair.score, 3),
        }
        for pair in pairs
    ]


def near_stars(
    connection: sa.Connection, source: str, pairs: Sequence[Near]
) -> list[dict[str, Any]]:
    """Pairs as stars: each ``canonical`` with ``members`` that were compared with it.

    Nearness is not handed on, so a chain never becomes one group. A pair whose better picture
    is in another star is left to that one.
    """
    ids = sorted({image for pair in pairs for image in (pair.image_id, pair.canonical_id)})
    place = {one.id: rank(one) for one in catalog_groups.get_pictures(connection, source, ids)}
    edges = [(pair.image_id, pair.canonical_id, pair.score) for pair in pairs]
    stars = near_groups(edges, place.__getitem__)
    told = {
        (row["image_id"], row["canonical_id"]): row for row in worded(connection, source, pairs)
    }
    found = []
    for centre, members in stars.items():
        rows = [told[image, centre] for image in members]
        found.append({"canonical": rows[0]["near_to"], "canonical_id": centre, "members": rows})
    return found
