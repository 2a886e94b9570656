"""Running again, running a part, and files that change while they wait."""

import json

import pytest

from image_pipeline.store.bucket import Bucket
from image_pipeline.workers.pool import ImageWorkers

from .project import checks_of, metadata_of, open_project, photo

pytestmark = pytest.mark.xdist_group("reruns")

FILES = {"one.jpg": photo(1), "two.jpg": photo(2, 200, 150)}

UP_TO_THUMBNAILS = ["raw_uploads", "deduped_images", "thumbnails"]


class Work:
    """What is downloaded, written and handed to worker processes."""

    def __init__(self, monkeypatch):
        self.downloads, self.puts, self.jobs = [], [], []
        download, put, run = Bucket.download, Bucket.put, ImageWorkers.run

        def counting_download(bucket, key, *arguments):
            self.downloads.append(key)
            return download(bucket, key, *arguments)

        def counting_put(bucket, key, *arguments, **options):
            self.puts.append(key)
            return put(bucket, key, *arguments, **options)

        def counting_run(workers, function, jobs):
            def counted():
                for job in jobs:
                    self.jobs.append(function.__name__)
                    yield job

            return run(workers, function, counted())

        monkeypatch.setattr(Bucket, "download", counting_download)
        monkeypatch.setattr(Bucket, "put", counting_put)
        monkeypatch.setattr(ImageWorkers, "run", counting_run)

    @property
    def variants(self):
        return [key for key in self.puts if key.startswith("variants/")]


@pytest.fixture
def work(monkeypatch):
    return Work(monkeypatch)


def test_a_run_does_each_thing_once_and_the_next_one_none_of_it(project, work):
    project.upload(FILES)
    batch, first = project.look_and_run()
    assert first.success
    assert sorted(work.downloads) == ["uploads/photos/one.jpg", "uploads/photos/two.jpg"]
    assert sorted(work.jobs) == ["inspect_image", "inspect_image", "render", "render"]
    assert len(work.variants) == len(set(work.variants)) == 15
    before = project.objects("variants/")
    manifests = project.objects("manifests/photos/")
    work.downloads.clear()
    work.puts.clear()
    work.jobs.clear()
    second = project.run(batch)
    assert second.success
    assert (work.downloads, work.jobs, work.variants) == ([], [], [])
    assert project.objects("variants/") == before
    assert project.objects("manifests/photos/") == manifests
    assert project.batch(batch).state == "done"
    assert project.look().run_requests == []
    assert all(checks_of(second).values())
    spool = project.settings.workers.spool
    assert [path for path in spool.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def all_at_once(shared_project):
    """Variants of both roles made by one run."""
    shared_project.upload(FILES)
    _, run = shared_project.look_and_run()
    assert run.success
    return shared_project.objects("variants/")


def test_a_batch_made_in_parts(all_at_once, s3, tmp_path):
    """Thumbnails alone, manifests too early, then the rest: the same bytes as all at once."""
    with open_project(s3, tmp_path) as project:
        project.upload(FILES)
        (request,) = project.look().run_requests
        batch = request.partition_key
        run = project.run(batch, UP_TO_THUMBNAILS)
        assert run.success
        checked = {asset for asset, _ in checks_of(run)}
        assert checked == {"raw_uploads", "deduped_images", "thumbnails"}
        assert project.objects("variants/") == {
            key: data for key, data in all_at_once.items() if "/thumb-" in key
        }
        assert project.batch(batch).state == "retry", "made in part, so not done"

        early = project.run(batch, ["cache_warm_manifests"])
        check_that_it_says_what_is_missing(early)
        assert project.batch(batch).state == "retry"
        project.expire(batch)
        (again,) = project.look().run_requests
        assert (again.partition_key, again.run_key) == (batch, f"{batch}-2")

        run = project.run(batch, ["responsive_variants", "cache_warm_manifests"])
        assert run.success
        assert metadata_of(run, "responsive_variants")["variants"].value == 9
        assert project.objects("variants/") == all_at_once
        assert len(all_at_once) == 15
        assert project.batch(batch).state == "done"


def check_that_it_says_what_is_missing(run):
    assert not run.success
    (failure,) = run.filter_events(lambda event: event.is_step_failure)
    data = failure.event_specific_data.user_failure_data
    assert "2 uploads of this batch are unfinished" in data.description
    assert [record.data["key"] for record in data.metadata["unfinished"].records] == [
        "uploads/photos/one.jpg", "uploads/photos/two.jpg",
    ]  # fmt: skip
    assert metadata_of(run, "cache_warm_manifests")["images"].value == 0


def verdicts(project, batch):
    table = project.table("raw_uploads", batch)
    table = table.astype(object).where(table.notna(), None)
    return dict(zip(table["key"], zip(table["verdict"], table["reason"], strict=True), strict=True))


def test_what_was_deleted_or_overwritten_meanwhile(project):
    project.upload({**FILES, "gone.jpg": photo(3), "changed.jpg": photo(4)})
    (request,) = project.look().run_requests
    project.delete("uploads/photos/gone.jpg")
    project.upload({"changed.jpg": photo(6, 200, 150)})
    first = project.run(request.partition_key)
    assert first.success
    assert verdicts(project, request.partition_key) == {
        "uploads/photos/changed.jpg": ("rejected", "superseded"),
        "uploads/photos/gone.jpg": ("rejected", "gone"),
        "uploads/photos/one.jpg": ("accepted", None),
        "uploads/photos/two.jpg": ("accepted", None),
    }
    later, second = project.look_and_run()
    assert second.success
    assert verdicts(project, later) == {"uploads/photos/changed.jpg": ("accepted", None)}
    assert project.look().run_requests == []


def test_another_source_has_its_own_manifests_but_needs_no_files_of_its_own(
    all_at_once, shared_project, work
):
    shared_project.upload({"same.jpg": FILES["one.jpg"]}, source="products")
    batch, run = shared_project.look_and_run("products")
    assert run.success
    assert verdicts(shared_project, batch) == {"uploads/products/same.jpg": ("accepted", None)}
    assert (work.jobs, work.variants) == ([], [])
    (manifest,) = shared_project.objects("manifests/products/").values()
    assert json.loads(manifest)["uploads"] == ["uploads/products/same.jpg"]
    assert all(
        b"products" not in one for one in shared_project.objects("manifests/photos/").values()
    )
