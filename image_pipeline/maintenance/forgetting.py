"""Taking every mention of an upload out of documents and tables. Decisions only.

A name is mentioned by a text that holds it: ids of images are in the middle of URLs and keys.
Two uploads whose keys begin alike are told apart: a key ends where the text ends, or where no
key goes on.
"""

from __future__ import annotations

import gzip
import html
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import pyarrow as pa

#: Folders whose objects may mention an upload, all of which are looked at.
DOCUMENTS = ("batches/", "ledger/", "manifests/batches/", "manifests/deltas/", "manifests/warm/",
             "galleries/", "tables/", "plans/")  # fmt: skip

#: What is left of a document that is only about the upload.
EMPTY = b""

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"


@dataclass(frozen=True, slots=True)
class Names:
    """What must not be found any more: keys of uploads, and ids of images."""

    keys: tuple[str, ...]
    images: tuple[str, ...]

    def are_in(self, text: str) -> bool:
        """Whether a text is, or holds, one of the names."""
        if any(image in text for image in self.images):
            return True
        return any(_holds(text, key) or _holds(text, quote(key)) for key in self.keys)

    def may_be_in(self, data: bytes) -> bool:
        """Whether bytes may hold one of the names, in any of the ways they are written."""
        return any(form in data for form in self._forms)

    @property
    def _forms(self) -> list[bytes]:
        forms = list(self.images)
        for key in self.keys:
            forms += [key, quote(key), html.escape(key), json.dumps(key)[1:-1]]
        return [form.encode() for form in dict.fromkeys(forms)]


def _holds(text: str, key: str) -> bool:
    """Whether a text has a key in it that is not the beginning of a longer one."""
    return re.search(rf"{re.escape(key)}(?![\w./+%-])", text) is not None


def without(value: Any, names: Names) -> Any:
    """JSON without what mentions a name; None where that is the whole of it.

    Of a list the elements go that mention it in themselves, not deeper: an entry about another
    image that lists it stays, and lists it no more.
    """
    if isinstance(value, str):
        return None if names.are_in(value) else value
    if isinstance(value, list):
        kept = [without(one, names) for one in value]
        return [one for one, was in zip(kept, value, strict=True) if one is not None or was is None]
    if isinstance(value, dict):
        if any(isinstance(one, str) and names.are_in(one) for one in value.values()):
            return None
        return {
            key: without(one, names)
            for key, one in value.items()
            if not names.are_in(key) and (one is None or without(one, names) is not None)
        }
    return value


def without_rows(data: bytes, names: Names) -> tuple[bytes, int] | None:
    """A Parquet table without the rows that mention a name, and its rows; None if none does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(BytesIO(data))
    texts = [
        column
        for column in table.columns
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ]
    gone = {row for column in texts for row in _rows_with(column, names)}
    if not gone:
        return None
    left = table.filter(pa.array([row not in gone for row in range(table.num_rows)]))
    out = BytesIO()
    pq.write_table(left, out, compression="zstd")
    return out.getvalue(), left.num_rows


def _rows_with(column: pa.ChunkedArray, names: Names) -> list[int]:
    """The rows of a column that mention a name. Most of a table is passed over by Arrow."""
    import pyarrow.compute as pc

    found: list[int] = []
    for name in (*names.images, *names.keys, *map(quote, names.keys)):
        holds = pc.fill_null(pc.match_substring(column, name), False)
        rows = pc.indices_nonzero(holds).to_pylist()
        found += [row for row in rows if names.are_in(column[row].as_py())]
    return found


def rewritten(data: bytes, names: Names) -> bytes | None:
    """A document without what mentions a name; :data:`EMPTY` if it has to go; None if unchanged.

    JSON, also compressed, and Parquet are taken apart. Pages cannot be: they go, and are made
    again from the catalog.
    """
    if data.startswith(_PARQUET):
        table = without_rows(data, names)
        return None if table is None else table[0]
    if data.startswith(_GZIP):
        inner = rewritten(gzip.decompress(data), names)
        return gzip.compress(inner, mtime=0) if inner else inner
    if not names.may_be_in(data):
        return None
    try:
        value = json.loads(data)
    except ValueError:
        text = html.unescape(data.decode("utf-8", "replace"))
        return EMPTY if names.are_in(text) else None
    left = without(value, names)
    if left == value:
        return None
    return EMPTY if left is None else json.dumps(left, ensure_ascii=False).encode()


@dataclass(slots=True)
class Report:
    """What was looked at, removed and kept, and what was found when looked at again.

    ``pending`` says what has to happen before the rest can be removed; ``remains`` where
    something still is, which should be nowhere. ``urls`` are those to purge at the edge.
    """

    key: str
    source: str
    images: list[str] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether it is forgotten."""
        return not self.pending and not self.remains

    def as_json(self) -> dict[str, Any]:
        """For people and programs."""
        return {**asdict(self), "complete": self.complete}


def kept_because(others: Sequence[dict[str, Any]], image: str) -> str:
    """Why the picture of an upload stays."""
    first = others[0]
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return (
        f"image {image}: {first['key']} of source {first['source']}{more} has the same bytes, so"
        " its files and hashes stay"
    )


def as_names(keys: Iterable[str], images: Collection[str]) -> Names:
    """The names of what is to be forgotten."""
    return Names(tuple(sorted(set(keys))), tuple(sorted(images)))
