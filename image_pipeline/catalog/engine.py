"""Connections to the catalog, on SQLite or Postgres, and its migrations."""

from __future__ import annotations

import math
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from image_pipeline.catalog.slow_queries import MIGRATING, SlowQueries, doing

#: Rows of one statement: well under SQLite's 32,766 and Postgres' 65,535 parameters.
CHUNK = 500

_MIGRATIONS = Path(__file__).with_name("migrations")

#: How long a transaction waits to begin while Postgres takes no connections. A restart takes
#: seconds. A failover may take two minutes: that is left to the batch's next attempt, because
#: a tick of a sensor must not take longer than the minute that Dagster gives it.
PATIENCE_SECONDS = 30.0

#: How often work is done in all that Postgres breaks off.
TRIES = 5

#: SQLSTATE of a transaction that was undone only because of others, and may be done again:
#: serialization_failure and deadlock_detected.
_UNDONE = frozenset({"40001", "40P01"})

#: How libpq notices that the other side is gone without a word, as a machine that lost its power
#: is: about a minute instead of the two hours of Linux. What a URL says itself stays.
_LIVELINESS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

T = TypeVar("T")


class Catalog:
    """The database.

    ``read`` and ``write`` are transactions; the functions of this room take their connection,
    so that a caller decides what belongs together.
    """

    def __init__(self, url: str, slow_seconds: float = math.inf) -> None:
        """Statements that take ``slow_seconds`` are written down; infinite: none is watched."""
        self.url = url
        self._slow = SlowQueries(sa.make_url(url), slow_seconds)
        self._migrated = False
        self._lock = threading.Lock()

    @cached_property
    def engine(self) -> sa.Engine:
        """The engine, made on first use."""
        engine = self._open()
        # Pooled connections of a catalog that nobody has any more are closed, not just dropped.
        weakref.finalize(self, engine.dispose)
        self._slow.watch(engine)
        weakref.finalize(self, self._slow.close)
        return engine

    def _open(self) -> sa.Engine:
        url = sa.make_url(self.url)
        if url.get_backend_name() != "sqlite":
            options = {name: n for name, n in _LIVELINESS.items() if name not in url.query}
            return sa.create_engine(url, pool_pre_ping=True, connect_args=options)
        if url.database and url.database != ":memory:":
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url)
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the catalog and changes nothing.

        Waits up to :data:`PATIENCE_SECONDS` for a Postgres that restarts, before it begins.
        """
        self.migrate()
        with self._connect() as connection:
            if self.engine.dialect.name == "postgresql":
                # Otherwise every statement would see what was committed meanwhile.
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that is committed on leaving.

        SQLite takes its one write lock at the start: a transaction that reads first and writes
        later fails with "database is locked" whatever the timeout says.

        Waits as :meth:`read` does. Once begun, a transaction that Postgres breaks off raises:
        the body of a ``with`` cannot be done again. :meth:`transact` can.
        """
        self.migrate()
        with self._connect() as connection:
            writing = connection.execution_options(writing=True)
            with writing.begin():
                yield writing

    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """Do ``work`` in a transaction of :meth:`write`, again where Postgres breaks it off.

        Only for work that may be done twice: where a connection is lost at the commit, nobody
        can say whether it took place. Raises the error of the last of :data:`TRIES`.
        """
        for left in reversed(range(TRIES)):
            try:
                with self.write() as connection:
                    return work(connection)
            except sa.exc.DBAPIError as error:
                if not (left and is_broken_off(error)):
                    raise
            # Those who were in each other's way shall not come back at the same moment.
            time.sleep(random.uniform(0.02, 0.2))
        raise AssertionError("the last try returns or raises")

    def _connect(self) -> sa.Connection:
        """A connection; one that comes at once, unless this catalog has answered before."""
        deadline = time.monotonic() + (PATIENCE_SECONDS if self._migrated else 0.0)
        pause = 0.05
        while True:
            try:
                return self.engine.connect()
            except sa.exc.OperationalError:
                is_postgres = self.engine.dialect.name == "postgresql"
                if not is_postgres or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def migrate(self) -> None:
        """Bring the schema to this version of the code. Safe to call from many processes."""
        with self._lock:
            if self._migrated:
                return
            with doing(MIGRATING, None):
                if not self._is_current():
                    self._upgrade()
            self._migrated = True

    def close(self) -> None:
        """Give back every connection, and write down what was slow."""
        if "engine" in self.__dict__:
            self.engine.dispose()
            self._slow.flush()

    def _is_current(self) -> bool:
        with self.engine.connect() as connection, connection.begin():
            if not sa.inspect(connection).has_table("alembic_version"):
                return False
            version = connection.execute(sa.text("SELECT version_num FROM alembic_version"))
            return version.scalar() == HEAD

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self.engine.connect() as connection:
            writing = connection.execution_options(writing=True)
            with writing.begin():
                lock(writing, "migrations")
                config.attributes["connection"] = writing
                command.upgrade(config, "head")


#: The newest migration; a test compares it with the folder.
HEAD = "0005"


def is_broken_off(error: sa.exc.DBAPIError) -> bool:
    """Whether a transaction failed for no fault of its own: it may succeed if it is done again."""
    return error.connection_invalidated or getattr(error.orig, "pgcode", None) in _UNDONE


def lock(connection: sa.Connection, name: str) -> None:
    """Hold a named lock until the transaction ends (SQLite's write lock is already wider)."""
    if connection.dialect.name == "postgresql":
        key = sa.func.hashtextextended(name, 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


class HashDistance(FunctionElement[int]):
    """How many bits two 64-bit hashes differ in, told by the database itself."""

    type = sa.Integer()
    inherit_cache = True


@compiles(HashDistance, "postgresql")
def _distance_on_postgres(element: HashDistance, compiler: SQLCompiler, **options: Any) -> str:
    one, other = (compiler.process(clause, **options) for clause in element.clauses)
    return f"bit_count(({one} # {other})::bit(64))"


@compiles(HashDistance, "sqlite")
def _distance_on_sqlite(element: HashDistance, compiler: SQLCompiler, **options: Any) -> str:
    one, other = (compiler.process(clause, **options) for clause in element.clauses)
    return f"hash_distance({one}, {other})"


def _distance(one: object, other: object) -> int:
    """SQLite's own; a hash that is no integer is near to all: who reads its row refuses it."""
    if isinstance(one, int) and isinstance(other, int):
        return ((one ^ other) & 0xFFFF_FFFF_FFFF_FFFF).bit_count()
    return 0


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, leaving those that are already there as they are. Bulk, any number.

    All rows have the same columns. They go to the driver as parameters of one statement: a
    statement that has them in itself is compiled anew each time, which takes six times as long.
    """
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


def chunks(rows: Iterable[Any], size: int = CHUNK) -> Iterator[list[Any]]:
    """Lists of up to ``size`` rows."""
    part: list[Any] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _configure_sqlite(connection: Any, record: object) -> None:
    # SQLAlchemy then says BEGIN itself, in the form that _begin_sqlite chooses.
    connection.isolation_level = None
    connection.create_function("hash_distance", 2, _distance, deterministic=True)
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA foreign_keys=ON")
    _switch_to_wal(cursor)
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """Let readers and the writer work side by side.

    The switch itself, once in the life of the file, needs it alone and does not wait for it:
    several processes that find a new catalog have to take turns.
    """
    deadline = time.monotonic() + 30
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
