"""What housekeeping asks of the catalog: the rows, on both databases, and how they are found."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog.housekeeping import InventoryRow, Neighbour, Sighting
from image_pipeline_tests.unit.maintenance.filled import (
    BATCH,
    LONG_AGO,
    NOW,
    Filled,
    days_ago,
    image_id,
)


@pytest.fixture
def filled(catalog):
    made = Filled(catalog)
    made.batch()
    return made


def ask(filled, question, *arguments):
    with filled.catalog.read() as connection:
        return question(connection, *arguments)


def tell(filled, statement, *arguments, **options):
    with filled.catalog.write() as connection:
        return statement(connection, *arguments, **options)


def test_neighbours_are_members_and_those_they_stand_for(filled):
    one, other, third = (filled.image(name) for name in "abc")
    filled.member(one)
    filled.member(other, one)
    filled.member(third, source="shop")
    filled.publication(one)
    found = ask(filled, housekeeping.neighbours, ["photos"], [one])
    assert sorted(found, key=lambda member: member.published) == [
        Neighbour(other, one, published=False, open=False),
        Neighbour(one, one, published=True, open=False),
        Neighbour(one, one, published=True, open=False),
    ]
    assert ask(filled, housekeeping.neighbours, ["photos"], [third]) == []
    assert ask(filled, housekeeping.neighbours, ["photos"], []) == []


def test_many_keys_are_asked_for_in_parts(filled):
    image = filled.image("a")
    key = filled.variant(image)
    keys = [f"k{n}" for n in range(2500)] + [key]
    assert set(ask(filled, housekeeping.variants_of_keys, keys)) == {key}
    ids = [image_id(n) for n in range(2500)]
    filled.publication(image)
    assert ask(filled, housekeeping.published_recipes, [*ids, image]) == {(image, "r1")}
    assert ask(filled, housekeeping.published_images, "photos", [*ids, image]) == {image}
    assert ask(filled, housekeeping.known_batches, [*ids, BATCH]) == {BATCH}


def test_a_catalog_is_empty_without_uploads_or_without_batches(catalog):
    filled = Filled(catalog)
    assert ask(filled, housekeeping.is_empty)
    filled.batch()
    assert ask(filled, housekeeping.is_empty)
    filled.upload("uploads/photos/a.jpg")
    assert not ask(filled, housekeeping.is_empty)


def test_when_discovery_last_recorded_something(filled):
    for days, source in ((9, "photos"), (3, "photos"), (5, "shop")):
        filled.upload(f"{days}", source=source, discovered=days_ago(days))
    found = ask(filled, housekeeping.discovered_until)
    assert found == {"photos": days_ago(3), "shop": days_ago(5)}


def test_sightings_are_written_over_and_forgotten(filled):
    first = [
        Sighting(key, "e", 1, "unknown_variant", LONG_AGO, days_ago(9), days_ago(9), "i")
        for key in ("a", "b", "ü c")
    ]
    tell(filled, housekeeping.record_sightings, first)
    again = replace(first[1], etag="f", last_at=NOW, inventory_id="j")
    tell(filled, housekeeping.record_sightings, [again])
    seen = ask(filled, housekeeping.sightings_of, ["a", "b", "ü c", "d"])
    assert seen == {"a": first[0], "b": again, "ü c": first[2]}
    tell(filled, housekeeping.forget_sightings, ["ü c"])
    assert tell(filled, housekeeping.forget_sightings_before, NOW) == 1
    assert ask(filled, housekeeping.sightings_of, ["a", "b", "ü c"]) == {"b": again}
    tell(filled, housekeeping.record_sightings, [])


def inventory(name, days, complete=True):
    return InventoryRow(name, days_ago(days), 1, 2, "listing", complete)


def test_inventories_the_newest_first(filled):
    rows = [inventory("a", 9), inventory("b", 3), inventory("c", 1, complete=False)]
    for row in rows:
        tell(filled, housekeeping.record_inventory, row)
    assert ask(filled, housekeeping.newest_inventories, 5) == [rows[1], rows[0]]
    assert ask(filled, housekeeping.newest_inventories, 1) == [rows[1]]
    with filled.catalog.read() as connection:
        every = housekeeping.newest_inventories(connection, 5, complete_only=False)
        until = housekeeping.newest_inventories(connection, 5, until=days_ago(3.1))
    assert every == rows[::-1]
    assert until == [rows[0]]
    done = replace(rows[2], complete=True, objects=7)
    tell(filled, housekeeping.record_inventory, done)
    assert ask(filled, housekeeping.newest_inventories, 1) == [done]


def test_what_was_begun_lately_is_not_forgotten(filled):
    for row in (
        inventory("kept", 9), inventory("old", 20), inventory("begun", 0.5, complete=False),
        inventory("broken-off", 2, complete=False),
    ):  # fmt: skip
        tell(filled, housekeeping.record_inventory, row)
    tell(filled, housekeeping.forget_inventories, ["kept"], days_ago(1))
    ids = ["kept", "old", "begun", "broken-off"]
    assert ask(filled, housekeeping.known_inventories, ids) == {"kept", "begun"}


def test_a_plan_moves_on(filled):
    row = {
        "id": "p", "kind": "orphans", "state": "planned", "created_at": NOW, "inventory_id": "i",
        "digest": "d", "entries": 1, "bytes": 2, "share": 0.5, "archive": False,
    }  # fmt: skip
    tell(filled, housekeeping.add_plan, row)
    tell(filled, housekeeping.set_plan_state, "p", "applied", applied_at=NOW, results={"moved": 1})
    found = ask(filled, housekeeping.get_plan, "p")
    assert {name: found[name] for name in ("state", "applied_at", "results", "share")} == {
        "state": "applied", "applied_at": NOW, "results": {"moved": 1}, "share": 0.5,
    }  # fmt: skip
    assert ask(filled, housekeeping.get_plan, "q") is None
    assert ask(filled, housekeeping.newest_plan, "classes") is None


class Queries:
    """The statements of a question, with their parameters."""

    def __init__(self, engine):
        self.engine = engine
        self.seen = []

    def __enter__(self):
        sa.event.listen(self.engine, "before_cursor_execute", self._note)
        return self.seen

    def __exit__(self, *error):
        sa.event.remove(self.engine, "before_cursor_execute", self._note)

    def _note(self, connection, cursor, statement, parameters, context, executemany):
        if statement.startswith("SELECT"):
            self.seen.append((statement, parameters))


IDS = [image_id(n) for n in range(300)]


@pytest.mark.parametrize(
    ("question", "arguments"),
    [
        (housekeeping.variants_of_keys, (IDS,)),
        (housekeeping.published_recipes, (IDS,)),
        (housekeeping.neighbours, (["photos", "shop"], IDS)),
        (housekeeping.images_in_open_batches, (IDS,)),
        (housekeeping.published_images, ("photos", IDS)),
        (housekeeping.member_images, ("photos", IDS)),
        (housekeeping.recipes_being_replaced, (IDS,)),
        (housekeeping.known_batches, (IDS,)),
        (housekeeping.sightings_of, (IDS,)),
        (housekeeping.variant_documents, (IDS,)),
    ],
)
def test_no_question_reads_a_large_table_from_end_to_end(sqlite, question, arguments):
    with sqlite.read() as connection:
        with Queries(sqlite.engine) as seen:
            question(connection, *arguments)
        plans = [
            row.detail
            for statement, parameters in seen
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert plans
    # Batches are few: thousands where there are millions of everything else.
    scans = [plan for plan in plans if plan.startswith("SCAN") and "batches" not in plan]
    assert scans == []
