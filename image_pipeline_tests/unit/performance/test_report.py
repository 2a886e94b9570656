"""The report and its page, of histories made by hand."""

import hashlib
import json
import re
from base64 import b64encode
from datetime import date, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.maintenance.forgetting import EMPTY, as_names, rewritten
from image_pipeline.performance.drawing import (
    BOTTOM,
    HEIGHT,
    TOP,
    Series,
    bar_chart,
    next_duration,
    next_round,
)
from image_pipeline.performance.history import Day, together
from image_pipeline.performance.page import report_page
from image_pipeline.performance.report import build_report, window
from image_pipeline.performance.wording import duration, rate, share

from .helpers import NOW, TODAY, TUESDAY, make_day, make_history, make_measured

BACKWARDS = "uploads/photos/<b>\u202egpj.exe"
STATEMENT = "SELECT </pre><script>alert(1)</script>"


def slow_query(**changes):
    return {
        "id": "ab", "statement": STATEMENT, "count": 2, "worst": 1.25, "total": 2.0,
        "first_at": NOW, "last_at": NOW, "stage": "render", "batch_id": "b1",
        "plan": "SCAN uploads\n  SEARCH images", **changes,
    }  # fmt: skip


def slow_image(seconds, key=BACKWARDS, stage="render"):
    return {
        "stage": stage, "upload": 1, "seconds": seconds, "batch": "b1", "day": "2026-11-17",
        "key": key,
    }  # fmt: skip


@pytest.fixture(scope="module")
def report():
    history = make_history(render=1.5, duplicates=20, new=0.8, failed=1)
    edge = [{"source": "photos", "files": 4, "asked": 4, "warm": 4, "hits": 3, "misses": 1}]
    return build_report(
        make_measured(
            history,
            slowest=[slow_image(9.0), slow_image(8.0, key="")],
            slow_queries=[slow_query()],
            edge=edge,
            redis=[
                {"source": "photos", "kind": "manifest", "hits": 1, "misses": 3, "hit_rate": 0.25}
            ],
        )
    )


@pytest.fixture(scope="module")
def page(report):
    return report_page(report)


def test_the_window_is_whole_weeks_that_end_today():
    assert window(NOW, 1) == (date(2026, 11, 13), TODAY)
    assert window(NOW, 8) == (date(2026, 9, 25), TODAY)


def test_totals(report):
    # 13 days of 100 images of 67.1 s, and one of 100 with 80 rendered in 3 times the time.
    assert report.total.images == 1400
    seconds = 13 * 67.1 + (2 + 10 + 0.1 + 120 + 5)
    assert report.total.images_per_second == pytest.approx(1400 / seconds)
    workers = 13 * (7.1 + 120) + (7.1 + 20 + 240)
    assert report.total.per_core == pytest.approx(1400 / workers)
    assert report.total.duplicate_rate == pytest.approx(20 / 1400)
    assert report.duplicates == {"picture": 20}
    assert report.total.failed == 1
    assert report.total.bytes_in == 1400 * 2_000_000
    assert report.total.bytes_out == 1380 * 350_000
    assert report.edge_hit_rate == 0.75


def test_stages_come_in_their_order_with_their_share(report):
    assert [line.stage for line in report.stages] == [
        "wait", "fetch", "inspect", "dedupe", "render", "publish",
    ]  # fmt: skip
    work = [line for line in report.stages if line.stage != "wait"]
    assert sum(line.share for line in work) == pytest.approx(1.0)
    rendered = next(line for line in report.stages if line.stage == "render")
    # A worker takes half a second for each of two megabytes.
    assert rendered.median == pytest.approx(1.0, rel=0.0501)
    assert rendered.p95 == pytest.approx(3.0, rel=0.0501)
    assert rendered.images_per_second == pytest.approx(1380 / (13 * 50 + 120))
    assert rendered.per_core == pytest.approx(1380 / (13 * 100 + 240))
    assert [one["seconds"] for one in rendered.slowest] == [9.0, 8.0]
    wait = report.stages[0]
    assert (wait.share, wait.images_per_second) == (None, None)


def test_formats_are_weighed_against_originals_and_against_jpeg(report):
    by_format = {line.format: line for line in report.formats}
    assert by_format["jpeg"].bytes == 1380 * 250_000
    assert by_format["avif"].share == pytest.approx(100_000 / 2_000_000)
    assert by_format["avif"].saved_beside_jpeg == pytest.approx(1 - 100 / 250)
    assert by_format["jpeg"].saved_beside_jpeg is None


def test_every_day_of_the_window_is_there_and_weeks_add_up(report):
    assert [one.first for one in report.by_day] == [
        TODAY - timedelta(days=n) for n in range(13, -1, -1)
    ]
    assert [one.first for one in report.by_week] == [
        TODAY - timedelta(days=13), TODAY - timedelta(days=6),
    ]  # fmt: skip
    assert sum(one.images for one in report.by_week) == 1400
    assert report.by_week[0].duplicate_rate == 0
    assert report.by_week[1].duplicate_rate == pytest.approx(20 / 700)


def test_the_day_with_most_to_explain_is_explained_unless_one_is_named(report):
    assert report.explanation.day == TUESDAY
    history = make_history(render=1.5)
    assert build_report(make_measured(history), TODAY).explanation.day == TODAY
    with pytest.raises(KeyError):
        build_report(make_measured(history), date(2020, 1, 1))


def test_nothing_measured_is_a_report_too():
    empty = build_report(make_measured({}))
    assert (empty.total.images, empty.total.images_per_second) == (0, None)
    assert empty.explanation is None
    assert "There were none." in report_page(empty)
    assert json.dumps(empty.as_json())


