"""Migrations, transactions, and many processes on one catalog."""

import multiprocessing
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from unittest import mock

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


@pytest.fixture
def postgres(postgres_url):
    made = Catalog(postgres_url)
    made.migrate()
    yield made
    made.close()


def sizes(catalog):
    with catalog.read() as connection:
        query = sa.select(schema.uploads.c.key, schema.uploads.c.size)
        return dict(connection.execute(query).all())


def grow(connection, key):
    row = schema.uploads.c
    size = connection.execute(sa.select(row.size).where(row.key == key)).scalar_one()
    connection.execute(sa.update(schema.uploads).where(row.key == key).values(size=size + 1))


def in_threads(*functions):
    """Call functions at once; what they raise."""
    with ThreadPoolExecutor(len(functions)) as threads:
        futures = [threads.submit(function) for function in functions]
        return [future.exception(PATIENCE_SECONDS) for future in futures]


def crossing(catalog, change):
    """Two who change the same two rows, each in the other order, and meet in the middle."""
    meeting, tries = threading.Barrier(2), []

    def work(connection, first, second):
        tries.append(first)
        grow(connection, first)
        if tries.count(first) == 1:
            meeting.wait(PATIENCE_SECONDS)
        grow(connection, second)

    return tries, [
        partial(change, catalog, partial(work, first=one, second=other))
        for one, other in (("a", "b"), ("b", "a"))
    ]


def transact(catalog, work):
    return catalog.transact(work)


def write(catalog, work):
    with catalog.write() as connection:
        work(connection)


def test_a_deadlock_is_done_again_and_done_once(postgres):
    with postgres.write() as connection:
        uploads.add(connection, [upload_row("a", size=0), upload_row("b", size=0)])
    tries, both = crossing(postgres, transact)
    assert in_threads(*both) == [None, None]
    assert sizes(postgres) == {"a": 2, "b": 2}
    assert len(tries) >= 3, "there was no deadlock"


def test_a_deadlock_is_told_to_who_cannot_do_it_again(postgres):
    with postgres.write() as connection:
        uploads.add(connection, [upload_row("a", size=0), upload_row("b", size=0)])
    _, both = crossing(postgres, write)
    (error,) = [error for error in in_threads(*both) if error]
    assert engine.is_broken_off(error)
    assert error.orig.pgcode == "40P01"
    assert sizes(postgres) == {"a": 1, "b": 1}


def test_transactions_that_cannot_be_put_in_an_order_are_done_again(postgres_url):
    """Where the operator of the database asked for serializable transactions."""
    option = "options=-c%20default_transaction_isolation%3Dserializable"
    catalog = Catalog(f"{postgres_url}{'&' if '?' in postgres_url else '?'}{option}")
    with catalog.write() as connection:
        uploads.add(connection, [upload_row("a", size=0)])
    meeting, tries = threading.Barrier(2), []

    def work(connection):
        tries.append(threading.get_ident())
        if len(tries) <= 2:
            uploads.counts(connection)
            meeting.wait(PATIENCE_SECONDS)
        grow(connection, "a")

    both = partial(catalog.transact, work)
    assert in_threads(both, both) == [None, None]
    assert sizes(catalog) == {"a": 2}
    assert len(tries) >= 3
    catalog.close()


def cut(connection):
    connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")


def test_a_transaction_whose_connection_is_cut_is_done_again(postgres):
    tries = []

    def work(connection):
        tries.append(1)
        uploads.add(connection, [upload_row("a")])
        if len(tries) < engine.TRIES:
            cut(connection)
        return "done"

    assert postgres.transact(work) == "done"
    assert len(tries) == engine.TRIES
    assert list(sizes(postgres)) == ["a"]


def test_it_is_not_done_again_for_ever(postgres):
    tries = []

    def work(connection):
        tries.append(1)
        cut(connection)

    with pytest.raises(sa.exc.OperationalError):
        postgres.transact(work)
    assert len(tries) == engine.TRIES


def test_what_fails_by_its_own_fault_is_not_done_again(either_catalog):
    tries = []

    def work(connection):
        tries.append(1)
        uploads.add(connection, [upload_row("a", batch_id="no such batch")])

    with pytest.raises(sa.exc.IntegrityError):
        either_catalog.transact(work)
    assert len(tries) == 1


def test_a_database_that_never_answered_is_not_waited_for():
    catalog = Catalog("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    with (
        mock.patch.object(time, "sleep", side_effect=AssertionError("waited")),
        pytest.raises(sa.exc.OperationalError),
    ):
        catalog.transact(cut)


def test_a_database_that_restarts_is_waited_for_but_not_for_ever(postgres):
    refused = sa.exc.OperationalError("", None, Exception("the database system is starting up"))
    real, pauses = postgres.engine.connect, []
    moment = mock.Mock(side_effect=lambda: sum(pauses))
    with (
        mock.patch.object(time, "sleep", side_effect=pauses.append),
        mock.patch.object(time, "monotonic", moment),
    ):
        answers = [refused, refused, real]
        with mock.patch.object(postgres.engine, "connect", side_effect=lambda: given(answers)):
            assert sizes(postgres) == {}
        assert len(pauses) == 2
        with (
            mock.patch.object(postgres.engine, "connect", side_effect=refused),
            pytest.raises(sa.exc.OperationalError),
        ):
            sizes(postgres)
    assert 0.9 * engine.PATIENCE_SECONDS < sum(pauses[2:]) <= engine.PATIENCE_SECONDS


def given(answers):
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer()
