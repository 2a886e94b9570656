"""Pages of an index and the pointer that names them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.delivery.index import (
    Entry,
    Page,
    best_thumbnail,
    index_page,
    numbers_of,
    page_of,
    pages_of,
    source_index,
)

from .helpers import on_cdn

ENTRY = Entry("a1", "a1", "https://cdn.test/m/a1.json", 3000, 2000, "#336699", None, 2)


def key_of(number: int, page: Page) -> str:
    return f"pages/{number}.{page.name}"


def test_a_page_in_full() -> None:
    alias = replace(ENTRY, id="b2", thumbnail="https://cdn.test/t.webp")
    page, data = index_page("photos", 3, [ENTRY, alias])
    common = {
        "canonical": "a1",
        "manifest": "https://cdn.test/m/a1.json",
        "width": 3000,
        "height": 2000,
        "aspect_ratio": 1.5,
        "dominant_color": "#336699",
        "uploads": 2,
    }
    assert json.loads(data) == {
        "schema_version": 1,
        "source": "photos",
        "page": 3,
        "images": [
            {"id": "a1", "thumbnail": None, **common},
            {"id": "b2", "thumbnail": "https://cdn.test/t.webp", **common},
        ],
    }
    digest = hashlib.sha256(data).hexdigest()
    assert page == Page(digest, 2, 1)
    assert page.name == digest[:16]


def test_the_pointer_in_full() -> None:
    pages = {7: Page("7" * 64, 999, 900), 0: Page("0" * 64, 1000, 1000), 3: Page("3" * 64, 0, 0)}
    assert source_index("photos", pages, key_of, on_cdn) == {
        "schema_version": 1,
        "source": "photos",
        "page_images": 1000,
        "pages": [
            {
                "page": number,
                "key": f"pages/{number}.{str(number) * 16}",
                "url": f"https://cdn.test/pages/{number}.{str(number) * 16}",
                "sha256": str(number) * 64,
                "images": images,
                "canonicals": canonicals,
            }
            for number, images, canonicals in ((0, 1000, 1000), (7, 999, 900))
        ],
        "totals": {"pages": 2, "images": 1999, "canonicals": 1900},
    }


def test_an_index_of_nothing() -> None:
    pointer = source_index("photos", {}, key_of, on_cdn)
    assert (pointer["pages"], set(pointer["totals"].values())) == ([], {0})


@pytest.mark.parametrize(
    ("number", "page"), [(1, 0), (2, 0), (1000, 0), (1001, 1), (2000, 1), (1_000_000, 999)]
)
def test_a_thousand_images_share_a_page(number: int, page: int) -> None:
    assert page_of(number) == page


@given(st.integers(1, 10**9))
def test_every_image_has_one_place(number: int) -> None:
    page = page_of(number)
    assert number in numbers_of(page)
    assert number not in numbers_of(page + 1)
    assert len(numbers_of(page)) == 1000


@given(
    st.dictionaries(
        st.integers(0, 2000),
        st.builds(
            Page, st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(1, 1000),
            st.integers(0, 1000),
        ),
    )
)  # fmt: skip
def test_the_pointer_keeps_all_that_is_known_of_its_pages(pages: dict[int, Page]) -> None:
    pointer = source_index("photos", pages, key_of, on_cdn)
    assert pages_of(json.loads(json.dumps(pointer))) == pages


def test_pages_of_another_size_are_not_taken_over() -> None:
    pointer = source_index("photos", {0: Page("0" * 64, 500, 500)}, key_of, on_cdn)
    assert pages_of({**pointer, "page_images": 500}) == {}


@given(st.integers(2, 50), st.data())
def test_one_image_more_or_less_is_another_page(count: int, data: st.DataObject) -> None:
    entries = [replace(ENTRY, id=f"{number:064x}") for number in range(count)]
    left_out = data.draw(st.integers(0, count - 1))
    page, _ = index_page("photos", 0, entries)
    assert index_page("photos", 0, list(entries))[0] == page
    other, _ = index_page("photos", 0, entries[:left_out] + entries[left_out + 1 :])
    assert other.digest != page.digest


def test_the_thumbnail_of_a_list_is_one_that_every_browser_reads() -> None:
    def row(kind: str, width: int) -> dict[str, object]:
        return {"key": f"{width}.{kind}", "format": kind, "width": width}

    several = [row("avif", 400), row("jpeg", 400), row("webp", 96), row("webp", 400)]
    assert best_thumbnail(several) == "400.webp"
    assert best_thumbnail(several[:2]) == "400.jpeg"
    assert best_thumbnail(several[:1]) == "400.avif"
    assert best_thumbnail([]) is None
