"""What the warmer knows of, before it asks for anything."""

from itertools import pairwise

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import images, publications
from image_pipeline.catalog import warmth as catalog_warmth
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.publications import Announcement, Files
from image_pipeline.catalog.schema import members, warmth
from image_pipeline.catalog.warmth import Wanted
from image_pipeline.delivery.warming import Answer
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.settings import Delivery, Signing, Source
from image_pipeline.stages import warming
from image_pipeline.stages.rendering import expected_keys
from image_pipeline.stages.warming import Pass, catch_up, warm_sources

from .helpers import NOW, RECIPE, add_images, image_row, make_tools, variant_rows

EDGE = "https://img.test"
CURRENT = recipe_fingerprint(RECIPE)
ONE, TWO, ALIAS = "a1" * 32, "b2" * 32, "c3" * 32


@pytest.fixture
def tools(either_catalog, tmp_path):
    """A source with an edge and three images, of which one is a duplicate; nothing is rendered."""
    add_images(either_catalog, *(image_row(image) for image in (ONE, TWO, ALIAS)))
    with either_catalog.write() as connection:
        images.add_members(
            connection,
            [
                Member("photos", ONE, ONE, None, 0, 1),
                Member("photos", TWO, TWO, None, 0, 2),
                Member("photos", ALIAS, ONE, "picture", 1, 3),
            ],
        )
    sources = {"photos": Source(prefix="uploads/photos/", base_url=EDGE)}
    return make_tools(either_catalog, tmp_path, sources=sources)


def render(tools, image, recipe=CURRENT, dropped=()):
    """Variant rows of an image; their keys by the name of the size."""
    keys = expected_keys(image, 90, 60, RECIPE)
    # The names of files say by what they were made.
    other = "" if recipe == CURRENT else recipe
    keys = {key.replace(".webp", f"{other}.webp"): plan for key, plan in keys.items()}
    rows = [
        {**row, "recipe": recipe, "dropped": row["size"] in dropped}
        for row in variant_rows(image, keys)
    ]
    with tools.catalog.write() as connection:
        images.add_variants(connection, rows)
    return {row["size"]: row["key"] for row in rows}


def publish(tools, image, canonical=None, recipe=CURRENT):
    files = Files(canonical or image, recipe)
    with tools.catalog.write() as connection:
        publications.announce(connection, "photos", "batch", [Announcement(image, files, "0")], NOW)


def known(tools):
    """Key to rank of everything that the warmer knows of."""
    with tools.catalog.read() as connection:
        query = sa.select(warmth.c.key, warmth.c.rank).where(warmth.c.source == "photos")
        return dict(connection.execute(query).tuples().all())


def test_what_was_published_without_an_edge_is_found_in_its_order(tools):
    keys = render(tools, ONE)
    publish(tools, ONE)
    publish(tools, ALIAS, ONE)
    catch_up(tools, "photos")
    # Thumbnails first, then what is nearest to a phone's 1,080 pixels.
    assert known(tools) == {keys["thumb"]: 0, keys["large"]: 1, keys["small"]: 2}


def test_so_is_what_was_published_before_publications_were_written_down(tools):
    keys = render(tools, TWO)
    catch_up(tools, "photos")
    assert set(known(tools)) == set(keys.values())


def test_what_is_not_rendered_or_dropped_is_not_asked_for(tools):
    keys = render(tools, ONE, dropped=("small",))
    catch_up(tools, "photos")
    assert set(known(tools)) == {keys["thumb"], keys["large"]}


def test_a_canonical_whose_manifest_still_names_another_picture_waits_for_its_own(tools):
    render(tools, ONE)
    keys = render(tools, TWO)
    publish(tools, TWO)
    publish(tools, ONE, TWO)
    catch_up(tools, "photos")
    assert set(known(tools)) == set(keys.values())


def test_the_files_of_an_older_recipe_count_where_they_are_what_is_published(tools):
    new, old = render(tools, ONE), render(tools, ONE, "0ld0ld0ld0ld")
    assert not set(new.values()) & set(old.values())
    publish(tools, ONE, recipe="0ld0ld0ld0ld")
    catch_up(tools, "photos")
    assert set(known(tools)) == set(old.values())
    # It was made anew while the source had no edge, so nobody told the warmer.
    publish(tools, ONE)
    catch_up(tools, "photos")
    assert set(known(tools)) == set(new.values())


