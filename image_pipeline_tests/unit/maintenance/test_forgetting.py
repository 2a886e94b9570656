"""What is taken out of a document, and what is not."""

import gzip
import io
import json

import pandas as pd
import pytest

from image_pipeline.maintenance.forgetting import EMPTY, Names, rewritten, without

IMAGE, OTHER = "ab" * 32, "cd" * 32
NAMES = Names(("up/a b.jpg",), (IMAGE,))


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("up/a b.jpg", None),
        ("https://edge/up/a%20b.jpg", None),
        ("up/a b.jpg.png", "up/a b.jpg.png"),
        ("up/a b.jpg2", "up/a b.jpg2"),
        (f"https://edge/variants/{IMAGE}/x.webp?v=1", None),
        ([1, None, "up/a b.jpg", OTHER], [1, None, OTHER]),
        (
            {"uploads": [{"key": "up/a b.jpg", "n": 1}, {"key": "b", "same": [IMAGE, OTHER]}]},
            {"uploads": [{"key": "b", "same": [OTHER]}]},
        ),
        ({IMAGE: 1, OTHER: {"x": None}}, {OTHER: {"x": None}}),
        ({"id": IMAGE, "rest": [1]}, None),
        ({"a": {"key": "up/a b.jpg"}, "b": 2}, {"b": 2}),
        (True, True),
    ],
)
def test_what_is_left_of_json(value, left):
    assert without(value, NAMES) == left


def test_documents_of_every_kind():
    data = json.dumps({"keys": ["up/a b.jpg", "x"]}).encode()
    assert json.loads(rewritten(data, NAMES)) == {"keys": ["x"]}
    packed = rewritten(gzip.compress(data), NAMES)
    assert json.loads(gzip.decompress(packed)) == {"keys": ["x"]}
    assert rewritten(b'{"keys": ["x"]}', NAMES) is None
    assert rewritten(b"<p>up/a b.jpg</p>", NAMES) == EMPTY
    assert rewritten(b"<p>somebody</p>", NAMES) is None
    assert rewritten(json.dumps({"id": IMAGE}).encode(), NAMES) == EMPTY
    escaped = json.dumps({"keys": ["ü/'.jpg", "x"]}).encode()
    assert json.loads(rewritten(escaped, Names(("ü/'.jpg",), ()))) == {"keys": ["x"]}


def test_rows_of_tables():
    table = io.BytesIO()
    frame = pd.DataFrame(
        {"key": ["up/a b.jpg", "up/a b.jpg.png", None], "image": ["-", f"x/{OTHER}", IMAGE]}
    )
    frame.to_parquet(table, index=False)
    left = pd.read_parquet(io.BytesIO(rewritten(table.getvalue(), NAMES)))
    assert left["key"].tolist() == ["up/a b.jpg.png"]
    assert rewritten(rewritten(table.getvalue(), NAMES), NAMES) is None
