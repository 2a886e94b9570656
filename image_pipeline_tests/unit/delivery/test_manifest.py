from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.delivery.manifest import (
    BatchUpload,
    Variant,
    alias_manifest,
    batch_manifest,
    image_manifest,
    picture_html,
    to_json,
    warm_list,
)

from .helpers import PLACEHOLDER, a_variant, an_image, on_cdn

AVIF = a_variant("avif", 640, 427, 20_000)
JPEG = a_variant("jpeg", 640, 427, 40_000)
LARGE = a_variant("jpeg", 1920, 1280, 300_000, size="large")
LARGE_AVIF = a_variant("avif", 1920, 1280, 150_000, size="large")
THUMB = a_variant("jpeg", 400, 400, 15_000, size="thumbnail", role="thumbnail")


def entry(role: str, size: str, kind: str, width: int, height: int, weight: int) -> object:
    key = f"variants/a1/{size}-{width}x{height}.f00.{kind}"
    return {
        "role": role,
        "size": size,
        "format": kind,
        "mime": f"image/{kind}",
        "width": width,
        "height": height,
        "bytes": weight,
        "sha256": "5e",
        "key": key,
        "url": f"https://cdn.test/{key}",
    }


def test_an_image_manifest_in_full() -> None:
    image = an_image(
        THUMB,
        LARGE,
        JPEG,
        AVIF,
        LARGE_AVIF,
        uploads=("uploads/photos/sea.jpg", "uploads/photos/a.jpg"),
        aliases=("c3", "b2"),
        focal_point=(0.25, 0.75),
        thumbhash="3OcRJYB4d3h/iIeHeEh3eIhw+j3A",
    )
    small, large = "variants/a1/small-640x427.f00", "variants/a1/large-1920x1280.f00"
    jpegs = f"https://cdn.test/{small}.jpeg 640w, https://cdn.test/{large}.jpeg 1920w"
    avifs = f"https://cdn.test/{small}.avif 640w, https://cdn.test/{large}.avif 1920w"
    assert image_manifest(image, on_cdn, "50vw") == {
        "schema_version": 1,
        "id": "a1",
        "source": "photos",
        "access": "public",
        "canonical": "a1",
        "aliases": ["b2", "c3"],
        "uploads": ["uploads/photos/a.jpg", "uploads/photos/sea.jpg"],
        "width": 3000,
        "height": 2000,
        "aspect_ratio": 1.5,
        "has_alpha": False,
        "animated": False,
        "dominant_color": "#336699",
        "placeholder": PLACEHOLDER,
        "thumbhash": "3OcRJYB4d3h/iIeHeEh3eIhw+j3A",
        "focal_point": {"x": 0.25, "y": 0.75},
        "variants": [
            entry("responsive", "small", "avif", 640, 427, 20_000),
            entry("responsive", "large", "avif", 1920, 1280, 150_000),
            entry("responsive", "small", "jpeg", 640, 427, 40_000),
            entry("responsive", "large", "jpeg", 1920, 1280, 300_000),
            entry("thumbnail", "thumbnail", "jpeg", 400, 400, 15_000),
        ],
        "srcset": {"avif": avifs, "jpeg": jpegs},
        "sizes": "50vw",
        "src": f"https://cdn.test/{small}.jpeg",
        "html": (
            '<picture><source type="image/avif"'
            f' srcset="{avifs}" sizes="50vw">'
            f'<img src="https://cdn.test/{small}.jpeg" srcset="{jpegs}" sizes="50vw"'
            ' width="640" height="427" alt="" loading="lazy" decoding="async"'
            f' style="background:#336699 url({PLACEHOLDER}) center/cover no-repeat"></picture>'
        ),
    }


def test_the_aspect_ratio_has_four_places() -> None:
    assert image_manifest(an_image(JPEG, width=4000, height=2250), on_cdn)["aspect_ratio"] == 1.7778


variants = st.builds(
    lambda role, kind, width, weight, number: Variant(
        role, "s", kind, width, 100, weight, "5e", f"{role}/{kind}/{width}/{number}"
    ),
    st.sampled_from(["responsive", "thumbnail"]),
    st.sampled_from(["avif", "webp", "jpeg"]),
    st.sampled_from([320, 640, 641, 1024, 1920, 10_000]) | st.integers(1, 16_383),
    st.integers(1, 10**7),
    st.integers(0, 3),
)
images = st.lists(variants, max_size=15, unique_by=lambda one: one.key)


