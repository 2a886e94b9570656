"""The gallery as people use it: with keys, in both colour schemes, with any file name."""

import re
from pathlib import Path

import pytest

from .conftest import HOSTILE
from .pages import COLOURS, contrast, scroll_through

ADDRESSES = ["gallery", "source"]


def focused(page):
    return page.evaluate(
        "() => document.activeElement.id || document.activeElement.getAttribute('aria-label')"
        " || document.activeElement.textContent.trim()"
    )


@pytest.mark.parametrize("address", [*ADDRESSES, "portable"])
def test_nothing_runs_but_the_pages_own_script(visit, pages, address):
    page = visit(getattr(pages, address))
    scroll_through(page)
    assert page.evaluate("window.ran") is None
    assert page.evaluate("violations") == []


def test_hostile_names_are_shown_as_they_are(visit, pages):
    page = visit(pages.gallery)
    shown = " ".join(page.locator(".name").all_text_contents())
    for name in HOSTILE[:5]:
        assert name.rsplit("/", 1)[-1] in shown
    assert "\u202e" not in shown
    assert "\u2039U+202E\u203agpj.exe" in shown
    assert page.evaluate("document.querySelectorAll('svg[onload], img[onerror]').length") == 0


def test_markup_that_did_get_in_could_not_run(visit, pages):
    page = visit(pages.gallery)
    for markup in ("<img src=x onerror='window.ran=1'>", "<svg onload='window.ran=1'></svg>"):
        page.evaluate("(markup) => document.body.insertAdjacentHTML('beforeend', markup)", markup)
    page.wait_for_function("() => violations.length >= 2")
    assert page.evaluate("window.ran") is None
    page.complaints.clear()


def test_the_page_is_used_with_keys_alone(visit, pages):
    page = visit(pages.gallery)
    stops = ("this source", "All 31", "Accepted 25", "Duplicates 1", "Rejected 5", "search")
    for expected in stops:
        page.keyboard.press("Tab")
        assert focused(page) == expected
        assert page.evaluate("() => document.activeElement.matches(':focus-visible')")
        assert page.evaluate(
            "() => parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
        ) >= 2  # fmt: skip
    page.keyboard.press("Tab")
    assert focused(page).startswith("View ")
    page.keyboard.press("Enter")
    assert page.locator("#viewer").evaluate("(viewer) => viewer.matches(':modal')")


def test_filters_show_what_they_say(visit, pages):
    page = visit(pages.gallery)
    shown = page.locator("[data-verdict]:visible")
    page.get_by_role("button", name="Duplicates").press("Enter")
    assert shown.count() == 1
    assert page.locator("#shown").text_content() == "1 of 31 shown"
    page.get_by_role("button", name="Rejected").press("Space")
    assert shown.count() == 5
    assert page.locator("#pictures").is_hidden()
    page.get_by_role("button", name="All").press("Enter")
    page.get_by_label("Filter by name").fill("PHOTO-0")
    assert shown.count() == 10
    page.get_by_label("Filter by name").fill("nowhere")
    assert page.locator("#nothing").is_visible()


def test_a_link_to_a_hidden_picture_shows_it(visit, pages):
    page = visit(pages.gallery)
    page.get_by_role("button", name="Duplicates").click()
    page.locator(".relation a:visible").click()
    assert page.locator("li:target").is_visible()


def test_the_viewer_goes_through_the_pictures_and_back_to_the_last_one(visit, pages):
    page = visit(pages.gallery)
    page.get_by_label("Filter by name").fill("photo-0")
    names = page.locator(".card:visible .name").all_text_contents()
    page.locator(".frame:visible").nth(1).press("Enter")
    name = page.locator("#viewer-name")

    def check(position):
        assert name.text_content() == names[position]
        assert page.locator("#viewer-place").text_content() == f"{position + 1} of {len(names)}"
        # The file that is shown is told by its format, pixels and weight.
        page.wait_for_function(
            "() => /^(AVIF|WebP|JPEG), \\d+ × \\d+, \\d/.test("
            "document.getElementById('viewer-file').textContent.replaceAll('\\u00a0', ' '))"
        )

    check(1)
    for key, position in (
        ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0), ("ArrowLeft", len(names) - 1),
        ("ArrowRight", 0), ("End", len(names) - 1),
    ):  # fmt: skip
        page.keyboard.press(key)
        check(position)
    assert focused(page) == "previous"
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()
    # The browser goes back to where the viewer was opened, and the page from there to the last.
    page.wait_for_function(
        "(name) => document.activeElement.getAttribute('aria-label') === name",
        arg=f"View {names[-1]}",
    )


def test_the_viewer_keeps_the_focus_and_has_a_button_to_close(visit, pages):
    page = visit(pages.gallery)
    page.locator(".frame").first.press("Enter")
    seen = []
    for _ in range(5):
        seen.append(focused(page))
        page.keyboard.press("Tab")
    assert {"previous", "next", "close"} <= set(seen)
    assert not any(one.startswith("View") for one in seen)
    page.locator("#close").press("Enter")
    assert page.locator("#viewer").is_hidden()


