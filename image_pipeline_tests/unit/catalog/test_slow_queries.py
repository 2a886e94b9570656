"""What is written down of slow statements, and that nobody pays for it."""

import logging
import math
import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import slow_queries
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import slow_queries as table
from image_pipeline.catalog.schema import uploads
from image_pipeline.catalog.slow_queries import MOST_WAITING, doing, normalised, without_values

from .helpers import NOW, discover

SECRET = "uploads/photos/Anna's divorce.jpg"


@pytest.fixture
def eager(either_catalog):
    """A catalog that takes every statement for slow."""
    either_catalog.migrate()
    made = Catalog(either_catalog.url, slow_seconds=0.0)
    yield made
    made.close()


@pytest.fixture
def calm(either_catalog):
    """A catalog that takes no statement for slow, however busy the machine is."""
    either_catalog.migrate()
    made = Catalog(either_catalog.url, slow_seconds=600.0)
    yield made
    made.close()


def kept(catalog):
    """The rows by statement, without what the watching itself would add."""
    with sa.create_engine(catalog.url).connect() as connection:
        rows = connection.execute(sa.select(table)).mappings().all()
        connection.engine.dispose()
    return {row["statement"]: row for row in rows}


def ask(catalog, key=SECRET, ids=(1, 2, 3)):
    query = sa.select(uploads.c.id).where(
        uploads.c.source == "photos", uploads.c.key == key, uploads.c.id.in_(ids)
    )
    with catalog.read() as connection:
        connection.execute(query).all()


def one_of(rows, beginning):
    (found,) = [row for text, row in rows.items() if text.startswith(beginning)]
    return found


def test_a_slow_statement_is_kept_with_its_plan_and_without_its_values(eager):
    discover(eager, SECRET)
    with doing("render", "photos-1"):
        ask(eager)
    ask(eager, ids=(4,))
    eager.close()
    row = one_of(kept(eager), "SELECT uploads.id FROM uploads")
    assert row["count"] == 2
    assert 0 < row["worst"] <= row["total"] <= 2 * row["worst"]
    # Two statements that differ in the length of a list only are one.
    assert (
        row["statement"]
        .replace('"', "")
        .endswith("uploads.source = ? AND uploads.key = ? AND uploads.id IN (?, ...)")
    )
    assert "SEARCH uploads" in row["plan"] or "Scan" in row["plan"]
    assert "divorce" not in str(kept(eager))


def test_the_worst_time_says_where_it_was(eager):
    slow = eager._slow
    for took, stage in ((0.2, "inspect"), (0.9, "render"), (0.3, "publish")):
        with doing(stage, f"batch-{stage}"):
            slow._note("SELECT 1", (), took)
        slow.flush()
    row = kept(eager)["SELECT ?"]
    assert (row["count"], row["worst"], row["total"]) == (3, 0.9, pytest.approx(1.4))
    assert (row["stage"], row["batch_id"]) == ("render", "batch-render")


def test_what_is_fast_is_not_kept(calm):
    discover(calm, "a")
    ask(calm)
    calm.close()
    assert kept(calm) == {}


def test_nothing_is_watched_where_nothing_can_be_slow(either_catalog):
    made = Catalog(either_catalog.url, slow_seconds=math.inf)
    assert not sa.event.contains(made.engine, "before_cursor_execute", made._slow._begin)
    ask(made)
    made.close()
    watched = Catalog(either_catalog.url, slow_seconds=0.1)
    assert sa.event.contains(watched.engine, "before_cursor_execute", watched._slow._begin)
    watched.close()


def test_the_migrations_are_not_watched(tmp_path):
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}", slow_seconds=0.0)
    catalog.migrate()
    catalog.close()
    assert kept(catalog) == {}


def test_it_is_written_down_by_itself(eager, monkeypatch):
    monkeypatch.setattr(slow_queries, "PAUSE_SECONDS", 0.01)
    ask(eager)
    deadline = time.monotonic() + 20
    while not kept(eager):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_noticing_does_not_notice_itself(eager):
    ask(eager)
    eager.close()
    before = kept(eager)
    eager.close()
    assert kept(eager) == before
    assert not [text for text in before if "slow_queries" in text or "EXPLAIN" in text]


def test_the_number_of_statements_is_bounded(eager, monkeypatch):
    monkeypatch.setattr(slow_queries, "MOST_KEPT", 3)
    with eager.read() as connection:
        for number in range(MOST_WAITING + 30):
            connection.exec_driver_sql(f"SELECT 1 AS column_{number}")
    assert len(eager._slow._waiting) == MOST_WAITING
    eager.close()
    assert len(kept(eager)) == 3