def has_format(some: list[Variant], kind: str) -> bool:
    return any(one.format == kind for one in some)


@given(images)
def test_srcsets_ascend_in_real_widths_without_repeating_one(some: list[Variant]) -> None:
    srcset = image_manifest(an_image(*some), on_cdn)["srcset"]
    shown = [one for one in some if one.role == "responsive"]
    every = {one.width for one in shown}
    oldest = next((kind for kind in ("jpeg", "webp", "avif") if has_format(shown, kind)), None)
    assert set(srcset) == {
        kind
        for kind in ("avif", "webp", "jpeg")
        if has_format(shown, kind)
        and (kind == oldest or {one.width for one in shown if one.format == kind} == every)
    }
    for name, text in srcset.items():
        candidates = [candidate.split(" ") for candidate in text.split(", ")]
        widths = [int(descriptor.removesuffix("w")) for _, descriptor in candidates]
        assert widths == sorted({one.width for one in shown if one.format == name})
        for url, descriptor in candidates:
            (file,) = (one for one in shown if on_cdn(one.key) == url)
            assert (file.format, f"{file.width}w") == (name, descriptor)


def test_a_format_without_the_widest_file_is_not_offered() -> None:
    """A browser that prefers it would enlarge a narrower file."""
    manifest = image_manifest(an_image(AVIF, JPEG, LARGE), on_cdn)
    assert set(manifest["srcset"]) == {"jpeg"}
    assert "avif" not in manifest["html"]
    assert {one["format"] for one in manifest["variants"]} == {"avif", "jpeg"}
    wide_thumbnail = a_variant("webp", 3000, 3000, 9, role="thumbnail")
    srcset = image_manifest(an_image(AVIF, JPEG, wide_thumbnail), on_cdn)["srcset"]
    assert set(srcset) == {"avif", "jpeg"}, "thumbnails do not count"


def test_a_format_with_a_gap_is_not_offered() -> None:
    """Its file was no smaller than the next format's; a browser would load the wider one."""
    avif = [a_variant("avif", width, 100, 50, key=f"avif-{width}") for width in (640, 1920)]
    jpeg = [a_variant("jpeg", width, 100, 60, key=f"jpeg-{width}") for width in (640, 1024, 1920)]
    assert set(image_manifest(an_image(*avif, *jpeg), on_cdn)["srcset"]) == {"jpeg"}
    whole = a_variant("avif", 1024, 100, 50, key="avif-1024")
    assert set(image_manifest(an_image(*avif, whole, *jpeg), on_cdn)["srcset"]) == {"avif", "jpeg"}


def test_of_two_files_of_one_width_the_smaller_is_offered() -> None:
    heavy = a_variant("jpeg", 500, 400, 9_000, key="heavy")
    light = a_variant("jpeg", 500, 400, 8_000, key="light")
    for order in ((heavy, light), (light, heavy)):
        assert image_manifest(an_image(*order), on_cdn)["srcset"] == {
            "jpeg": "https://cdn.test/light 500w"
        }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([("jpeg", 640), ("jpeg", 1280), ("jpeg", 1281), ("avif", 1000)], "jpeg-1280"),
        ([("jpeg", 1920), ("jpeg", 2560)], "jpeg-1920"),
        ([("webp", 640), ("avif", 1024)], "webp-640"),
        ([("avif", 1024), ("avif", 640)], "avif-1024"),
    ],
)
def test_the_fallback(files: list[tuple[str, int]], expected: str) -> None:
    some = [a_variant(name, width, 9, 1, key=f"{name}-{width}") for name, width in files]
    manifest = image_manifest(an_image(*some), on_cdn)
    assert manifest["src"] == f"https://cdn.test/{expected}"
    (img,) = (attributes for tag, attributes in parse(manifest["html"]) if tag == "img")
    assert img["width"] == expected.split("-")[1]


