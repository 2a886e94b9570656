"""What is announced as published, what a batch changed of it, and who may say so."""

import threading
import time

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import images
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.publications import (
    Announced,
    Announcement,
    Change,
    Files,
    alone,
    announce,
    changes_of,
    existing,
    keys_of,
    last_number,
    listed,
    named,
    settle,
    thumbnails_of,
    upload_counts,
)
from image_pipeline.catalog.schema import publications
from image_pipeline_tests.unit.stages.helpers import NOW, add_batch, add_images, image_row

A, B, C = "a1" * 32, "b2" * 32, "c3" * 32
OLD, NEW = "recipe1", "recipe2"


def say(catalog, batch, *rows, source="photos"):
    """Announce (image, canonical, recipe, digest); the versions that came of it."""
    with catalog.write() as connection:
        return announce(
            connection,
            source,
            batch,
            [Announcement(image, Files(by, recipe), digest) for image, by, recipe, digest in rows],
            NOW,
        )


def changed(catalog, batch, source="photos"):
    with catalog.read() as connection:
        return changes_of(connection, source, batch)


def test_versions_grow_with_every_other_manifest(either_catalog):
    catalog = either_catalog
    assert say(catalog, "one", (A, A, OLD, "d1"), (B, A, OLD, "d2")) == {
        A: Announced(1, True), B: Announced(1, True),
    }  # fmt: skip
    assert say(catalog, "two", (A, A, OLD, "d3"), (B, A, OLD, "d2")) == {
        A: Announced(2, True), B: Announced(1, False),
    }  # fmt: skip
    assert say(catalog, "three", (A, A, OLD, "d1")) == {A: Announced(3, True)}
    assert say(catalog, "three", (A, A, OLD, "d1")) == {A: Announced(3, False)}
    # The same manifest, made of other files: never so by itself, but not the same publication.
    assert say(catalog, "four", (A, A, NEW, "d1")) == {A: Announced(4, True)}
    with catalog.read() as connection:
        rows = connection.execute(
            sa.select(publications.c.image_id, publications.c.version, publications.c.batch_id)
            .order_by(publications.c.image_id)
        ).all()  # fmt: skip
    assert rows == [(A, 4, "four"), (B, 1, "one")]


def test_sources_do_not_share_publications(either_catalog):
    say(either_catalog, "one", (A, A, OLD, "d1"))
    say(either_catalog, "one", (A, A, OLD, "d2"))
    assert say(either_catalog, "two", (A, A, OLD, "d1"), source="x") == {A: Announced(1, True)}
    assert changed(either_catalog, "two", "x") == [Change(A, None, Files(A, OLD))]


def test_a_thousand_at_once(either_catalog):
    rows = [(f"{number:064x}", A, OLD, "d") for number in range(1203)]
    assert len(say(either_catalog, "one", *rows)) == 1203
    assert set(say(either_catalog, "one", *rows).values()) == {Announced(1, False)}
    assert len(changed(either_catalog, "one")) == 1203


def test_what_was_before_the_first_attempt_is_kept_until_the_batch_is_done(either_catalog):
    catalog = either_catalog
    say(catalog, "first", (A, A, OLD, "d1"))
    say(catalog, "second", (A, B, OLD, "d2"), (B, B, OLD, "d3"))
    # A second attempt with another outcome.
    say(catalog, "second", (A, A, NEW, "d4"))
    assert changed(catalog, "first") == [Change(A, None, Files(A, NEW))]
    assert changed(catalog, "second") == [
        Change(A, Files(A, OLD), Files(A, NEW)), Change(B, None, Files(B, OLD)),
    ]  # fmt: skip
    with catalog.write() as connection:
        settle(connection, "second")
    assert changed(catalog, "second") == []
    say(catalog, "second", (A, A, OLD, "d5"))
    assert changed(catalog, "second") == [Change(A, Files(A, NEW), Files(A, OLD))]
    assert len(changed(catalog, "first")) == 1


def test_what_is_as_it_was_before_is_no_change(either_catalog):
    say(either_catalog, "first", (A, A, OLD, "d1"))
    say(either_catalog, "second", (A, B, OLD, "d2"))
    say(either_catalog, "second", (A, A, OLD, "d1"))
    # Another list of uploads only: the same files.
    say(either_catalog, "third", (A, A, OLD, "d6"))
    assert changed(either_catalog, "second") == []
    assert changed(either_catalog, "third") == []


def test_named_is_what_a_manifest_of_the_source_names(either_catalog):
    say(either_catalog, "one", (A, B, OLD, "d"), (B, B, OLD, "d"))
    say(either_catalog, "one", (C, C, NEW, "d"), source="x")
    asked = {Files(A, OLD), Files(B, OLD), Files(B, NEW), Files(C, NEW)}
    with either_catalog.read() as connection:
        assert named(connection, "photos", asked) == {Files(B, OLD)}
        assert named(connection, "x", asked) == {Files(C, NEW)}
        assert named(connection, "x", set()) == set()


