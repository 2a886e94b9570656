"""Which server, what it gets, and when it is looked at."""

from datetime import UTC, datetime, timedelta

import pytest

from image_pipeline.mirror.planning import (
    day_of,
    is_purge_due,
    pause,
    retry_at,
    scope_of,
    target_of,
)
from image_pipeline.settings import Mirror, Settings, Source

NOW = datetime(2026, 3, 1, 0, 30, tzinfo=UTC)


def settings(**mirror):
    sources = {name: Source(prefix=f"uploads/{name}/") for name in ("shop", "photos")}
    return Settings(sources=sources, mirror=Mirror(**mirror))


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("images", "sftp://nas:2222/~/images"),
        ("images/", "sftp://nas:2222/~/images"),
        ("/volume1/images", "sftp://nas:2222/volume1/images"),
    ],
)
def test_a_server_and_a_folder_are_one_target(path, target):
    assert target_of(Mirror(host="nas", port=2222, path=path)) == target


def test_who_logs_in_makes_no_other_target():
    assert target_of(Mirror(host="nas", username="a")) == target_of(Mirror(host="nas"))


def test_all_sources_unless_some_are_named():
    assert scope_of(settings()).sources == ("photos", "shop")
    assert scope_of(settings(sources=("shop",))).sources == ("shop",)


def test_another_wish_is_another_scope():
    wishes = [
        settings(),
        settings(sources=("shop",)),
        settings(originals=False),
        settings(variants=("small",)),
        settings(variants=("small", "large")),
    ]
    assert len({scope_of(one).text for one in wishes}) == len(wishes)
    same = settings(variants=("large", "small"), sources=("shop", "photos"))
    assert scope_of(same).text == scope_of(wishes[-1]).text


def test_pauses_grow_and_end():
    pauses = [pause(attempt) for attempt in range(20)]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert max(pauses) == 8.0


def test_what_fails_is_tried_less_and_less_often_but_daily():
    hours = [(retry_at(NOW, failures) - NOW) / timedelta(hours=1) for failures in range(12)]
    assert hours[:7] == [0, 1, 2, 4, 8, 16, 24]
    assert set(hours[6:]) == {24}


def test_the_trash_is_looked_at_once_a_day():
    assert is_purge_due(None, NOW)
    assert not is_purge_due(NOW - timedelta(hours=23), NOW)
    assert is_purge_due(NOW - timedelta(hours=24), NOW)
    assert day_of(NOW) == "2026-03-01"