def test_thumbnails_are_a_fallback_only_when_there_is_nothing_else() -> None:
    manifest = image_manifest(an_image(THUMB), on_cdn)
    assert manifest["src"] == "https://cdn.test/variants/a1/thumbnail-400x400.f00.jpeg"
    assert [tag for tag, _ in parse(manifest["html"])] == ["picture", "img"]
    assert "srcset" not in manifest["html"]


def test_an_image_without_files() -> None:
    manifest = image_manifest(an_image(), on_cdn)
    assert (manifest["variants"], manifest["srcset"]) == ([], {})
    assert (manifest["src"], manifest["html"]) == (None, "")


def test_an_alias_has_its_own_id_and_everything_else_of_its_canonical() -> None:
    manifest = image_manifest(an_image(JPEG, aliases=("b2",)), on_cdn)
    alias = alias_manifest(manifest, "b2")
    assert (alias["id"], alias["canonical"], manifest["id"]) == ("b2", "a1", "a1")
    assert {**alias, "id": "a1"} == manifest
    with pytest.raises(ValueError, match="zz is no alias of a1"):
        alias_manifest(manifest, "zz")


def test_a_batch_manifest_in_full() -> None:
    image = an_image(JPEG, THUMB, aliases=("b2",))
    document = batch_manifest(
        "photos-1",
        "photos",
        [image],
        [
            BatchUpload("u/z.jpg", "e1", 900, "accepted", image_id="a1"),
            BatchUpload("u/b.jpg", "e2", 500, "duplicate", "picture", image_id="b2"),
            BatchUpload("u/a.pdf", "e3", 70, "rejected", "not_an_image", "starts with %PDF"),
            BatchUpload("u/c.jpg", "e4", 30, "failed", "download", "503", image_id="d4"),
        ],
        "manifests/{}.json".format,
    )
    assert document == {
        "schema_version": 1,
        "batch": "photos-1",
        "source": "photos",
        "uploads": [
            upload("u/a.pdf", "e3", 70, "rejected", "not_an_image", "starts with %PDF"),
            upload("u/b.jpg", "e2", 500, "duplicate", "picture", None, "b2", "a1"),
            upload("u/c.jpg", "e4", 30, "failed", "download", "503", "d4"),
            upload("u/z.jpg", "e1", 900, "accepted", None, None, "a1", "a1"),
        ],
        "images": [{"id": "a1", "manifest": "manifests/a1.json", "variants": 2, "bytes": 55_000}],
        "totals": {
            "uploads": 4,
            "accepted": 1,
            "duplicate": 1,
            "rejected": 1,
            "failed": 1,
            "bytes_in": 1500,
            "images": 1,
            "variants": 2,
            "bytes_out": 55_000,
        },
    }


def upload(
    key: str,
    etag: str,
    weight: int,
    verdict: str,
    reason: str | None,
    message: str | None,
    image: str | None = None,
    canonical: str | None = None,
) -> dict[str, object]:
    return {
        "key": key,
        "etag": etag,
        "bytes": weight,
        "verdict": verdict,
        "reason": reason,
        "message": message,
        "image": image,
        "canonical": canonical,
        "manifest": f"manifests/{image}.json" if canonical else None,
    }


def test_the_warm_list_starts_with_what_most_visitors_ask_for() -> None:
    # 1560 is nearer to 1080 than 640 by ratio, though not by difference.
    sizes = (640, 1024, 1560, 2560)
    one = an_image(
        *(a_variant("avif", width, 9, width, key=f"one-avif-{width}") for width in sizes),
        a_variant("jpeg", 400, 400, 15, role="thumbnail", key="one-thumb-jpeg"),
        a_variant("avif", 400, 400, 9, role="thumbnail", key="one-thumb-avif"),
    )
    two = an_image(
        a_variant("jpeg", 500, 9, 50, key="two-jpeg-500"),
        a_variant("avif", 900, 9, 90, key="two-avif-900"),
        a_variant("jpeg", 400, 400, 16, role="thumbnail", key="two-thumb-jpeg"),
    )
    expected = [
        ("one-thumb-avif", 9, 0),
        ("one-thumb-jpeg", 15, 1),
        ("two-thumb-jpeg", 16, 1),
        ("one-avif-1024", 1024, 2),
        ("two-avif-900", 90, 2),
        ("one-avif-1560", 1560, 3),
        ("one-avif-640", 640, 4),
        ("one-avif-2560", 2560, 5),
        ("two-jpeg-500", 50, 6),
    ]
    entries = warm_list([two, one, two], on_cdn)
    assert entries == [
        {
            "url": f"https://cdn.test/{key}",
            "key": key,
            "bytes": size,
            "rank": rank,
            "image": (one if key.startswith("one") else two).id,
        }
        for key, size, rank in expected
    ]
    assert json.loads(to_json(entries)) == entries


