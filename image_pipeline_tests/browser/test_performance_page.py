"""The performance report in a browser: nothing blocked, light and dark, wide and narrow."""

import pytest

from image_pipeline.performance.page import report_page
from image_pipeline.performance.report import build_report
from image_pipeline_tests.unit.performance.helpers import make_history, make_measured

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_page(build_report(make_measured(make_history(render=1.5)))), "utf-8")
    return path.as_uri()


@pytest.fixture
def opened(chromium, address):
    """Open the page; whatever the browser complained of has to be nothing."""
    contexts, complaints = [], []

    def open_page(scheme="light", width=1280):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def colour(page, selector, name):
    return page.eval_on_selector(selector, f"one => getComputedStyle(one).{name}")


def brightness(text):
    return sum(int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(","))


def test_the_style_is_let_in_and_follows_the_scheme(opened):
    light, dark = opened("light"), opened("dark")
    assert brightness(colour(light, "body", "backgroundColor")) > 600
    assert brightness(colour(dark, "body", "backgroundColor")) < 150
    for page in (light, dark):
        chosen = colour(page, "#images-title ~ rect.chosen", "fill")
        other = colour(page, "#images-title ~ rect:not(.chosen)", "fill")
        assert chosen != other


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_never_scrolls_sideways(opened, width):
    page = opened(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figures in page.locator("details").all():
        figures.evaluate("one => one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_plot_is_known_by_its_name_and_its_figures_unfold(opened):
    page = opened()
    plot = page.get_by_role("img", name="Time to render a picture")
    assert plot.count() == 1
    figure = page.locator("figure", has=plot)
    figure.locator("summary").click()
    row = figure.get_by_role("row", name="Tue 17 Nov")
    assert row.is_visible()
