"""The performance report as an asset: its numbers, its table and its page."""

import io
from datetime import timedelta

import dagster as dg
import pandas as pd
import pytest

from image_pipeline.assets.performance import performance_report
from image_pipeline.catalog import timings
from image_pipeline.catalog.timings import Timing
from image_pipeline.performance.timings import histogram, to_json
from image_pipeline.stages.tools import utc_now


def write_history(project):
    """Two weeks of equal days, and a yesterday on which rendering took four times as long."""
    now = utc_now()
    with project.catalog.write() as connection:
        for days in range(1, 15):
            seconds = 40.0 if days == 1 else 10.0
            for stage, took in (("inspect", 5.0), ("render", seconds)):
                timings.record(
                    connection,
                    Timing(
                        "photos", stage, now - timedelta(days=days), took, images=10,
                        bytes_in=10_000_000, workers=2,
                        histogram=to_json(histogram([took / 5] * 10)),
                    ),
                )  # fmt: skip


@pytest.fixture
def result(project):
    write_history(project)
    return dg.materialize(
        [performance_report],
        instance=project.instance,
        resources=dict(project.definitions.resources),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def test_the_report_is_in_the_ui_and_in_the_bucket(project, result):
    (event,) = result.get_asset_materialization_events()
    told = {name: entry.value for name, entry in event.materialization.metadata.items()}
    yesterday = utc_now() - timedelta(days=1)
    assert told["day"] == f"{yesterday:%Y-%m-%d}"
    assert (told["images"], told["images_per_second"]) == (10, pytest.approx(10 / 45, abs=1e-4))
    assert told["render_median"] == pytest.approx(8.0, rel=0.0501)
    assert told["work_seconds"] == 45.0
    # There was no wait to tell of: a gap, not a zero.
    assert "wait_median" not in told
    assert "stage render was slower for the same work" in told["why"]
    assert told["page"] == f"s3://{project.bucket.name}/tables/performance_report.html"
    page = project.bucket.get("tables/performance_report.html").decode()
    assert f"Why was {yesterday:%A} slow?" in page
    head = project.bucket.head("tables/performance_report.html")
    assert (head.content_type, head.cache_control) == (
        "text/html; charset=utf-8", "private, no-cache",
    )  # fmt: skip


def test_its_table_has_a_row_for_each_stage(project, result):
    frame = pd.read_parquet(io.BytesIO(project.bucket.get("tables/performance_report.parquet")))
    assert list(frame["stage"]) == ["inspect", "render"]
    assert list(frame["images"]) == [140, 140]
    assert frame["seconds"].tolist() == [70.0, 170.0]
    assert result.success
