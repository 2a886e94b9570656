"""Which files a browser loads, of the page in docs/delivery.md and of the gallery."""

import pytest

from .pages import chosen, scroll_through

#: Widths in CSS pixels: a phone, a tablet, a desktop.
WINDOWS = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}

KNOWN = ["image/avif", "image/webp"]

#: How far below the window Chromium loads lazy pictures at most: 2500 pixels on slow networks.
AHEAD = 2500


def check_choice(page, ratio, known=KNOWN):
    """Every picture in view shows the file that it should; returns how many."""
    page.evaluate("settled()")
    found = page.evaluate(
        """(known) => [...document.images].filter(pictureInView).map((image) =>
          ({...offerOf(image, known), shown: image.currentSrc,
            width: image.getBoundingClientRect().width,
            height: image.getBoundingClientRect().height,
            natural: image.naturalWidth / image.naturalHeight}))""",
        known,
    )
    for one in found:
        assert one["shown"] == chosen(one["size"], one["candidates"], ratio)
        # What sizes says is how wide the picture is drawn, a scrollbar and a pixel apart.
        drawn = max(one["width"], one["height"] * one["natural"])
        assert one["size"] == pytest.approx(drawn, rel=0.025, abs=16)
    return len(found)


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("window", WINDOWS)
def test_the_expected_variant_is_picked(visit, pages, window, ratio):
    page = visit(pages.article, *WINDOWS[window], device_scale_factor=ratio)
    assert check_choice(page, ratio) >= 1
    page.evaluate("scrollTo(0, innerHeight)")
    assert check_choice(page, ratio) >= 2
    page = visit(pages.gallery, *WINDOWS[window], device_scale_factor=ratio)
    page.locator(".frame").nth(1).scroll_into_view_if_needed()
    assert check_choice(page, ratio) >= 2


def test_the_rule_of_choice():
    files = [("m", 1024), ("s", 640), ("l", 1440)]
    assert [chosen(400, files, ratio) for ratio in (1, 1.6, 2, 3, 4)] == ["s", "s", "m", "l", "l"]


def kinds_of(page):
    shown = page.evaluate(
        "() => [...document.images].filter(pictureInView).map((image) => image.currentSrc)"
    )
    return {url.rsplit(".", 1)[-1] for url in shown}


def test_avif_is_taken_where_it_is_offered(visit, pages, studio):
    page = visit(pages.article, 390, 844)
    scroll_through(page)
    offers = page.locator('source[type="image/avif"]').count()
    # It is offered where every width of it is smaller than the next format's.
    assert offers == sum("avif" in one["srcset"] for one in studio.manifests) > 0
    taken = [one for one in page.pictures if one.url.endswith(".avif")]
    assert len(taken) == offers


@pytest.mark.parametrize(
    ("address", "known", "kinds"),
    [("without_avif", ["image/webp"], {"webp"}), ("jpeg_only", [], {"jpg"})],
)
def test_a_browser_that_does_not_know_a_format_takes_the_next(visit, pages, address, known, kinds):
    # A failed download is no reason for a browser to go on to the next source; a type that it
    # does not know is. So the page offers the format under a type that no browser knows.
    page = visit(getattr(pages, address), 390, 844)
    assert check_choice(page, 1, known) >= 1
    assert kinds_of(page) == kinds


def loaded(page):
    return {request.url.split("/variants/")[1].split("/")[0] for request in page.pictures}


@pytest.mark.parametrize(("address", "width"), [("article", 820), ("gallery", 390)])
def test_nothing_far_off_screen_is_loaded_until_it_is_scrolled_to(visit, pages, address, width):
    page = visit(getattr(pages, address), width, 400)
    page.evaluate("settled()")
    page.wait_for_load_state("networkidle")
    far = set(
        page.evaluate(
            """(ahead) => [...document.images]
              .filter((image) => image.getBoundingClientRect().top > innerHeight + ahead)
              .map((image) => image.src.split("/variants/")[1].split("/")[0])""",
            AHEAD,
        )
    )
    everything = set(
        page.evaluate(
            """() => [...document.images].map(
              (image) => image.src.split("/variants/")[1].split("/")[0])"""
        )
    )
    assert len(far) >= 4, "the page is too short to tell"
    assert loaded(page)
    assert not loaded(page) & far
    scroll_through(page)
    assert loaded(page) == everything


def weight(page):
    """Bytes of the pictures that a page has loaded."""
    return sum(request.sizes()["responseBodySize"] for request in page.pictures)


@pytest.mark.parametrize(("window", "ratio"), [("phone", 3), ("tablet", 2), ("desktop", 2)])
def test_a_page_of_24_photographs_costs_a_tenth_of_them_at_most(
    visit, pages, studio, window, ratio
):
    costs = []
    for address in (pages.article, pages.jpeg_only):
        page = visit(address, *WINDOWS[window], device_scale_factor=ratio)
        scroll_through(page)
        assert len(page.pictures) == len(studio.manifests) == 24
        costs.append(weight(page))
    best, jpeg = costs
    assert best < jpeg
    assert best <= 0.1 * studio.uploaded
