"""The report from a catalog of weeks, on both databases, and on the command line."""

import json
from datetime import date, timedelta

import pytest
import sqlalchemy as sa
import yaml
from click.testing import CliRunner

from image_pipeline.catalog import slow_queries, timings
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import slow_queries as slow_table
from image_pipeline.catalog.schema import timings as table
from image_pipeline.catalog.timings import Timing
from image_pipeline.cli.performance import report
from image_pipeline.commands.performance import rehearse
from image_pipeline.delivery.manifest_cache import Kind, ManifestCache
from image_pipeline.performance.gathering import gather
from image_pipeline.performance.history import together
from image_pipeline.performance.publishing import SPARE_WEEKS, prune_timings
from image_pipeline.performance.report import build_report
from image_pipeline.performance.timings import histogram, quantile, to_json
from image_pipeline.settings import CatalogSettings, Settings, Source
from image_pipeline_tests.unit.catalog.helpers import discover
from image_pipeline_tests.unit.performance.helpers import NOW, TUESDAY

DAYS = 20


def settings_for(catalog, **parts):
    sources = {name: Source(prefix=f"uploads/{name}/") for name in ("photos", "shop")}
    return Settings(catalog=CatalogSettings(url=catalog.url), sources=sources, **parts)


def seconds_of(day, number):
    """Something different for every image, and four times as much on the Tuesday."""
    return (0.2 + 0.01 * number) * (4 if day.date() == TUESDAY else 1)


@pytest.fixture
def calm(either_catalog):
    """A catalog that takes no statement for slow, however busy the machine is."""
    made = Catalog(either_catalog.url, slow_seconds=600.0)
    yield made
    made.close()


@pytest.fixture
def filled(calm):
    """Three batches a day of two sources, and the upload that was slowest of all."""
    (slowest,) = discover(calm, "uploads/photos/slow.tif")
    with calm.write() as connection:
        for days in range(DAYS):
            day = NOW - timedelta(days=days)
            for batch in range(3):
                each = [seconds_of(day, 10 * batch + n) for n in range(10)]
                source = "shop" if batch == 2 else "photos"
                for stage in ("inspect", "render"):
                    timings.record(
                        connection,
                        Timing(
                            source, stage, day, sum(each) / 2, f"{source}-{days}-{batch}",
                            workers=2, images=10, bytes_in=20_000_000, bytes_out=3_000_000,
                            cpu_seconds=sum(each), histogram=to_json(histogram(each)),
                            slowest=[[slowest, max(each)]], worst=max(each),
                            amounts={"failed": 1, "bytes.avif": 3_000_000},
                        ),
                    )  # fmt: skip
    return calm


def test_what_is_gathered_is_what_was_written(filled):
    measured = gather(settings_for(filled), filled, NOW, weeks=2)
    assert len(measured.history) == 14
    whole = together(measured.history.values()).of("render")
    days = [NOW - timedelta(days=n) for n in range(14)]
    each = [seconds_of(day, number) for day in days for number in range(30)]
    assert whole.buckets == histogram(each)
    assert whole.seconds == pytest.approx(sum(each) / 2)
    assert (whole.runs, whole.images, whole.bytes_in) == (42, 420, 840_000_000)
    assert whole.amounts["failed"] == 42
    assert quantile(whole.buckets, 0.95) == pytest.approx(
        sorted(each)[int(0.95 * 420) - 1], rel=0.0501
    )
    assert measured.slowest[0]["key"] == "uploads/photos/slow.tif"
    assert measured.redis is None


def test_one_source_alone(filled):
    measured = gather(settings_for(filled), filled, NOW, weeks=2, source="shop")
    assert together(measured.history.values()).of("render").images == 140


def test_it_says_why_tuesday_was_slow(filled):
    found = build_report(gather(settings_for(filled), filled, NOW))
    assert found.explanation.day == TUESDAY
    assert found.explanation.slow
    assert {one.stage for one in found.explanation.factors[:2]} == {"inspect", "render"}


