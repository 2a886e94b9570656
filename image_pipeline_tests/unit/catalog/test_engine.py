"""Migrations, transactions, and many processes on one catalog."""

import multiprocessing
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from image_pipeline.catalog import engine, schema, uploads
from image_pipeline.catalog.engine import HEAD, Catalog, chunks

from .helpers import NOW, discover, upload_row

PROCESSES = 4

#: A child imports SQLAlchemy and waits for three others; a loaded machine may take its time.
PATIENCE_SECONDS = 60


def in_processes(function, *arguments):
    """Call a function in several processes, which get a barrier to begin at one moment."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(PROCESSES) as pool:
        start = manager.Barrier(PROCESSES)
        calls = [(n, start, *arguments) for n in range(PROCESSES)]
        return pool.starmap_async(function, calls, 1).get(PATIENCE_SECONDS)


def differences(catalog):
    with catalog.read() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, schema.metadata)


def test_the_migrations_give_the_tables_of_the_schema(catalog):
    assert differences(catalog) == []


def test_a_difference_would_be_seen(catalog):
    with catalog.write() as connection:
        connection.execute(sa.text("DROP INDEX ix_uploads_image_id"))
        connection.execute(sa.text("ALTER TABLE images ADD COLUMN extra TEXT"))
    kinds = [found[0] for found in differences(catalog)]
    assert sorted(kinds) == ["add_index", "remove_column"]


def test_the_migrations_give_the_very_sql_of_the_schema(sqlite, tmp_path):
    """What the comparison above leaves out: conditions of indexes, names of constraints."""

    def statements(connection):
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        return {
            # The parts in any order: constraints may be written in another one.
            # SQLite quotes the name of a table that was renamed.
            name: sorted(re.split(r", ?\s|\(\s|\s\)", re.sub(r"\s+", " ", sql.replace('"', ""))))
            for name, sql in connection.execute(sa.text(query))
            if name != "alembic_version"
        }

    fresh = sa.create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    with fresh.begin() as connection:
        schema.metadata.create_all(connection)
        expected = statements(connection)
    fresh.dispose()
    with sqlite.read() as connection:
        migrated = statements(connection)
    assert migrated == expected
    assert "WHERE batch_id IS NULL" in migrated["ix_uploads_waiting"][-1]


def test_head_is_the_newest_migration(catalog):
    scripts = ScriptDirectory(str(engine._MIGRATIONS))
    assert scripts.get_heads() == [HEAD]
    with catalog.read() as connection:
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version"))
        assert version.scalars().all() == [HEAD]


def migrate(number, start, url):
    catalog = Catalog(url)
    start.wait(PATIENCE_SECONDS)
    catalog.migrate()
    discover(catalog, f"key-{number}")
    catalog.close()


def test_several_processes_may_find_the_catalog_missing_at_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'folder' / 'catalog.db'}"
    in_processes(migrate, url)
    catalog = Catalog(url)
    with catalog.read() as connection:
        assert len(connection.execute(sa.select(schema.uploads.c.id)).all()) == PROCESSES
    assert differences(catalog) == []
    catalog.close()


ROUNDS = 40


def read_then_write(number, start, url, upload):
    """Count to ROUNDS in one row: what reads first and writes later loses updates or locks."""
    catalog = Catalog(url)
    catalog.migrate()
    start.wait(PATIENCE_SECONDS)
    for turn in range(ROUNDS):
        with catalog.write() as connection:
            engine.lock(connection, "counter")
            row = connection.execute(
                sa.select(schema.uploads.c.size).where(schema.uploads.c.id == upload)
            ).scalar_one()
            uploads.add(connection, [upload_row(f"{number}/{turn}")])
            connection.execute(
                sa.update(schema.uploads).where(schema.uploads.c.id == upload).values(size=row + 1)
            )
        with catalog.read() as connection:
            uploads.counts(connection)
    catalog.close()


def test_transactions_of_many_processes_wait_for_each_other(catalog):
    with catalog.write() as connection:
        uploads.add(connection, [upload_row("counter", size=0)])
    in_processes(read_then_write, catalog.url, 1)
    with catalog.read() as connection:
        (row,) = uploads.counts(connection)
        counter = connection.execute(
            sa.select(schema.uploads.c.size).where(schema.uploads.c.key == "counter")
        ).scalar_one()
    assert counter == PROCESSES * ROUNDS
    assert row["uploads"] == PROCESSES * ROUNDS + 1


def test_a_failed_transaction_leaves_nothing(catalog):
    def fail():
        with catalog.write() as connection:
            uploads.add(connection, [upload_row("a")])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    with catalog.read() as connection:
        assert uploads.counts(connection) == []


def test_a_reader_sees_one_state_while_others_write(catalog):
    discover(catalog, "a")
    with catalog.read() as reading:
        before = uploads.counts(reading)
        discover(catalog, "b")
        assert uploads.counts(reading) == before
    with catalog.read() as reading:
        assert uploads.counts(reading)[0]["uploads"] == 2


def test_times_come_back_in_utc_whatever_their_zone(catalog):
    there = datetime(2026, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    with catalog.write() as connection:
        uploads.add(connection, [upload_row("a", last_modified=there)])
        (found,) = connection.execute(sa.select(schema.uploads.c.last_modified)).scalars()
        (stored,) = connection.execute(sa.text("SELECT last_modified FROM uploads")).scalars()
    assert found == there
    assert found.tzinfo is UTC
    assert str(stored)[:19] == "2026-03-02 04:30:00", "as the database has it"


def test_a_time_without_a_zone_is_refused(catalog):
    naive = NOW.replace(tzinfo=None)
    with (
        catalog.write() as connection,
        pytest.raises(sa.exc.StatementError, match="aware datetimes only"),
    ):
        uploads.add(connection, [upload_row("a", discovered_at=naive)])


def test_references_are_enforced(catalog):
    with (
        catalog.write() as connection,
        pytest.raises(sa.exc.IntegrityError, match=r"(?i)foreign key"),
    ):
        uploads.add(connection, [upload_row("a", batch_id="no such batch")])


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3])]
)
def test_chunks(count, sizes):
    parts = list(chunks(iter(range(count)), 3))
    assert [len(part) for part in parts] == sizes
    assert [item for part in parts for item in part] == list(range(count))