def test_no_images_no_warm_list() -> None:
    assert warm_list([], on_cdn) == []


def parse(html: str) -> list[tuple[str, dict[str, str | None]]]:
    found: list[tuple[str, dict[str, str | None]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert len(dict(attrs)) == len(attrs), "an attribute is there twice"
            found.append((tag, dict(attrs)))

        def handle_data(self, data: str) -> None:
            raise AssertionError(f"text: {data!r}")

    parser = Parser()
    parser.feed(html)
    parser.close()
    return found


@given(st.text(), st.text(), st.text(min_size=1))
def test_nothing_breaks_out_of_the_markup(alt: str, sizes: str, key: str) -> None:
    image = an_image(a_variant("avif", 640, 427, 1, key=key), JPEG)
    manifest = image_manifest(image, lambda key: f"https://cdn.test/?{key}", sizes)
    (_, _), (_, source), (_, img) = parsed = parse(picture_html(manifest, alt))
    assert [tag for tag, _ in parsed] == ["picture", "source", "img"]
    assert source == {
        "type": "image/avif",
        "srcset": f"https://cdn.test/?{key} 640w",
        "sizes": sizes,
    }
    assert (img["alt"], img["sizes"]) == (alt, sizes)


def test_quotes_and_ampersands_are_escaped() -> None:
    html = picture_html(image_manifest(an_image(JPEG), on_cdn), "\"><script>'&amp;")
    assert ' alt="&quot;&gt;&lt;script&gt;&#x27;&amp;amp;" ' in html


def test_formats_come_in_the_order_of_preference() -> None:
    some = [a_variant(name, 640, 427, 1) for name in ("jpeg", "webp", "avif")]
    tags = parse(image_manifest(an_image(*some), on_cdn)["html"])
    assert [attributes.get("type") for _, attributes in tags] == [
        None,
        "image/avif",
        "image/webp",
        None,
    ]


def test_no_placeholder_behind_transparency() -> None:
    assert "style" not in image_manifest(an_image(JPEG, has_alpha=True), on_cdn)["html"]


@pytest.mark.parametrize(
    ("color", "placeholder", "style"),
    [
        ("red;position:fixed", "", None),
        ("#336699", "data:image/webp;base64,AA==) url(https://x.test", "background:#336699"),
        ("", PLACEHOLDER, f"background:url({PLACEHOLDER}) center/cover no-repeat"),
        ("#336699\n", "data:text/html;base64,AA==", None),
    ],
)
def test_only_colors_and_pictures_get_into_the_style(
    color: str, placeholder: str, style: str | None
) -> None:
    image = an_image(JPEG, dominant_color=color, placeholder=placeholder)
    (_, (_, img)) = parse(image_manifest(image, on_cdn)["html"])
    assert img.get("style") == style


@given(images.flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_the_order_of_arrival_does_not_show(pair: tuple[list[Variant], list[Variant]]) -> None:
    one, other = (
        an_image(*some, uploads=uploads, aliases=aliases)
        for some, uploads, aliases in zip(
            pair, (("a", "b"), ("b", "a")), (("x", "y"), ("y", "x")), strict=True
        )
    )
    assert to_json(image_manifest(one, on_cdn)) == to_json(image_manifest(other, on_cdn))
    assert to_json(warm_list([one], on_cdn)) == to_json(warm_list([other], on_cdn))


def test_json_is_sorted_compact_utf_8() -> None:
    assert to_json({"b": [1, 2.5, None], "a": {"d": True, "c": "été</"}}) == (
        b'{"a":{"c":"\xc3\xa9t\xc3\xa9</","d":true},"b":[1,2.5,null]}'
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"a": float("nan")})
