"""Statements of the catalog that took too long, with the plans that the database has for them.

Whoever runs a statement pays for two looks at a clock. What was slow is put into a list of
bounded length; somebody else, a thread that lives for a moment, asks for its plan and writes it
down, over a connection of its own that nobody watches. So a caller is never held up, nothing is
written inside the transaction of another, and noticing cannot notice itself. Whatever goes wrong
there is dropped: a report is not worth a failed batch.

Of a statement only its text is kept, with every value taken out of it and of its plan.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.schema import slow_queries

#: Different statements waiting to be written down, and kept in the catalog. The pipeline has about
#: two hundred; more than this would be texts that ought to be one.
MOST_WAITING = 20
MOST_KEPT = 200

#: Characters of a statement and of a plan: enough for the longest of ours.
MOST_TEXT = 4000

#: Until what was slow is written down: others that are slow by the same cause go along.
PAUSE_SECONDS = 2.0

#: How long writing down may wait for a lock or an answer. Then it is dropped.
PATIENCE_SECONDS = 2

#: What is slow while the schema is changed happens once, and no index would help it.
MIGRATING = "migrating"

_log = logging.getLogger(__name__)

#: What the present thread is doing: a stage and a batch.
_doing: ContextVar[tuple[str, str | None]] = ContextVar("doing", default=("", None))

_EXPLAINED = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
_TEXTS = re.compile(r"E?'(?:[^']|'')*'")
_NUMBERS = re.compile(r"(?<![\w.\"])-?\d+(?:\.\d+)?\b")
_PARAMETERS = re.compile(r"%\(\w+\)s|%s|(?<!:):[a-z_]\w*|\?")
_CASTS = re.compile(r"\?::[A-Za-z_]+(?: [A-Za-z_]+)*(?=[\s,)])")
_LISTS = re.compile(r"\?(?:\s*,\s*\?)+|(?<=\bIN \()\?(?=\))")
_ROWS = re.compile(r"(\(\?(?:, \.\.\.)?\))(?:\s*,\s*\(\?(?:, \.\.\.)?\))+")
#: Lines of a Postgres plan that hold values: "Index Cond: (...)", "Filter: (...)" and the like.
_CONDITION = re.compile(r"^\s*[A-Z][A-Za-z ]*: ", re.MULTILINE)


@contextmanager
def doing(stage: str, batch: str | None) -> Iterator[None]:
    """Slow statements of this thread belong to a stage of a batch meanwhile."""
    token = _doing.set((stage, batch))
    try:
        yield
    finally:
        _doing.reset(token)


@dataclass(slots=True)
class Slow:
    """A statement that was slow: how often, for how long (seconds), the worst time and where.

    ``sent`` and ``parameters`` are those of the worst time. They stay in this process.
    """

    count: int
    worst: float
    total: float
    stage: str
    batch: str | None
    sent: str
    parameters: Any


def normalised(statement: str) -> str:
    """A statement without any value in it: the same for lists of any length."""
    text = _TEXTS.sub("?", statement)
    text = _PARAMETERS.sub("?", text)
    text = _NUMBERS.sub("?", text)
    text = _LISTS.sub("?, ...", " ".join(_CASTS.sub("?", text).split()))
    return _ROWS.sub(r"\1, ...", text)[:MOST_TEXT]


def without_values(plan: str) -> str:
    """A plan of Postgres without the values of its conditions; estimates stay."""
    lines = _TEXTS.sub("?", plan).split("\n")
    return "\n".join(_NUMBERS.sub("?", one) if _CONDITION.match(one) else one for one in lines)


class SlowQueries:
    """What watches the statements of an engine, and writes the slow ones down.

    ``seconds`` is what counts as slow.
    """

    def __init__(self, url: sa.URL, seconds: float) -> None:
        self.seconds = seconds
        self._url = url
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: dict[str, Slow] = {}
        self._timer: threading.Timer | None = None
        self._closed = False

    def watch(self, engine: sa.Engine) -> None:
        """Compare clocks around every statement of an engine, if any can be slow."""
        if math.isinf(self.seconds):
            return
        sa.event.listen(engine, "before_cursor_execute", self._begin)
        sa.event.listen(engine, "after_cursor_execute", self._end)

    def close(self) -> None:
        """Write down what waits, and begin no thread any more."""
        self._closed = True
        self.flush()

    def flush(self) -> None:
        """Write down what waits, now, and what somebody is at. Never raises."""
        with self._writing:
            with self._lock:
                waiting, self._waiting = self._waiting, {}
                timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            if waiting:
                self._try_to_write(waiting)

    def _try_to_write(self, waiting: dict[str, Slow]) -> None:
        try:
            _write(self._url, waiting)
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and nobody shall fail for it
            _log.debug("slow statements were not written down: %s", type(error).__name__)

    def _begin(self, _connection: Any, _cursor: Any, *rest: Any) -> None:
        context = rest[-2]
        if context is not None:
            context.began_at = time.perf_counter()

    def _end(self, _connection: Any, _cursor: Any, *rest: Any) -> None:
        statement, parameters, context, _ = rest
        began_at = getattr(context, "began_at", None)
        if began_at is not None:
            took = time.perf_counter() - began_at
            if took >= self.seconds:
                self._note(statement, parameters, took)

    def _note(self, statement: str, parameters: Any, took: float) -> None:
        stage, batch = _doing.get()
        if stage == MIGRATING:
            return
        text = normalised(statement)
        with self._lock:
            known = self._waiting.get(text)
            if known is not None:
                known.count += 1
                known.total += took
            if known is None and len(self._waiting) >= MOST_WAITING:
                return
            if known is None:
                known = Slow(1, 0.0, took, stage, batch, statement, parameters)
                self._waiting[text] = known
            if took > known.worst:
                known.worst, known.stage, known.batch = took, stage, batch
                known.sent, known.parameters = statement, parameters
            if self._timer is None and not self._closed:
                self._timer = threading.Timer(PAUSE_SECONDS, self.flush)
                self._timer.name, self._timer.daemon = "slow-queries", True
                self._timer.start()


def _write(url: sa.URL, waiting: dict[str, Slow]) -> None:
    engine = _own_engine(url)
    if engine is None:
        return
    try:
        with engine.connect() as connection:
            plans = {text: _plan(connection, slow) for text, slow in waiting.items()}
        with engine.begin() as connection:
            # Everybody in the same order: two that write at once do not wait for each other.
            for text in sorted(waiting):
                _add(connection, text, waiting[text], plans[text])
            _prune(connection)
    finally:
        engine.dispose()


def _own_engine(url: sa.URL) -> sa.Engine | None:
    """Connections of our own, that give up soon; None where there is nothing to connect to."""
    pool = sa.pool.NullPool
    if url.get_backend_name() == "sqlite":
        # A catalog that was removed meanwhile is not made again.
        if not url.database or not Path(url.database).is_file():
            return None
        engine = sa.create_engine(
            url, poolclass=pool, connect_args={"timeout": PATIENCE_SECONDS}
        )  # fmt: skip
        sa.event.listen(engine, "connect", _add_functions)
        return engine
    limit = PATIENCE_SECONDS * 1000
    options = f"-c lock_timeout={limit} -c statement_timeout={limit}"
    connecting = {"connect_timeout": PATIENCE_SECONDS, "options": options}
    return sa.create_engine(url, poolclass=pool, connect_args=connecting)


def _add_functions(connection: Any, _record: object) -> None:
    """SQLite makes no plan for a function that it does not know; it does not call it either."""
    connection.create_function("hash_distance", 2, lambda _one, _other: 0, deterministic=True)


def _plan(connection: sa.Connection, slow: Slow) -> str:
    """How the database goes about it; empty if it does not say. Nothing is run."""
    if not _EXPLAINED.match(slow.sent):
        return ""
    parameters = slow.parameters
    if isinstance(parameters, list):  # many rows by one statement: any of them will do
        parameters = parameters[0] if parameters else ()
    try:
        with connection.begin():
            if connection.dialect.name == "sqlite":
                return _plan_of_sqlite(connection, slow.sent, parameters)
            rows = connection.exec_driver_sql(f"EXPLAIN {slow.sent}", parameters)
            return without_values("\n".join(row[0] for row in rows))[:MOST_TEXT]
    except sa.exc.SQLAlchemyError as error:
        return f"no plan: {type(error).__name__}"


def _plan_of_sqlite(connection: sa.Connection, statement: str, parameters: Any) -> str:
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    depth = {0: -1}
    lines = []
    for number, parent, _, detail in rows:
        depth[number] = depth.get(parent, -1) + 1
        lines.append(f"{'  ' * depth[number]}{_TEXTS.sub('?', detail)}")
    return "\n".join(lines)[:MOST_TEXT]


def _add(connection: sa.Connection, text: str, slow: Slow, plan: str) -> None:
    from sqlalchemy.dialects import postgresql, sqlite

    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    now = datetime.now(UTC)
    row = {
        "id": hashlib.sha256(text.encode()).hexdigest()[:16],
        "statement": text,
        "count": slow.count,
        "worst": slow.worst,
        "total": slow.total,
        "first_at": now,
        "last_at": now,
        "stage": slow.stage,
        "batch_id": slow.batch,
        "plan": plan,
    }
    statement = dialect.insert(slow_queries).values(row)
    old, new = slow_queries.c, statement.excluded
    is_worse = new.worst > old.worst
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["id"],
            set_={
                "count": old.count + new.count,
                "worst": sa.case((is_worse, new.worst), else_=old.worst),
                "total": old.total + new.total,
                "last_at": new.last_at,
                "stage": sa.case((is_worse, new.stage), else_=old.stage),
                "batch_id": sa.case((is_worse, new.batch_id), else_=old.batch_id),
                "plan": new.plan,
            },
        )
    )


def _prune(connection: sa.Connection) -> None:
    """Keep those that were slow last."""
    newest = (
        sa.select(slow_queries.c.id)
        .order_by(slow_queries.c.last_at.desc(), slow_queries.c.id)
        .limit(MOST_KEPT)
    )
    connection.execute(sa.delete(slow_queries).where(slow_queries.c.id.not_in(newest)))


def slowest(connection: sa.Connection, since: datetime, limit: int) -> list[dict[str, Any]]:
    """Statements that were slow since then, those that took the most time in all first."""
    query = (
        sa.select(slow_queries)
        .where(slow_queries.c.last_at >= since)
        .order_by(slow_queries.c.total.desc())
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def forget_before(connection: sa.Connection, before: datetime) -> int:
    """Remove statements that have not been slow since then; how many."""
    done = connection.execute(sa.delete(slow_queries).where(slow_queries.c.last_at < before))
    return done.rowcount
