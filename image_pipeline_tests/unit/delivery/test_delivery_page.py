"""What docs/delivery.md tells people to write, as far as it can be tried without their tools."""

import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

from image_pipeline.delivery.manifest import image_manifest

from .helpers import a_variant, an_image, on_cdn


class Tags(HTMLParser):
    """The elements of a piece of markup, with their attributes unescaped."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def code(root: Path, language):
    text = (root / "docs" / "delivery.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return found


def rendered(root, manifest, **values):
    """The Django template, of which it uses no more than Jinja has too."""
    environment = jinja2.Environment(autoescape=True)
    template = re.sub(r"\{#.*?#\}", "", code(root, "django"))
    return Tags(environment.from_string(template).render(photo=manifest, **values)).found


@pytest.fixture
def manifest():
    files = [
        a_variant(kind, width, height, 1000)
        for kind in ("avif", "webp", "jpeg")
        for width, height in ((640, 427), (1024, 683))
    ]
    return image_manifest(an_image(*files), lambda key: f"{on_cdn(key)}?Expires=1&Signature=x'\"")


def test_the_django_template_says_what_the_ready_markup_says(pytestconfig, manifest):
    ours = Tags(manifest["html"]).found
    theirs = rendered(pytestconfig.rootpath, manifest, sizes="100vw", alt="", urgent=False)
    assert [tag for tag, _ in theirs] == ["picture", "source", "source", "img"]
    assert theirs[:3] == ours[:3]
    (_, img), (_, expected) = theirs[3], ours[3]
    for name in ("srcset", "sizes", "src", "alt", "loading", "decoding"):
        assert img[name] == expected[name]
    assert (img["width"], img["height"]) == ("3000", "2000")
    assert "".join(img["style"].split()) == "".join(expected["style"].split())


def test_the_django_template_escapes_what_it_is_given(pytestconfig, manifest):
    hostile = "\"><script>alert(1)</script>'"
    found = rendered(pytestconfig.rootpath, manifest, sizes=hostile, alt=hostile, urgent=True)
    assert [tag for tag, _ in found] == ["picture", "source", "source", "img"]
    attributes = found[3][1]
    assert attributes["alt"] == attributes["sizes"] == hostile
    assert attributes["fetchpriority"] == "high"
    assert "loading" not in attributes


def test_a_transparent_picture_has_no_placeholder_behind_it(pytestconfig, manifest):
    found = rendered(
        pytestconfig.rootpath, {**manifest, "has_alpha": True}, sizes="", alt="", urgent=False
    )
    assert "style" not in found[3][1]


def test_the_plain_page_is_well_formed(pytestconfig):
    found = Tags(code(pytestconfig.rootpath, "html")).found
    images = [attributes for tag, attributes in found if tag == "img"]
    sources = [attributes for tag, attributes in found if tag == "source"]
    assert [one.get("loading") for one in images] == [None, "lazy"]
    assert [one.get("fetchpriority") for one in images] == ["high", None]
    assert all({"alt", "width", "height", "sizes", "srcset", "src"} <= one.keys() for one in images)
    assert [one["type"] for one in sources] == ["image/avif", "image/webp"] * 2
    for one in (*images, *sources):
        for candidate in one["srcset"].split(", "):
            url, width = candidate.split(" ")
            assert f"-{width.removesuffix('w')}x" in url


def test_the_react_component_names_every_attribute(pytestconfig):
    text = code(pytestconfig.rootpath, "jsx")
    names = re.findall(r"^\s+(\w+)=\{", text, re.MULTILINE)
    assert names == [
        "loading", "fetchPriority", "alt", "width", "height", "style", "sizes", "srcSet", "src",
    ]  # fmt: skip
