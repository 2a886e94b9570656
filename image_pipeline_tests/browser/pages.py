"""The page of docs/delivery.md with real pictures, and the rules by which browsers choose."""

import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

_URL = re.compile(
    r"https://images\.example\.com/variants/[0-9a-f]+/([a-z]+)-[0-9x]+\.[0-9a-f]+\.([a-z]+)"
)


@dataclass(frozen=True)
class Pages:
    """Addresses. ``article`` is the page of docs/delivery.md."""

    gallery: str
    source: str
    portable: str
    article: str
    without_avif: str
    jpeg_only: str


#: Every text that is seen: its ink, the ground behind it, and whether it is large (WCAG 2.2).
COLOURS = """() => {
  const solid = (text) => text.match(/[\\d.]+/g).map(Number);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    let ground = element;
    while (ground && (solid(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) {
      ground = ground.parentElement;
    }
    const size = Number.parseFloat(style.fontSize);
    found.push({
      text: walker.currentNode.textContent.trim().slice(0, 40),
      ink: solid(style.color),
      ground: ground ? solid(getComputedStyle(ground).backgroundColor) : [255, 255, 255],
      large: size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700),
    });
  }
  return found;
}"""


def document_of(bucket, key):
    return json.loads(bucket.get(key))


def code_of(page, language, number=0):
    """A block of code of a page of the documentation."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[number]


def shown_page(manifests):
    """The page of docs/delivery.md with its first picture and as many of its second."""
    page = code_of("delivery.md", "html")
    hero = re.search(r"<picture>.*?</picture>", page, re.DOTALL)[0]
    entry = re.search(r"  <li>.*?</li>\n", page, re.DOTALL)[0]
    first, *others = manifests
    return page.replace(entry, "".join(_filled(entry, one) for one in others)).replace(
        hero, _filled(hero, first)
    )


def _filled(markup, manifest):
    """Markup for an image of the documentation, for another one; without what that lacks."""
    files = {
        (one["size"], one["format"]): one
        for one in manifest["variants"]
        if one["role"] == "responsive"
    }

    def url(found):
        kind = {"jpg": "jpeg"}.get(found[2], found[2])
        return escape(files[found[1], kind]["url"])

    for kind in ("avif", "webp"):
        if kind not in manifest["srcset"]:
            markup = re.sub(rf'\s*<source type="image/{kind}"[^>]*>', "", markup)
    markup = _URL.sub(url, markup)
    markup = markup.replace("#3f5f8a", manifest["dominant_color"])
    return re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", manifest["placeholder"], markup)


def chosen(size, candidates, ratio):
    """The candidate that Chromium takes for a picture drawn ``size`` CSS pixels wide.

    HTML makes a density of each width by dividing it by the source size, and leaves the choice to
    the browser. Chromium takes the least dense one that is at least as dense as the screen.
    """
    dense = [one for one in candidates if one[1] / size >= ratio]
    if dense:
        return min(dense, key=lambda one: one[1])[0]
    return max(candidates, key=lambda one: one[1])[0]


def scroll_through(page):
    """Go down a page window by window; every picture is waited for as it comes into view."""
    page.evaluate("settled()")
    while page.evaluate(
        "() => { const from = scrollY; scrollBy({top: innerHeight * 0.8, behavior: 'instant'});"
        " return scrollY > from; }"
    ):
        page.evaluate("settled()")


def contrast(one, other):
    """Of two opaque colours ``(r, g, b)`` 0-255, by WCAG 2.2 ("contrast ratio")."""

    def luminance(colour):
        shares = [value / 255 for value in colour]
        linear = [
            share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
            for share in shares
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