def test_the_viewer_shows_the_whole_picture_sharply(visit, pages):
    page = visit(pages.gallery, 1000, 800, device_scale_factor=2)
    page.locator(".frame").first.click()
    image = page.locator("#stage img")
    image.evaluate("(image) => image.decode()")
    shown = image.evaluate(
        "(image) => ({...image.getBoundingClientRect().toJSON(), file: image.naturalWidth,"
        " url: image.currentSrc})"
    )
    assert shown["width"] / shown["height"] == pytest.approx(4 / 3, rel=0.01)
    assert shown["top"] >= 0
    assert shown["bottom"] <= 800
    # Its largest file is 1440 pixels wide, less than two to one.
    assert re.search(r"large-1440x1080", shown["url"])


def test_a_picture_blurs_up_and_stays_behind_where_it_cannot_be_loaded(visit, pages):
    page = visit(pages.gallery, before=lambda context: context.route(
        "**/variants/**", lambda route: route.abort()))  # fmt: skip
    frame = page.locator(".frame").first
    assert frame.evaluate("(frame) => frame.classList.contains('waiting')")
    look = frame.evaluate(
        "(frame) => ({image: getComputedStyle(frame, '::before').backgroundImage,"
        " blur: getComputedStyle(frame, '::before').filter,"
        " opacity: getComputedStyle(frame.querySelector('img')).opacity})"
    )
    assert look["image"].startswith('url("data:image/webp;base64,')
    assert look["blur"].startswith("blur(")
    assert look["opacity"] == "0"
    frame.press("Enter")
    page.wait_for_function(
        "() => document.getElementById('viewer-file').textContent.startsWith('The server')"
    )
    assert page.locator("#stage [role=img]").is_visible()
    page.complaints.clear()


@pytest.mark.parametrize(("motion", "seconds"), [("no-preference", "0.5s"), ("reduce", "0s")])
def test_who_wants_no_motion_gets_none(visit, pages, motion, seconds):
    page = visit(pages.gallery, reduced_motion=motion)
    durations = page.evaluate(
        "() => [...document.querySelectorAll('*')].flatMap((one) => "
        "getComputedStyle(one).transitionDuration.split(', ').concat("
        "getComputedStyle(one).animationDuration.split(', ')))"
    )
    assert max(durations, key=lambda text: float(text.rstrip("s"))) == seconds


def test_pictures_become_opaque_when_they_are_there(visit, pages):
    page = visit(pages.gallery, reduced_motion="reduce")
    page.evaluate("settled()")
    found = page.evaluate(
        "() => [...document.images].filter(pictureInView).map((image) =>"
        " getComputedStyle(image).opacity)"
    )
    assert len(found) >= 4
    assert min(map(float, found)) > 0.7  # duplicates are paler


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_text_can_be_read_in_both_colour_schemes(visit, pages, address, scheme):
    page = visit(getattr(pages, address), color_scheme=scheme)
    for summary in page.locator("summary").all()[:2]:
        summary.press("Enter")
    found = page.evaluate(COLOURS)
    page.locator(".frame").first.press("Enter")
    page.wait_for_function("() => document.getElementById('viewer-file').textContent.length > 9")
    found += page.locator("#viewer").evaluate(f"(viewer) => ({COLOURS})()")
    assert len(found) > 100
    for one in found:
        assert all(len(colour) == 3 for colour in (one["ink"], one["ground"])), one
        # WCAG 2.2, 1.4.3 (AA).
        assert contrast(one["ink"], one["ground"]) >= (3 if one["large"] else 4.5), one
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (contrast([int(part) for part in re.findall(r"\d+", dark)], (0, 0, 0)) < 2) == (
        scheme == "dark"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_focus_can_be_seen(visit, pages, scheme):
    page = visit(pages.gallery, color_scheme=scheme)
    page.keyboard.press("Tab")
    ring, ground = page.evaluate(
        "() => [getComputedStyle(document.activeElement).outlineColor,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    colours = [[int(part) for part in re.findall(r"\d+", text)] for text in (ring, ground)]
    assert contrast(*colours) >= 3  # WCAG 2.2, 1.4.11


def test_the_page_of_the_source_leads_to_the_batch(visit, pages):
    page = visit(pages.source)
    assert page.locator(".card").count() == 25
    page.locator(".batches a").first.click()
    page.wait_for_url(pages.gallery)


def test_the_portable_page_needs_no_network(visit, pages, tmp_path, studio):
    text = studio.bucket.get("pages/portable.html")
    path = Path(tmp_path, "page.html")
    path.write_bytes(text)
    page = visit(path.as_uri(), offline=True)
    page.evaluate("settled()")
    shown = page.evaluate("() => [...document.images].map((image) => image.naturalWidth)")
    assert shown == [400] * 26
    assert page.evaluate("violations") == []
    assert page.pictures == []


def test_pictures_are_there_without_a_script(visit, pages):
    page = visit(pages.gallery, java_script_enabled=False)
    image = page.locator(".frame img").first
    image.scroll_into_view_if_needed()
    assert image.is_visible()
    assert page.locator("#tools").is_hidden()
    assert page.pictures
