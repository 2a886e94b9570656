"""How long stages take, written down by themselves."""

import logging
from datetime import timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches
from image_pipeline.catalog.schema import timings
from image_pipeline.performance.timings import from_json, quantile
from image_pipeline.stages import timing
from image_pipeline.stages.timing import record_wait, timed, weigh

from .helpers import NOW, add_batch, make_tools


class Seconds:
    """The two clocks of the process, moved by hand."""

    def __init__(self):
        self.wall = self.cpu = 100.0

    def monotonic(self):
        return self.wall

    def process_time(self):
        return self.cpu


@pytest.fixture
def clocks(monkeypatch):
    made = Seconds()
    monkeypatch.setattr(timing, "time", made)
    return made


@pytest.fixture
def tools(catalog, tmp_path):
    return make_tools(catalog, tmp_path, workers={"processes": 3}, performance={"enabled": True})


def rows(catalog):
    with catalog.read() as connection:
        return connection.execute(sa.select(timings).order_by(timings.c.id)).all()


def test_one_row_says_what_a_stage_took(tools, catalog, clocks):
    batch = add_batch(catalog, ("a.jpg", None, None, None))
    with catalog.write() as connection:
        batches.request(connection, batch, NOW)
    with timed(tools, "render", batch, "photos") as stage:
        stage.uses_workers, stage.images, stage.recipe = True, 3, "r1"
        stage.bytes_in, stage.bytes_out = 30, 10
        stage.amounts["failed"] = 1
        for upload, seconds in ((1, 2.0), (2, 8.0), (3, 4.0)):
            stage.watch.add(upload, seconds)
        clocks.wall += 10
        clocks.cpu += 1
        stage.elsewhere = 3.0
    (row,) = rows(catalog)
    assert (row.batch_id, row.source, row.stage) == (batch, "photos", "render")
    assert (row.day, row.began_at, row.attempt) == (f"{NOW:%Y-%m-%d}", NOW, 1)
    # Three seconds of it are told as another stage's.
    assert (row.seconds, row.cpu_seconds, row.workers) == (7.0, 15.0, 3)
    assert (row.images, row.bytes_in, row.bytes_out, row.recipe) == (3, 30, 10, "r1")
    assert (row.slowest, row.worst) == ([[2, 8.0], [3, 4.0], [1, 2.0]], 8.0)
    assert quantile(from_json(row.histogram), 0.5) == pytest.approx(4.0, rel=0.0501)
    assert row.amounts == {"failed": 1}


def test_work_on_all_at_once_is_shared_by_its_images(tools, catalog, clocks):
    with timed(tools, "dedupe", None, "photos") as stage:
        stage.images = 4
        clocks.wall += 2
    (row,) = rows(catalog)
    assert sum(row.histogram.values()) == 4
    assert quantile(from_json(row.histogram), 0.5) == pytest.approx(0.5, rel=0.0501)
    assert (row.workers, row.slowest, row.worst) == (1, [], 0.0)


def test_the_workers_of_a_cluster_are_those_that_worked(catalog, tmp_path, clocks):
    tools = make_tools(
        catalog,
        tmp_path,
        workers={"cluster": "tcp://127.0.0.1:8786"},
        performance={"enabled": True},
    )
    with timed(tools, "render", None, "photos") as stage:
        stage.uses_workers, stage.images = True, 2
        stage.watch.add(1, 30.0)
        stage.watch.add(2, 30.0)
        clocks.wall += 10
    assert rows(catalog)[0].workers == 6


def test_nothing_is_written_of_a_stage_without_work_or_one_that_failed(tools, catalog):
    with timed(tools, "render", None, "photos"):
        pass
    with pytest.raises(ZeroDivisionError), timed(tools, "render", None, "photos") as stage:
        stage.images = 1 // 0
    assert rows(catalog) == []


def test_nothing_is_written_where_nobody_wants_it(catalog, tmp_path):
    tools = make_tools(catalog, tmp_path, performance={"enabled": False})
    batch = add_batch(catalog, ("a.jpg", None, None, None))
    record_wait(tools, batch, "photos")
    with timed(tools, "render", batch, "photos") as stage:
        stage.images = 1
    assert rows(catalog) == []


def test_a_catalog_that_does_not_take_it_fails_no_stage(tools, catalog, caplog):
    with catalog.write() as connection:
        connection.execute(sa.text("DROP TABLE timings"))
    with (
        caplog.at_level(logging.WARNING, logger=timing.__name__),
        timed(tools, "render", None, "photos") as stage,
    ):
        stage.images = 1
    assert "the time of stage render was not written down" in caplog.text


def test_waiting_counts_from_when_an_upload_was_written(tools, catalog):
    # Written 100 s before the run, and, by a clock that is ahead, 50 s after it.
    batch = add_batch(
        catalog,
        ("a.jpg", None, None, None),
        ("b.jpg", None, None, None),
        ("known.jpg", "failed", "storage_error", None),
        modified=[NOW - timedelta(seconds=100), NOW + timedelta(seconds=50), NOW],
    )
    record_wait(tools, batch, "photos")
    (row,) = rows(catalog)
    assert (row.stage, row.images, row.seconds, row.worst) == ("wait", 2, 100.0, 100.0)
    assert row.amounts == {"noticing": 100.0, "queueing": 0.0}
    assert len(row.slowest) == 2


def test_what_was_looked_into_before_does_not_wait_again(tools, catalog):
    batch = add_batch(catalog, ("a.jpg", "failed", "storage_error", None))
    record_wait(tools, batch, "photos")
    assert rows(catalog) == []


def file(image, size, kind, count, dropped=False):
    return {"image_id": image, "size": size, "format": kind, "bytes": count, "dropped": dropped}


def test_formats_are_weighed_beside_jpeg_of_the_same_picture_and_size():
    found = weigh(
        [
            file("a", "small", "avif", 30), file("a", "small", "jpeg", 100),
            file("a", "large", "avif", 70), file("a", "large", "jpeg", 0, dropped=True),
            file("b", "small", "webp", 50), file("b", "small", "jpeg", 80),
        ]
    )  # fmt: skip
    assert found == {
        "bytes.avif": 100, "bytes.jpeg": 180, "bytes.webp": 50,
        "own.avif": 30, "jpeg.avif": 100, "own.webp": 50, "jpeg.webp": 80,
    }  # fmt: skip