def test_what_is_known_already_keeps_its_answers(tools):
    keys = render(tools, ONE)
    catch_up(tools, "photos")
    row = {
        "key": keys["thumb"], "asked_at": NOW, "edge": EDGE, "status": 200, "cache": "hit",
        "first_byte_seconds": 0.1, "bytes": 10, "attempts": 1, "error": None,
    }  # fmt: skip
    with tools.catalog.write() as connection:
        catalog_warmth.record(connection, "photos", [row])
    render(tools, TWO)
    catch_up(tools, "photos")
    with tools.catalog.read() as connection:
        query = sa.select(warmth.c.status).where(warmth.c.key == keys["thumb"])
        assert connection.execute(query).scalar() == 200
    assert len(known(tools)) == 6


def test_what_is_no_longer_published_is_forgotten(tools):
    keys, others = render(tools, ONE), render(tools, TWO)
    publish(tools, ONE)
    publish(tools, TWO)
    catch_up(tools, "photos")
    assert len(known(tools)) == 6
    # TWO stands for ONE now: first its row, with the batch still to be published ...
    with tools.catalog.write() as connection:
        connection.execute(
            sa.update(members).where(members.c.image_id == ONE).values(canonical_id=TWO)
        )
    catch_up(tools, "photos")
    assert set(known(tools)) == {*keys.values(), *others.values()}
    # ... and then its manifest.
    publish(tools, ONE, TWO)
    catch_up(tools, "photos")
    assert set(known(tools)) == set(others.values())


def test_another_source_has_nothing_to_do_with_it(tools):
    with tools.catalog.write() as connection:
        catalog_warmth.replace(connection, "other", ["x"], [Wanted("k", "x", 0)], NOW)
    catch_up(tools, "photos")
    with tools.catalog.read() as connection:
        assert connection.execute(sa.select(warmth.c.source)).scalars().all() == ["other"]


def test_many_images_come_in_pages_and_each_once(tools, monkeypatch):
    monkeypatch.setattr(warming, "_IMAGES", 1)
    keys = {*render(tools, ONE).values(), *render(tools, TWO).values()}
    publish(tools, TWO)
    pages = []
    replace = catalog_warmth.replace
    monkeypatch.setattr(
        catalog_warmth,
        "replace",
        lambda connection, source, ids, *rest: (
            pages.append(list(ids)),
            replace(connection, source, ids, *rest),
        ),
    )
    catch_up(tools, "photos")
    assert pages == [[ONE], [TWO]]
    assert set(known(tools)) == keys
    catch_up(tools, "photos")
    assert pages == [[ONE], [TWO]]


def test_nothing_is_written_where_nothing_is_missing(tools):
    render(tools, ONE)
    publish(tools, ONE)
    render(tools, TWO, dropped=("thumb", "small", "large"))
    catch_up(tools, "photos")

    class ReadOnly:
        read = tools.catalog.read

    catch_up(make_tools(ReadOnly, tools.spool.root, sources=tools.settings.sources), "photos")


def test_a_source_without_an_edge_is_left_alone(tools, tmp_path):
    render(tools, ONE)
    for access in ("public", "private"):
        sources = {"photos": Source(prefix="uploads/photos/", access=access)}
        found = warm_sources(make_tools(tools.catalog, tmp_path, sources=sources), ["photos"])
        assert (found.asked, found.without_edge) == (0, ["photos"])
    assert known(tools) == {}


def test_a_private_source_whose_urls_cannot_be_signed_is_reported(tools, tmp_path):
    render(tools, ONE)
    sources = {"photos": Source(prefix="uploads/photos/", access="private", base_url=EDGE)}
    delivery = Delivery(signing=Signing(key_pair_id="K1"))
    private = make_tools(tools.catalog, tmp_path, sources=sources, delivery=delivery)
    found = warm_sources(private, ["photos"])
    assert found.asked == 0
    assert "PRIVATE_KEY" in found.unsigned["photos"]


@pytest.mark.parametrize("count", [7, 8, 9, 16, 17, 897, 1000])
def test_times_are_kept_of_evenly_chosen_answers(count, monkeypatch):
    monkeypatch.setattr(warming, "_TIMES", 8)
    found = Pass()
    for number in range(count):
        found.count("photos", "k", Answer(200, "hit", float(number), 1, 1, "", "2"))
    assert found.hits == count
    assert found.protocols == {"2": count}
    kept = found.first_byte_seconds
    assert min(count, 5) <= len(kept) <= 8
    (step,) = {b - a for a, b in pairwise(kept)}
    assert kept[0] == 0
    assert count - kept[-1] <= step
