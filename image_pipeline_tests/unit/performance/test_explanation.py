"""Days whose answer is known, because it was put into them."""

import math
import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.performance.explanation import FEWEST_DAYS, explain, slowest_day
from image_pipeline.performance.history import Day

from .helpers import TODAY, TUESDAY, make_day, make_history

#: What an equal day takes: 100 images of 2 MB; 2 s fetch, 10 s inspect, 0.1 s dedupe, 50 s
#: render, 5 s publish.
USUAL = 67.1


def explained(**changed):
    return explain(make_history(**changed), TUESDAY)


def by_name(found, name, stage=""):
    """The seconds of one factor."""
    return sum(
        one.seconds
        for one in found.factors
        if one.name == name and (not stage or one.stage == stage)
    )


def told(found, text):
    return any(text in sentence.replace("\u00a0", " ") for sentence in found.sentences)


def test_an_ordinary_day_is_not_slow():
    found = explained()
    assert not found.slow
    assert found.compared_with == 13
    assert found.seconds == pytest.approx(USUAL)
    assert found.usual == pytest.approx(USUAL)
    assert all(abs(one.seconds) < 1e-6 for one in found.factors)
    assert len(found.sentences) == 1
    assert told(found, "no more than the usual 1 min 7 s")


def test_more_images():
    found = explained(images=300)
    assert found.slow
    # Everything takes three times as long, and nothing else is the reason.
    assert by_name(found, "images") == pytest.approx(2 * USUAL)
    assert found.factors[0].name == "images"
    assert told(found, "3.0 times the usual")
    assert told(found, "(100%): 300 images instead of 100")
    assert not told(found, "slower")


def test_larger_images():
    found = explained(megabytes=8.0)
    # Four times as long for fetch, inspect and render; nothing else looks at bytes.
    assert by_name(found, "size") == pytest.approx(3 * 62.0)
    assert found.factors[0].name == "size"
    assert told(found, "images of 8.0 MB each instead of 2.0 MB")


@pytest.mark.parametrize(
    ("stage", "changed", "seconds", "words"),
    [
        ("render", {"render": 1.5}, 100.0, "1.5 s per megabyte and worker instead of 500 ms"),
        ("inspect", {"inspect": 1.1}, 100.0, "1.1 s per megabyte and worker instead of 100 ms"),
        ("fetch", {"fetch": 0.5}, 98.0, "500 ms per megabyte instead of 10 ms"),
        ("publish", {"publish": 1.05}, 100.0, "1.1 s per image instead of 50 ms"),
    ],
)
def test_a_slower_stage_is_the_one_that_is_named(stage, changed, seconds, words):
    found = explained(**changed)
    assert by_name(found, "stage", stage) == pytest.approx(seconds)
    assert (found.factors[0].name, found.factors[0].stage) == ("stage", stage)
    assert told(found, f"stage {stage} was slower for the same work: {words}")
    assert sum("was slower" in one for one in found.sentences) == 1


def test_fewer_workers():
    found = explained(workers=1.0)
    # What workers do takes twice as long: 10 s of inspecting and 50 s of rendering.
    assert by_name(found, "workers") == pytest.approx(60.0)
    assert told(found, "1.0 workers instead of 2.0")


def test_another_recipe():
    found = explained(render=1.5, recipe="0a1b2c3d4e5f")
    assert by_name(found, "recipe") == pytest.approx(100.0)
    assert by_name(found, "stage", "render") == 0
    assert told(found, "by a recipe that the other days did not have (0a1b2c3d of source photos)")


def test_a_known_recipe_is_no_reason():
    history = make_history(render=1.5, recipe="second")
    history[TODAY] = make_day(recipe="second")
    found = explain(history, TUESDAY)
    assert found.factors[0].name == "stage"


def test_fewer_duplicates():
    history = {day: make_day(new=0.4) for day in make_history()}
    history[TUESDAY] = make_day(new=0.8)
    found = explain(history, TUESDAY)
    # 40 more images of half a second and megabyte: 20 s of the clock with two workers.
    assert by_name(found, "share") == pytest.approx(20.0)
    assert told(found, "80% of the images had to be rendered instead of 40%")


