from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.delivery.urls import url_builder

BUCKET = "https://images.s3.test"


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("variants/a1/small-640x427.f00.avif", "variants/a1/small-640x427.f00.avif"),
        ("a b/c,d.jpg", "a%20b/c%2Cd.jpg"),
        ("50%/x?y#z.jpg", "50%25/x%3Fy%23z.jpg"),
        ("été/\u6d77.jpg", "%C3%A9t%C3%A9/%E6%B5%B7.jpg"),
        ('"><script>.jpg', "%22%3E%3Cscript%3E.jpg"),
        ("a:b@c+d&e=f.jpg", "a%3Ab%40c%2Bd%26e%3Df.jpg"),
    ],
)
def test_each_segment_is_quoted(key: str, path: str) -> None:
    assert url_builder(None, BUCKET)(key) == f"{BUCKET}/{path}"


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (None, "https://images.s3.test/k"),
        ("", "https://images.s3.test/k"),
        ("https://cdn.test", "https://cdn.test/k"),
        ("https://cdn.test/img/", "https://cdn.test/img/k"),
    ],
)
def test_the_base_url_goes_before_the_bucket_url(base: str | None, expected: str) -> None:
    assert url_builder(base, "https://images.s3.test/")("k") == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_url_names_its_key_and_fits_into_a_srcset(key: str) -> None:
    url = url_builder(None, BUCKET)(key)
    assert unquote(url.removeprefix(f"{BUCKET}/"), errors="strict") == key
    assert url.isascii()
    assert not set(url) & set(" ,\t\n\r\f\"'<>`")