def test_no_caller_waits_or_fails_when_it_cannot_be_written_down(eager, monkeypatch, caplog):
    def broken(*_arguments):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(slow_queries, "_write", broken)
    with caplog.at_level(logging.DEBUG, logger=slow_queries.__name__):
        ask(eager)
        eager.close()
    assert "were not written down: RuntimeError" in caplog.text
    assert SECRET not in caplog.text
    assert kept(eager) == {}


def test_callers_are_not_held_up_by_a_database_that_is_locked(eager, monkeypatch):
    """Somebody writes for a long time: what was slow is dropped, not waited for."""
    monkeypatch.setattr(slow_queries, "PATIENCE_SECONDS", 1)
    other = Catalog(eager.url, slow_seconds=600.0)
    ask(eager)
    with other.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE slow_queries"))
        began = time.monotonic()
        eager._slow.flush()
        assert time.monotonic() - began < 15
    other.close()
    assert kept(eager) == {}


def test_a_statement_that_fails_is_no_trouble(eager):
    with pytest.raises(sa.exc.DBAPIError), eager.read() as connection:
        connection.execute(sa.text("SELECT * FROM nowhere"))
    eager.close()
    assert not [text for text in kept(eager) if "nowhere" in text]


def test_many_threads_may_be_slow_at_once(eager):
    threads = [threading.Thread(target=ask, args=(eager,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eager.close()
    assert one_of(kept(eager), "SELECT uploads.id FROM uploads")["count"] == 8


def test_a_catalog_that_is_gone_is_not_made_again(tmp_path):
    path = tmp_path / "catalog.db"
    catalog = Catalog(f"sqlite:///{path}", slow_seconds=0.0)
    ask(catalog)
    catalog.engine.dispose()
    for one in tmp_path.glob("catalog.db*"):
        one.unlink()
    catalog.close()
    assert not path.exists()


def test_those_that_were_slow_since_and_those_to_forget(calm):
    rows = [
        {
            "id": str(number), "statement": f"s{number}", "count": 1, "worst": 1.0,
            "total": float(number), "first_at": NOW, "last_at": NOW - timedelta(days=number),
            "stage": "", "plan": "",
        }
        for number in range(1, 5)
    ]  # fmt: skip
    with calm.write() as connection:
        connection.execute(sa.insert(table), rows)
        since = NOW - timedelta(days=3)
        found = slow_queries.slowest(connection, since, 2)
        assert [row["statement"] for row in found] == ["s3", "s2"]
        assert slow_queries.forget_before(connection, since) == 1
        assert len(slow_queries.slowest(connection, NOW - timedelta(days=99), 9)) == 3


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT a FROM t WHERE b = ?", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a\nFROM t  WHERE b = %(b_1)s", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a FROM t WHERE b IN (?, ?, ?)", "SELECT a FROM t WHERE b IN (?, ...)"),
        ("WHERE b IN (?) AND c = ?", "WHERE b IN (?, ...) AND c = ?"),
        ("WHERE b = 'it''s a secret' AND c = 12.5", "WHERE b = ? AND c = ?"),
        ("INSERT INTO t (a, b) VALUES (?, ?), (?, ?), (?, ?)",
         "INSERT INTO t (a, b) VALUES (?, ...), ..."),
        ("VALUES (%(a)s::INTEGER, %(b)s::TIMESTAMP WITHOUT TIME ZONE)", "VALUES (?, ...)"),
        ("SELECT b0, t1.phash64 FROM t1 LIMIT 5", "SELECT b0, t1.phash64 FROM t1 LIMIT ?"),
        ("SELECT x::text WHERE y = :name", "SELECT x::text WHERE y = ?"),
    ],
)  # fmt: skip
def test_statements_that_differ_in_values_only_are_one(statement, expected):
    assert normalised(statement) == expected


def test_a_plan_keeps_its_estimates_and_loses_its_values():
    plan = (
        "Index Scan using ix_uploads on uploads  (cost=0.43..8.45 rows=12 width=8)\n"
        "  Index Cond: ((source = 'photos'::text) AND (key = 'it''s\n secret'::text))\n"
        "  Filter: ((id > 4711) AND (image_id = ANY ('{ab,cd}'::text[])))"
    )
    assert without_values(plan) == (
        "Index Scan using ix_uploads on uploads  (cost=0.43..8.45 rows=12 width=8)\n"
        "  Index Cond: ((source = ?::text) AND (key = ?::text))\n"
        "  Filter: ((id > ?) AND (image_id = ANY (?::text[])))"
    )