def test_retries():
    found = explained(retries=3, retry_seconds=200.0)
    assert by_name(found, "retries") == pytest.approx(200.0)
    assert by_name(found, "stage") == pytest.approx(0.0, abs=1e-6)
    assert told(found, "3 batches were tried again")


def test_failures_are_told_where_they_are_many():
    assert told(explained(images=200, failed=12), "12 uploads failed and are tried again")
    assert not told(explained(images=200, failed=2), "failed")


@pytest.mark.parametrize(
    ("noticing", "why"), [(0.9, "they were discovered late"), (0.1, "waited for a run")]
)
def test_a_longer_wait_is_told_with_its_reason_although_the_work_was_as_ever(noticing, why):
    found = explained(wait=900.0, noticing=noticing)
    assert found.slow
    assert found.seconds == pytest.approx(found.usual)
    assert told(found, why)
    said = next(one for one in found.sentences if "waited" in one).replace("\u00a0", " ")
    minutes, seconds = map(int, re.search(r"waited (\d+) min (\d+) s", said).groups())
    assert 60 * minutes + seconds == pytest.approx(900, rel=0.05)


def test_two_factors_that_changed_alike_have_the_same_part():
    found = explained(images=200, workers=1.0)
    # Of rendering alone: 50 s became 200 s, by two doublings. LMDI gives each one half of 150 s;
    # the other stages follow the images.
    assert by_name(found, "workers") == pytest.approx((200 - 50 + 40 - 10) / 2)
    assert by_name(found, "images") == pytest.approx((200 - 50 + 40 - 10) / 2 + 7.1)


def test_what_made_it_shorter_is_told_too():
    found = explained(images=400, megabytes=1.0)
    assert by_name(found, "size") < 0 < by_name(found, "images")
    assert told(found, "more without this: images of 1.0 MB each instead of 2.0 MB")


@given(
    images=st.integers(1, 5000),
    megabytes=st.floats(0.1, 50),
    workers=st.floats(1, 64),
    render=st.floats(0.01, 10),
    fetch=st.floats(0.001, 1),
    new=st.floats(0.1, 1),
    retry_seconds=st.floats(0, 500),
)
def test_the_factors_leave_no_rest(**changed):
    found = explained(**changed, retries=1)
    difference = found.seconds - found.usual
    total = math.fsum(one.seconds for one in found.factors)
    assert total == pytest.approx(difference, abs=1e-6 * max(found.seconds, found.usual))


def test_a_stage_that_never_ran_before():
    history = make_history()
    history[TUESDAY].stages["near"] = make_day(100, publish=2.0).stages["publish"]
    found = explain(history, TUESDAY)
    assert by_name(found, "stage", "near") == pytest.approx(200.0)
    assert told(found, "stage near ran, which it usually does not")


def test_a_stage_that_did_not_run():
    history = make_history()
    del history[TUESDAY].stages["render"]
    found = explain(history, TUESDAY)
    assert by_name(found, "stage", "render") == pytest.approx(-50.0)


def test_too_few_days_to_compare_with():
    history = make_history(days=FEWEST_DAYS, images=500)
    found = explain(history, TUESDAY)
    assert not found.slow
    assert found.factors == []
    assert told(found, f"There are {FEWEST_DAYS - 1} other days with work")


def test_days_without_work_are_not_compared_with():
    history = make_history(images=300)
    idle = {TODAY - timedelta(days=20 + n): Day() for n in range(50)}
    assert explain(history | idle, TUESDAY) == explain(history, TUESDAY)
    assert explain(history | idle, min(idle)).sentences[0].endswith("nothing was processed.")


def test_the_day_with_most_to_explain():
    history = make_history(render=1.5)
    history[TODAY] = make_day(render=0.9)
    days = [TODAY - timedelta(days=n) for n in range(7)]
    assert slowest_day(history, days) == TUESDAY
    assert slowest_day(history, [TODAY]) == TODAY
    assert slowest_day({}, days) is None
