"""A batch that another machine goes on with: nothing of the first one's disk is needed."""

import secrets
import shutil

import pytest

from image_pipeline_tests.faults.driver import Fault
from image_pipeline_tests.faults.oracle import Oracle
from image_pipeline_tests.faults.processes import Driver, log_of
from image_pipeline_tests.faults.project import REPOSITORY, Project, plain_settings, uploads

pytestmark = pytest.mark.slow

PUT = "image_pipeline.store.bucket:Bucket.put"


@pytest.fixture(scope="module")
def driver():
    made = Driver()
    yield made
    made.close()


@pytest.fixture
def machine(s3, tmp_path, monkeypatch):
    """Makes machines: each has a disk and a Dagster home of its own; bucket and catalog are one."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"machines-{secrets.token_hex(6)}"
    made = []

    def make(name):
        folder = tmp_path / name
        (folder / "home").mkdir(parents=True)
        shutil.copy(REPOSITORY / "dagster.yaml", folder / "home")
        catalog = f"sqlite:///{tmp_path / 'catalog.db'}"
        settings = plain_settings(bucket, s3.endpoint_url, catalog)
        made.append(Project(folder, settings, s3.environment, "home"))
        return made[-1]

    yield make
    for one in made:
        one.bucket.client.close()


@pytest.mark.parametrize(
    "fault",
    [
        # Originals are in the spool, some verdicts are written down.
        Fault("image_pipeline.stages.inspecting:_Desk.commit", "after"),
        # Everything is checked; the tables of the first assets are in the bucket.
        Fault(PUT, "before", nth=6, match="variants/"),
        # Hashes were searched, and some manifests are out.
        Fault(PUT, "after", match="manifests/photos/"),
    ],
    ids=["checking", "rendering", "publishing"],
)
def test_another_machine_finishes_what_a_dead_one_began(driver, machine, fault):
    first = machine("first")
    driver.run(first, "prepare")
    first.bucket.create_if_missing()
    expected = first.send(*uploads())
    driver.run_into(first, fault)
    (begun,) = first.rows("SELECT id, state FROM batches")
    assert begun["state"] == "running"
    # Its disk is gone with it. Dagster's own memory too, which would be in Postgres.
    shutil.rmtree(first.folder)

    second = machine("second")
    second.let_time_pass()
    driver.run(second)
    oracle = Oracle(second)
    oracle.check_uploads(expected)
    oracle.check_variants()
    oracle.check_manifests()
    oracle.check_what_is_visible()
    (done,) = second.rows("SELECT id, state, attempt FROM batches")
    assert (done["id"], done["state"], done["attempt"]) == (begun["id"], "done", 2)
    assert str(first.folder) not in log_of(second)


def test_two_machines_share_the_work_of_one_source(driver, machine):
    """Each takes the next batch, with a hash index of its own."""
    first, second = machine("first"), machine("second")
    driver.run(first, "prepare")
    first.bucket.create_if_missing()
    early, *late = uploads()
    expected = first.send(early)
    driver.run(first)
    # The same picture again, recognised on a machine that never saw the first.
    expected |= second.send(*late)
    driver.run(second)
    oracle = Oracle(second)
    oracle.check_uploads(expected)
    oracle.check_variants()
    oracle.check_manifests()
    assert len(second.rows("SELECT id FROM batches WHERE state = 'done'")) == 2
