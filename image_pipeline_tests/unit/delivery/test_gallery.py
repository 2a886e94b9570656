from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_pipeline.delivery.gallery import GalleryItem, gallery_page
from image_pipeline.delivery.manifest import alias_manifest, image_manifest

from .helpers import PLACEHOLDER, a_variant, an_image, on_cdn

NOW = datetime(2026, 11, 21, 8, 16, tzinfo=UTC)
VOID = {"meta", "link", "img", "input"}

#: The attributes that may hold a name.
NAMED = ("title", "aria-label")

HOSTILE = [
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>.jpg',
    "' onmouseover='alert(1)",
    "</title></style></script><svg onload=alert(1)>",
    "<!--",
    "]]>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "a\nb\r\n\t\x00.jpg",
    "\u202egpj.exe\u2028",
    "&lt;b&gt;&quot;",
    "`${alert(1)}`\\u003c/script>",
    "",
    "/",
    "\ud800.jpg",
]


class Page(HTMLParser):
    """A page taken apart by the standard library."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.shape: list[tuple[str, ...]] = []
        self.raw: dict[tuple[str, str | None], str] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, "an element is left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), "an attribute is there twice"
        self.text += " "
        self.elements.append((tag, dict(attrs)))
        self.shape.append((tag, *(name for name, _ in attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag
            self.shape.append((f"/{tag}",))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"comment: {data!r}")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            kind = (self._open[-1], self.elements[-1][1].get("type"))
            self.raw[kind] = self.raw.get(kind, "") + data
        else:
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def policy(self) -> dict[str, list[str]]:
        (meta,) = self.all("meta", **{"http-equiv": "Content-Security-Policy"})
        directives = [part.split() for part in str(meta["content"]).split(";")]
        return {name: sources for name, *sources in directives}


IMAGE = an_image(
    a_variant("avif", 640, 427, 30_000),
    a_variant("avif", 1024, 683, 80_000, size="medium"),
    a_variant("avif", 2560, 1707, 400_000, size="xlarge"),
    a_variant("jpeg", 1024, 683, 160_000, size="medium"),
    a_variant("jpeg", 2560, 1707, 800_000, size="xlarge"),
    a_variant("jpeg", 400, 300, 20_000, size="thumbnail", role="thumbnail"),
    aliases=("b2",),
)
MANIFEST = image_manifest(IMAGE, on_cdn)


def item(key: str, verdict: str = "accepted", reason: str = "", **changes: Any) -> GalleryItem:
    published = verdict in ("accepted", "duplicate")
    fields: dict[str, Any] = {
        "message": "",
        "width": 3000,
        "height": 2000,
        "bytes_in": 4_000_000,
        "seconds": 0.5,
        "manifest": MANIFEST if published else None,
        "thumbnail": b"webp" if published else None,
        "thumbnail_format": "webp" if published else "",
    }
    return GalleryItem(key, verdict, reason, **{**fields, **changes})


def page_of(*items: GalleryItem, title: str = "Batch 1") -> Page:
    return Page(gallery_page(title, items, generated_at=NOW))


def one_of_each(name: str) -> list[GalleryItem]:
    """Uploads of every verdict with ``name`` wherever a foreign text may stand."""
    text = name or "x"
    alias = alias_manifest(MANIFEST, "b2")
    return [
        item(f"uploads/{name}", message=text),
        item(f"uploads/{name}", "duplicate", "picture", message=text, manifest=alias),
        item(f"uploads/{name}", "rejected", text, message=text),
        item(f"uploads/{name}", "failed", text, message=text),
    ]


def check_that_only_text_changes(name: str) -> None:
    """The page has the elements, attributes, styles and scripts of one with a plain name."""

    def without_names(page: Page) -> list[tuple[str, dict[str, str | None]]]:
        return [
            (tag, {key: value for key, value in attributes.items() if key not in NAMED})
            for tag, attributes in page.elements
        ]

    plain = page_of(*one_of_each("x"), title="x")
    page = page_of(*one_of_each(name), title=name)
    assert page.shape == plain.shape
    assert page.raw == plain.raw
    assert without_names(page) == without_names(plain)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_text(name: str) -> None:
    check_that_only_text_changes(name)


@settings(max_examples=40)
@given(st.text(st.sampled_from("<>&\"'`=/ \n\\;:-!{}%#\u202ea"), max_size=20))
def test_no_name_breaks_out(name: str) -> None:
    check_that_only_text_changes(name)


def test_a_name_is_shown_as_it_is_and_direction_overrides_are_written_out() -> None:
    page = page_of(item("uploads/a/<b>sea.jpg"), item("uploads/a/\u202egpj.exe", "rejected", "x"))
    assert [found["title"] for found in page.all("h3")] == ["uploads/a/<b>sea.jpg"]
    assert "<b>sea.jpg" in page.text
    assert "‹U+202E›gpj.exe" in page.text
    assert "\u202e" not in page.text


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)//https://cdn.test/",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "//evil.test/x.avif",
        "https://evil.test;script-src *",
        "https://user@evil.test/x",
        "https://[evil/x",
        "",
    ],
)
def test_only_web_addresses_become_links_or_sources(url: str) -> None:
    variants = [{**variant, "url": url} for variant in MANIFEST["variants"]]
    page = page_of(item("a.jpg", manifest={**MANIFEST, "variants": variants}))
    assert page.all("a") == []
    assert json.loads(page.raw["script", "application/json"]) == [
        {"width": 0, "height": 0, "sources": [], "files": {}}
    ]
    assert page.policy["img-src"] == ["data:"]
    assert list(page.policy) == [
        "default-src", "img-src", "style-src", "script-src", "base-uri", "form-action",
    ]  # fmt: skip


def test_json_in_the_page_cannot_end_its_script() -> None:
    evil = "https://cdn.test/</script><!--<script>&\u2028'"
    variants = [{**MANIFEST["variants"][0], "url": evil}]
    text = gallery_page(
        "t", [item("a.jpg", manifest={**MANIFEST, "variants": variants})], generated_at=NOW
    )
    raw = Page(text).raw["script", "application/json"]
    assert not set("<>&\u2028") & set(raw)
    assert list(json.loads(raw)[0]["files"]) == [evil]


def test_the_policy_allows_this_page_and_nothing_else() -> None:
    other = image_manifest(IMAGE, lambda key: f"http://127.0.0.1:4566/images/{key}")
    page = page_of(item("a.jpg"), item("b.jpg", manifest=other))
    hashes = {
        kind: base64.b64encode(hashlib.sha256(page.raw[kind, None].encode()).digest()).decode()
        for kind in ("style", "script")
    }
    assert page.policy == {
        "default-src": ["'none'"],
        "img-src": ["data:", "http://127.0.0.1:4566", "https://cdn.test"],
        "style-src": [f"'sha256-{hashes['style']}'"],
        "script-src": [f"'sha256-{hashes['script']}'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }


def test_nothing_is_loaded_and_nothing_needs_an_inline_style_or_handler() -> None:
    page = page_of(*one_of_each("sea.jpg"))
    for tag, attributes in page.elements:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "action", "background", "poster"):
            assert str(attributes.get(name, "data:")).startswith("data:"), tag
    assert all(str(link["href"]).startswith("data:") for link in page.all("link"))
    assert "@import" not in page.raw["style", None]
    addresses = re.findall(r"url\(([^)]*)\)", page.raw["style", None])
    assert addresses == [PLACEHOLDER, PLACEHOLDER]


def test_every_picture_has_its_size_and_its_thumbnail_inside() -> None:
    (img,) = page_of(item("a.jpg")).all("img")
    assert img == {
        "src": "data:image/webp;base64,d2VicA==",
        "width": "400",
        "height": "300",
        "alt": "",
        "loading": "lazy",
        "decoding": "async",
    }


@pytest.mark.parametrize("changes", [{"thumbnail": None}, {"thumbnail_format": "svg+xml"}])
def test_what_is_not_embedded_is_linked(changes: Mapping[str, Any]) -> None:
    shown = item("a.jpg", **changes)
    assert shown.manifest is not None
    urls = {one["url"] for one in shown.manifest["variants"] if one["role"] == "thumbnail"}
    (img,) = page_of(shown).all("img")
    assert img["src"] in urls
    assert (img["width"], img["height"]) == ("400", "300")


def test_without_a_thumbnail_there_is_no_picture() -> None:
    shown = item("a.jpg", thumbnail=None)
    assert shown.manifest is not None
    variants = [one for one in shown.manifest["variants"] if one["role"] != "thumbnail"]
    page = page_of(item("a.jpg", thumbnail=None, manifest={**shown.manifest, "variants": variants}))
    assert page.all("img") == []
    assert "No thumbnail" in page.text


def test_the_lead_says_what_a_phone_loads() -> None:
    # The files nearest to 1080 pixels across are those of 1024: 80 kB of AVIF, 160 of JPEG.
    words = page_of(item("a.jpg"), item("b.jpg", "duplicate", "bytes")).words
    assert "A visitor’s phone loads 80 kB of AVIF instead of the 4.0 MB uploaded." in words
    assert "Uploaded 4.0 MB JPEG 160 kB −96 % AVIF 80 kB −98 %" in words


def test_a_picture_without_the_format_counts_with_its_next_best() -> None:
    jpeg = image_manifest(an_image(a_variant("jpeg", 1024, 683, 200_000), id="c3"), on_cdn)
    words = page_of(item("a.jpg"), item("b.jpg", manifest=jpeg)).words
    assert "To show all 2 pictures, a visitor’s phone loads 280 kB of AVIF" in words
    assert "Uploaded 8.0 MB JPEG 360 kB −95 % AVIF 280 kB −96 %" in words


def test_a_browser_without_avif_is_not_credited_with_it() -> None:
    files = {"avif": 50_000, "webp": 70_000, "jpeg": 100_000}
    three = an_image(*(a_variant(kind, 1024, 683, size) for kind, size in files.items()), id="c3")
    words = page_of(item("a.jpg"), item("b.jpg", manifest=image_manifest(three, on_cdn))).words
    assert "JPEG 260 kB −96 % WebP 230 kB −97 % AVIF 130 kB −98 %" in words


def test_a_card_compares_the_largest_files_with_the_upload() -> None:
    words = page_of(item("a.jpg")).words
    assert "accepted 3000 × 2000 · 4.0 MB" in words
    assert "against the upload AVIF 400 kB −90 % JPEG 800 kB −80 %" in words


def test_totals_count_every_verdict_and_hide_failures_that_did_not_happen() -> None:
    some = [item("a.jpg"), item("b.jpg", "duplicate", "bytes"), item("c.pdf", "rejected", "x")]
    words = page_of(*some).words
    assert "Uploads 3 12 MB" in words
    assert "Duplicates 1 4.0 MB, nothing rendered twice" in words
    assert "Failed" not in words
    assert "Failed 1" in page_of(*some, item("d.jpg", "failed", "download")).words


def cards(page: Page) -> list[tuple[str | None, str | None]]:
    return [(found["id"], found["data-verdict"]) for found in page.all("li")]


def links(page: Page) -> list[str]:
    hrefs = [str(found["href"]) for found in page.all("a")]
    return [href for href in hrefs if href.startswith("#")]


def test_duplicates_stand_behind_their_canonical_and_both_link_to_each_other() -> None:
    other = image_manifest(an_image(id="c3"), on_cdn)
    page = page_of(
        item("copy.jpg", "duplicate", "bytes"),
        item("other.jpg", manifest=other),
        item("sea.jpg"),
    )
    assert [found["title"] for found in page.all("h3")] == ["sea.jpg", "copy.jpg", "other.jpg"]
    assert cards(page) == [
        ("item-0", "accepted"), ("item-1", "duplicate"), ("item-2", "accepted"),
    ]  # fmt: skip
    assert links(page) == ["#item-1", "#item-0"]
    assert "Stands for copy.jpg" in page.words
    assert "Same bytes as sea.jpg" in page.words


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        ("bytes", "Same bytes as one uploaded earlier"),
        ("pixels", "Same pixels as one uploaded earlier"),
        ("picture", "Same picture as one uploaded earlier"),
        ("?", "Duplicate of one uploaded earlier"),
    ],
)
def test_a_duplicate_of_an_earlier_batch_says_so(tier: str, words: str) -> None:
    page = page_of(item("copy.jpg", "duplicate", tier))
    assert words in page.words
    assert links(page) == []


def test_refusals_are_a_table_with_their_reasons() -> None:
    page = page_of(item("a/x.pdf", "rejected", "not_an_image", message="starts with %PDF", width=0))
    assert "x.pdf rejected not_an_image starts with %PDF – 4.0 MB" in page.words
    assert [found["data-verdict"] for found in page.all("tr") if found] == ["rejected"]
    assert cards(page) == []


def test_the_viewer_gets_real_widths_and_a_word_on_each_file() -> None:
    (view,) = json.loads(page_of(item("a.jpg")).raw["script", "application/json"])
    assert (view["width"], view["height"]) == (2560, 1707)
    assert view["sources"] == [
        {"type": "image/avif", "srcset": MANIFEST["srcset"]["avif"]},
        {"type": "image/jpeg", "srcset": MANIFEST["srcset"]["jpeg"]},
    ]
    url = on_cdn("variants/a1/medium-1024x683.f00.jpeg")
    assert view["files"][url].replace("\u00a0", " ") == "JPEG, 1024 × 683, 160 kB"


def test_what_the_page_points_to_is_there() -> None:
    page = page_of(*one_of_each("sea.jpg"))
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    targets = [href.removeprefix("#") for href in links(page)]
    for name in ("for", "aria-labelledby"):
        targets += [str(found[name]) for _, found in page.elements if name in found]
    assert set(targets) <= set(ids)
    wanted = set(re.findall(r'byId\("([a-z-]+)"\)', page.raw["script", None]))
    assert wanted <= set(ids)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [item("x.pdf", "rejected", "not_an_image")],
        [item("a.jpg", manifest=None)],
        [item("a.jpg", manifest=image_manifest(an_image(), on_cdn), bytes_in=0)],
    ],
)
def test_a_batch_that_published_nothing_has_a_page_without_a_lead(
    items: Sequence[GalleryItem],
) -> None:
    assert "phone" not in page_of(*items).words


def test_the_page_is_the_same_every_time_and_storable() -> None:
    once, again = (gallery_page("\ud800", one_of_each("é"), generated_at=NOW) for _ in range(2))
    assert once == again
    assert once.encode("utf-8")


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        gallery_page("t", [], generated_at=NOW.replace(tzinfo=None))