def variant(key, image, recipe, **changes):
    return {
        "key": key, "image_id": image, "recipe": recipe, "role": "responsive", "size": "small",
        "format": "webp", "width": 60, "height": 40, "quality": 80, "bytes": 10,
        "sha256": "ab" * 32, "dropped": False, "metadata": [], "created_at": NOW, **changes,
    }  # fmt: skip


@pytest.fixture
def stocked(either_catalog):
    """Two images with files of two recipes, one of them dropped."""
    add_images(either_catalog, image_row(A), image_row(B), image_row(C))
    with either_catalog.write() as connection:
        images.add_variants(
            connection,
            [
                variant("v/a2", A, OLD),
                variant("v/a1", A, OLD, role="thumbnail"),
                variant("v/a3", A, NEW, role="thumbnail", format="avif", width=9),
                variant("v/b1", B, OLD),
                variant("v/b2", B, OLD, role="thumbnail", dropped=True),
            ],
        )
    return either_catalog


def test_files_are_those_that_are_in_the_bucket(stocked):
    with stocked.read() as connection:
        assert keys_of(connection, {Files(A, OLD), Files(B, OLD), Files(C, OLD)}) == {
            Files(A, OLD): ["v/a1", "v/a2"], Files(B, OLD): ["v/b1"], Files(C, OLD): [],
        }  # fmt: skip
        assert existing(connection, ["v/a1", "v/b2", "v/none"]) == {"v/a1"}
        thumbnails = thumbnails_of(connection, [A, B])
    found = {
        files: [(one["key"], one["width"]) for one in rows] for files, rows in thumbnails.items()
    }
    assert found == {Files(A, OLD): [("v/a1", 60)], Files(A, NEW): [("v/a3", 9)]}


def test_a_page_of_an_index_lists_what_is_published_in_the_order_of_arrival(stocked):
    with stocked.write() as connection:
        images.add_members(
            connection,
            [
                Member("photos", C, A, "picture", 1, 1),
                Member("photos", A, A, None, 0, 2),
                Member("photos", B, B, None, 0, 3),
                Member("x", B, B, None, 0, 3),
            ],
        )
    say(stocked, "one", (A, A, OLD, "d"), (C, A, OLD, "d"))
    add_batch(
        stocked,
        ("a.jpg", "accepted", None, A), ("c.jpg", "duplicate", "picture", C),
        ("again.jpg", "duplicate", "bytes", A), ("no.jpg", "failed", "storage_error", A),
    )  # fmt: skip
    with stocked.read() as connection:
        rows = listed(connection, "photos", range(1, 1001))
        assert listed(connection, "photos", range(2, 3)) == rows[1:]
        assert listed(connection, "photos", range(3, 1001)) == []
        assert listed(connection, "x", range(1, 1001)) == []
        assert upload_counts(connection, "photos", [A, B]) == {A: 3}
        assert upload_counts(connection, "x", [A, B]) == {}
        assert last_number(connection, "photos") == 3
        assert last_number(connection, "none") == 0
    assert [(row["number"], row["image_id"], row["canonical_id"]) for row in rows] == [
        (1, C, A), (2, A, A),
    ]  # fmt: skip
    assert {row["recipe"] for row in rows} == {OLD}
    assert {(row["width"], row["height"], row["dominant_color"]) for row in rows} == {
        (90, 60, "#102030")
    }


def test_a_page_of_an_index_costs_what_its_images_cost(tmp_path):
    """Whatever SQLite guesses of tables it knows nothing of: no step goes through a source."""
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.migrate()
    with catalog.write() as connection:
        images.add_images(connection, [image_row(A)])
        images.add_members(connection, [Member("photos", A, A, None, 0, 1)])
    plans = []

    @sa.event.listens_for(catalog.engine, "before_cursor_execute")
    def explain(connection, cursor, statement, parameters, context, many):
        if statement.startswith("SELECT"):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in cursor.fetchall())

    say(catalog, "one", (A, A, OLD, "d"))
    with catalog.write() as connection:
        upload_counts(connection, "photos", [A, B])
        thumbnails_of(connection, [A, B])
        listed(connection, "photos", range(1, 1001))
    catalog.close()
    steps = [plan for plan in plans if plan.startswith(("SCAN", "SEARCH"))]
    assert len(steps) >= 7
    assert not [plan for plan in steps if plan.startswith("SCAN") or plan.endswith("(source=?)")]


def test_only_one_is_alone_and_others_may_write_meanwhile(either_catalog):
    """Threads that read, wait and write without it would lose all but a few of their steps."""
    catalog = either_catalog
    catalog.migrate()
    steps = []

    def work():
        for _ in range(5):
            with alone(catalog, "index photos"):
                seen = len(steps)
                with catalog.write() as connection:
                    connection.execute(sa.select(publications.c.image_id).limit(1))
                time.sleep(0.002)
                steps.append(seen)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == list(range(20))