def test_rows_that_no_report_asks_for_are_pruned(filled):
    settings = settings_for(filled, performance={"weeks": 1})
    old = NOW - timedelta(weeks=1 + SPARE_WEEKS)
    with filled.write() as connection:
        for days in (-1, 0, 1):
            at = old + timedelta(days=days)
            timings.record(connection, Timing("photos", "publish", at, 1.0, images=1))
            row = {"count": 1, "worst": 1.0, "total": 1.0, "stage": "", "plan": ""}
            connection.execute(
                sa.insert(slow_table).values(
                    id=str(days), statement=str(days), first_at=at, last_at=at, **row
                )
            )
    assert prune_timings(settings, filled, NOW) == {"timings": 2, "slow_queries": 1}
    with filled.read() as connection:
        assert connection.execute(sa.select(sa.func.min(table.c.day))).scalar() == (
            f"{old + timedelta(days=1):%Y-%m-%d}"
        )
        assert len(slow_queries.slowest(connection, old, 9)) == 2


def test_hit_rates_of_manifests_come_from_redis(filled, redis_settings):
    settings = settings_for(filled, redis=redis_settings)
    cache = ManifestCache(settings.redis, settings.bucket.name)
    try:
        cache.look("photos", Kind.MANIFEST, "f" * 64)
    finally:
        cache.close()
    (row,) = gather(settings, filled, NOW).redis
    assert (row["source"], row["kind"]) == ("photos", "manifest")
    assert (row["hits"], row["misses"], row["hit_rate"]) == (0, 1, 0.0)


def test_a_redis_that_does_not_answer_is_no_trouble(filled):
    settings = settings_for(filled, redis={"url": "redis://127.0.0.1:9/0"})
    assert gather(settings, filled, NOW).redis is None


@pytest.fixture
def config(filled, tmp_path, monkeypatch):
    """A settings file; today is the day that the history ends with."""
    monkeypatch.setattr(Settings, "now", lambda _self: NOW)
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "catalog": {"url": filled.url},
                "sources": {name: {"prefix": f"uploads/{name}/"} for name in ("photos", "shop")},
            }
        )
    )
    return path


def call(config, *arguments, code=0):
    done = CliRunner().invoke(report, [*arguments, "--config", str(config)])
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_prints_and_writes_the_page(config, tmp_path):
    out = tmp_path / "report.html"
    text = call(config, "--out", str(out)).replace("\u00a0", " ")
    assert "600 images in 8 weeks" in text
    assert "uploads/photos/slow.tif" in text
    assert "Tuesday, 17 November 2026 took" in text
    assert "Why was Tuesday slow?" in out.read_text("utf-8")


def test_the_command_prints_json(config):
    document = json.loads(call(config, "--json", "--weeks", "1", "--source", "photos"))
    assert document["total"]["images"] == 140
    assert (document["weeks"], document["source"]) == (1, "photos")


def test_a_day_may_be_named(config):
    document = json.loads(call(config, "--json", "--day", "2026-11-18"))
    assert document["explanation"]["day"] == "2026-11-18"
    assert not document["explanation"]["slow"]
    text = call(config, "--day", "2024-01-01", code=1)
    assert "nothing was measured on 2024-01-01" in text
    assert str(date(2026, 11, 19)) in text


def test_a_catalog_without_measurements(catalog, tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text(yaml.safe_dump({"catalog": {"url": catalog.url}}))
    assert "Nothing was measured yet" in call(path)


def test_the_rehearsal_shows_where_the_page_is(filled, config, bucket, capsys):
    for name in ("dagster.yaml", "workspace.yaml"):
        (config.parent / name).touch()
    (config.parent / ".data").mkdir()
    settings = settings_for(filled, bucket={"name": bucket.name})
    assert rehearse(settings, config, bucket) == 0
    page = config.parent / ".data" / "performance.html"
    assert page.read_bytes() == bucket.get("tables/performance_report.html")
    assert str(page) in capsys.readouterr().out