def test_json_is_plain(report):
    document = json.loads(json.dumps(report.as_json()))
    assert document["now"] == "2026-11-19T09:30:00+00:00"
    assert document["explanation"]["day"] == "2026-11-17"
    assert document["by_day"][-1]["first"] == "2026-11-19"
    assert len(document["by_day"]) == 14


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_days_together_are_their_sums(counts):
    days = [make_day(count) for count in counts]
    whole = together(days)
    assert whole.images == sum(counts)
    assert whole.seconds == pytest.approx(sum(day.seconds for day in days))
    assert whole.of("render").buckets.total() == sum(counts)
    assert [day.images for day in days] == counts
    assert together([]) == Day()


class Parsed(HTMLParser):
    """Every element with its attributes, and the texts."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.texts = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_loads_and_runs_nothing(page):
    found = Parsed(page)
    assert not found.all("script")
    assert not found.all("a")
    assert not found.all("img")
    assert not [one for _, one in found.elements if "style" in one]
    assert {one["href"][:5] for one in found.all("link")} == {"data:"}
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def test_the_policy_admits_the_pages_own_style_only(page):
    (policy,) = [
        one["content"]
        for one in Parsed(page).all("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    ]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'", "style-src": f"'sha256-{digest}'", "img-src": "data:",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


def test_text_from_outside_stays_text(page):
    found = Parsed(page)
    assert "<script>" not in page
    assert STATEMENT in found.texts
    assert "\u202e" not in page
    assert any("uploads/photos/<b>\u2039U+202E\u203agpj.exe" in text for text in found.texts)
    assert "forgotten since" in found.texts


@pytest.mark.parametrize(
    "key", [BACKWARDS, 'uploads/photos/Anna\'s "day" & <b>.jpg', "uploads/a.jpg"]
)
def test_the_page_goes_when_an_upload_is_forgotten_that_it_names(key):
    measured = make_measured(make_history(), slowest=[slow_image(9.0, key)])
    page = report_page(build_report(measured)).encode()
    assert rewritten(page, as_names([key], [])) == EMPTY
    assert rewritten(page, as_names(["uploads/photos/another.jpg", f"{key}.jpg"], [])) is None


def test_every_plot_has_a_name_a_description_and_its_figures(page):
    found = Parsed(page)
    plots = [one for one in found.all("svg") if one.get("role") == "img"]
    assert len(plots) == 6
    ids = {one.get("id") for _, one in found.elements}
    for plot in plots:
        assert set(plot["aria-labelledby"].split()) <= ids
    assert [one for one in found.all("svg") if "role" not in one and "aria-hidden" not in one] == []
    # One for each plot, weeks, stages, formats, caches, factors.
    assert len(found.all("table")) == 6 + 5


def test_the_plots_are_well_formed(page):
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_it_says_why_tuesday_was_slow(page):
    text = " ".join(Parsed(page).texts)
    assert "Why was Tuesday slow?" in text
    assert "stage render was slower for the same work" in text


def test_of_the_first_day_it_says_that_there_is_nothing_to_compare_it_with():
    report = build_report(make_measured({TUESDAY: make_day()}))
    assert report.explanation.day == TUESDAY
    assert "There are 0 other days with work" in report.explanation.sentences[0]


def test_of_an_ordinary_day_it_does_not_say_that_it_was_slow():
    text = report_page(build_report(make_measured(make_history()), TUESDAY))
    assert "Was Tuesday slow?" in text
    assert "Why was" not in text


def test_a_chart_shows_its_values():
    days = [date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)]
    series = [Series("images", "main", [50, None, 100])]
    chart = bar_chart("n", "Images", "", days, series, str, chosen=days[2])
    room = HEIGHT - TOP - BOTTOM
    assert [bar.height for bar in chart.bars] == [room / 2, room]
    assert [bar.y + bar.height for bar in chart.bars] == [HEIGHT - BOTTOM] * 2
    assert [bar.chosen for bar in chart.bars] == [False, True]
    assert chart.bars[0].text == "Sun 1 Nov 2026, images: 50"
    assert chart.rows == [(days[2], ["100"]), (days[0], ["50"])]
    assert chart.description == "images: most on 3 November with 100, last 100"


def test_series_stand_beside_or_before_one_another():
    days = [date(2026, 11, 1)]
    series = [Series("p95", "back", [4.0]), Series("median", "main", [1.0])]
    before = bar_chart("n", "", "", days, series, str, overlaid=True).bars
    beside = bar_chart("n", "", "", days, series, str).bars
    assert before[0].x == before[1].x
    assert beside[0].x + beside[0].width == pytest.approx(beside[1].x, abs=0.02)


@given(st.floats(1e-6, 1e12))
def test_an_axis_ends_a_little_above_its_values(value):
    assert value * (1 - 1e-6) <= next_round(value) <= 2.01 * value
    assert value * (1 - 1e-6) <= next_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"), (0.0123, "12 ms"), (0.9999, "1.0 s"), (12.34, "12.3 s"),
        (59.99, "1 min 0 s"), (754, "12 min 34 s"), (3600, "1 h 0 min"), (12_000, "3 h 20 min"),
        (86_400, "1 day 0 h"), (200_000, "2 days 7 h"),
    ],
)  # fmt: skip
def test_times_in_words(seconds, text):
    assert duration(seconds).replace("\u00a0", " ") == text


def test_rates_and_shares_in_words():
    assert [rate(one) for one in (None, 0.01234, 2.346, 1234.5)] == [
        "\u2013", "0.0123", "2.35", "1,234",
    ]  # fmt: skip
    assert [share(one) for one in (None, 0.125)] == ["\u2013", "12.5\u00a0%"]
