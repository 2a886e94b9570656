"""Nothing moves on a page while it loads."""

import pytest

from .pages import scroll_through

PHONE, DESKTOP = (390, 844), (1440, 900)


@pytest.mark.parametrize("window", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("address", ["article", "gallery", "source"])
def test_nothing_moves_while_pictures_arrive(visit, pages, address, window):
    page = visit(getattr(pages, address), *window)
    scroll_through(page)
    assert page.pictures
    assert page.evaluate("shifts") == []


@pytest.mark.parametrize(
    ("address", "window"), [("article", PHONE), ("gallery", DESKTOP), ("source", DESKTOP)]
)
def test_nothing_moves_on_a_slow_network(visit, pages, address, window):
    # The page itself arrives in parts, each drawn as it comes, and pictures one by one.
    page = visit(getattr(pages, address), *window, wait="commit", slow=True)
    page.wait_for_load_state("domcontentloaded")
    page.evaluate("settled()")
    page.evaluate("scrollTo({top: innerHeight, behavior: 'instant'})")
    page.evaluate("settled()")
    assert page.pictures
    assert page.evaluate("shifts") == []


def test_a_shift_would_be_seen(visit, pages):
    page = visit(pages.article, 820, 900)
    page.evaluate("settled()")
    page.add_style_tag(content="body { padding-top: 200px }")
    page.evaluate("settled()")
    assert sum(one["value"] for one in page.evaluate("shifts")) > 0.01
