"""``kill -9`` at many points: starting again completes the batch, whatever the point."""

from __future__ import annotations

import io
import signal
from contextlib import suppress

import psutil
import pytest
from PIL import Image

from .driver import Fault
from .oracle import Oracle, runs
from .processes import Driver, log_of, wait_until
from .project import Project, Upload, encoded, uploads

UPLOADS = "image_pipeline.catalog.uploads"
IMAGES = "image_pipeline.catalog.images"
BATCHES = "image_pipeline.catalog.batches"
PUT = "image_pipeline.store.bucket:Bucket.put"
GET = "image_pipeline.store.bucket:Bucket.download"
DESK = "image_pipeline.stages.inspecting:_Desk"
PRESS = "image_pipeline.stages.rendering:_Press"

#: In the order a batch meets them, so that each is still ahead when the one before has struck.
#: A fault "after" a function of the catalog strikes inside the transaction, before its commit.
POINTS = {
    "noticing": [
        Fault(f"{UPLOADS}:add", "after"),
        Fault(f"{BATCHES}:form", "before"),
        Fault(f"{BATCHES}:form", "after"),
        Fault("image_pipeline.stages.batching:write_batch_list", "before"),
        Fault("image_pipeline.stages.batching:write_batch_list", "after"),
        Fault(f"{BATCHES}:request", "after"),
        Fault("image_pipeline_tests.faults.driver:run_requested", "before"),
    ],
    "inspecting": [
        Fault("image_pipeline.resources:Lease.__init__", "before"),
        Fault("image_pipeline.resources:Lease.__init__", "after"),
        Fault(GET, "before", nth=2),
        Fault(GET, "after", nth=4, act="kill_group"),
        Fault(f"{DESK}.commit", "before"),
        Fault(f"{UPLOADS}:decide", "after"),
        Fault(f"{DESK}.commit", "after"),
        Fault(PUT, "before", match="tables/raw_uploads"),
        Fault(f"{IMAGES}:add_members", "after"),
        Fault("image_pipeline.assets.ingest:deduplicate_batch", "after"),
    ],
    "rendering": [
        Fault(PUT, "before", match="variants/"),
        Fault(PUT, "after", nth=5, match="variants/"),
        Fault(PUT, "before", nth=14, match="variants/", act="kill_group"),
        Fault(f"{PRESS}._commit", "before"),
        Fault(f"{IMAGES}:add_variants", "after"),
        Fault(f"{PRESS}._commit", "after"),
        Fault(PUT, "after", match="tables/thumbnails"),
    ],
    "publishing": [
        Fault(PUT, "before", match="manifests/photos/"),
        Fault(PUT, "after", nth=3, match="manifests/photos/"),
        Fault(PUT, "after", match="galleries/", act="kill_group"),
        Fault(PUT, "before", match="manifests/batches/"),
        Fault(PUT, "after", match="manifests/batches/"),
        Fault(f"{BATCHES}:finish", "before"),
        Fault(f"{BATCHES}:finish", "after"),
    ],
}


@pytest.mark.faults
@pytest.mark.parametrize("stage", POINTS)
def test_a_kill_at_any_point_loses_nothing(driver: Driver, project: Project, stage: str) -> None:
    expected = project.send(*uploads())
    for fault in POINTS[stage]:
        driver.run_into(project, fault)
        Oracle(project).check_what_is_visible()
        project.let_time_pass()
    driver.run(project)
    Oracle(project).check_all(expected)


def test_a_batch_that_nobody_renews_is_taken_up_by_itself(driver: Driver, project: Project) -> None:
    expected = project.send(*uploads())
    driver.run_into(project, Fault(PUT, nth=20, match="variants/"))
    (batch,) = project.rows("SELECT state, lease_owner FROM batches")
    assert batch["state"] == "running"
    assert batch["lease_owner"]
    driver.run(project)
    assert runs(project) == ["FAILURE", "SUCCESS"]
    Oracle(project).check_all(expected)


def test_a_run_killed_after_its_batch_was_done_leaves_nothing_to_do(
    driver: Driver, project: Project
) -> None:
    expected = project.send(*uploads())
    driver.run_into(project, Fault("image_pipeline.assets.delivery:finish_batch", "after"))
    driver.run(project)
    # The next run removes what the dead one left in the spool.
    expected |= project.send(Upload("later.jpg", encoded(7)))
    driver.run(project)
    found = Oracle(project)
    found.check_what_is_visible()
    found.check_uploads(expected)
    found.check_variants()
    found.check_manifests()
    found.check_batches()
    assert list(project.settings.workers.spool.iterdir()) == []
    # Dagster alone still believes in the first run, until its own monitoring ends it.
    assert runs(project) == ["STARTED", "SUCCESS"]


def test_a_canonical_deleted_while_nobody_worked_stands_for_nobody(
    driver: Driver, project: Project
) -> None:
    expected = project.send(*uploads())
    driver.run_into(project, Fault("image_pipeline.assets.ingest:deduplicate_batch", "after"))
    rows = {row["key"]: row for row in Oracle(project).upload_rows}
    (canonical,) = {
        key for key, row in rows.items() if row["verdict"] == "accepted" and "/a" in key
    }
    project.bucket.client.delete_object(Bucket=project.bucket.name, Key=canonical)
    project.let_time_pass()
    driver.run(project)
    verdicts = {row["key"]: row["verdict"] for row in Oracle(project).upload_rows}
    assert verdicts[canonical] == "rejected"
    others = sorted(verdicts[key] for key in expected if "/a" in key and key != canonical)
    assert others == ["accepted", "duplicate"]


def test_images_whose_worker_is_killed_are_accepted(driver: Driver, project: Project) -> None:
    # The same large picture with something behind its end: as many files, all to be decoded.
    picture = large()
    files = [Upload(f"{n}.jpg", picture + bytes([n]), ("accepted", "duplicate")) for n in range(12)]
    expected = project.send(*files)
    project.environment["IMAGE_PIPELINE_WORKERS__PROCESSES"] = "2"
    pid = driver.start(project)
    killed: set[str] = set()
    wait_until(lambda: kill_busy_workers(pid, killed) == 2, "two busy workers")
    assert driver.wait(pid) == 0, log_of(project)
    assert runs(project) == ["SUCCESS"]
    assert len(killed) == 2
    Oracle(project).check_all(expected)


def large() -> bytes:
    """A picture that keeps a worker busy for some tenths of a second."""
    data = io.BytesIO()
    Image.effect_noise((2400, 1800), 60).convert("RGB").save(data, "JPEG", quality=90)
    return data.getvalue()


def kill_busy_workers(pid: int, killed: set[str]) -> int:
    """``kill -9`` workers that have an image in hand, each image once, two images in all."""
    for worker in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            # Stopped first, so that it cannot put the image down between look and kill.
            worker.send_signal(signal.SIGSTOP)
            calls = {file.path for file in worker.open_files() if file.path.endswith(".call")}
            if calls - killed and len(killed) < 2:
                killed |= calls
                worker.kill()
            else:
                worker.send_signal(signal.SIGCONT)
    return len(killed)
