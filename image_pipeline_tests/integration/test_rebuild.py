"""A catalog that is lost, and made again from the bucket: compared row by row."""

import json

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from image_pipeline.catalog import export
from image_pipeline.catalog.engine import Catalog
from image_pipeline.cli import cli
from image_pipeline.ingest.discovery import sweep
from image_pipeline.samples import photograph
from image_pipeline.stages.exporting import RebuildError, rebuild
from image_pipeline.stages.separating import rejoin, split
from image_pipeline.stages.tools import quiet, utc_now
from image_pipeline_tests.assets.project import jpeg, open_project, photo

from .test_duplicates import FILES

pytestmark = pytest.mark.xdist_group("rebuild")

PREFIXES = ["uploads/photos/", "uploads/products/"]


def dump(catalog):
    """Every row of every table that is restored, comparable."""
    with catalog.read() as connection:
        return {
            table.name: sorted(
                [tuple(map(repr, row)) for row in connection.execute(sa.select(table))]
            )
            for table in export.TABLES
        }


@pytest.fixture(scope="module")
def project(s3, tmp_path_factory):
    """Duplicates of every tier, a canonical that was replaced, what people said, a reject."""
    with open_project(s3, tmp_path_factory.mktemp("project")) as made:
        made.upload({**FILES, "notes.txt": b"no picture at all"})
        assert made.look_and_run()[1].success
        better = jpeg(photograph(1200, 800, 1))
        made.upload({"better.jpg": better, "again.jpg": FILES["another.jpg"]})
        assert made.look_and_run()[1].success
        made.upload({"product.jpg": photo(9)}, source="products")
        assert made.look_and_run("products")[1].success
        images = image_ids(made, "small.jpg", "tagged.jpg")
        split(made.catalog, made.settings, "photos", images["small.jpg"], utc_now())
        split(made.catalog, made.settings, "photos", images["tagged.jpg"], utc_now())
        run_all(made)
        rejoin(made.catalog, made.settings, "photos", images["tagged.jpg"], utc_now())
        run_all(made)
        yield made


def image_ids(project, *names):
    with project.catalog.read() as connection:
        rows = connection.execute(sa.text("SELECT key, image_id FROM uploads")).all()
    return {key.rsplit("/", 1)[-1]: image for key, image in rows if key.endswith(names)}


def run_all(project):
    """Run what the sensor asks for until it asks for nothing."""
    while requests := project.look().run_requests:
        for request in requests:
            assert project.run(request.partition_key, tags=request.tags).success


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'rebuilt.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    made = Catalog(url)
    yield made
    made.close()


def test_every_row_is_there_again(project, empty):
    done = rebuild(project.bucket, empty, PREFIXES, utc_now(), quiet)
    assert done.unfinished == []
    before, after = dump(project.catalog), dump(empty)
    assert {name: len(rows) for name, rows in before.items()} == done.rows
    assert min(done.rows[name] for name in ("uploads", "members", "near", "separations")) > 0
    for name, rows in before.items():
        assert after[name] == rows, name


def test_new_uploads_get_numbers_of_their_own(project, empty):
    rebuild(project.bucket, empty, PREFIXES, utc_now(), quiet)
    row = {
        "source": "photos", "key": "uploads/photos/new.jpg", "etag": "e", "size": 1,
        "last_modified": utc_now(), "discovered_at": utc_now(),
    }  # fmt: skip
    from image_pipeline.catalog import uploads

    with empty.write() as connection:
        uploads.add(connection, [row])
        ids = list(connection.execute(sa.text("SELECT id FROM uploads")).scalars())
    assert len(set(ids)) == len(ids)


def test_a_catalog_that_is_not_empty_is_left_alone(project):
    before = dump(project.catalog)
    with pytest.raises(RebuildError, match="not empty"):
        rebuild(project.bucket, project.catalog, PREFIXES, utc_now(), quiet)
    assert dump(project.catalog) == before


def test_a_rebuild_that_ends_early_leaves_the_catalog_empty(project, empty, monkeypatch):
    restore, calls = export.restore, []

    def killed(connection, rows):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        restore(connection, rows)

    monkeypatch.setattr("image_pipeline.catalog.export.restore", killed)
    with pytest.raises(KeyboardInterrupt):
        rebuild(project.bucket, empty, PREFIXES, utc_now(), quiet)
    with empty.read() as connection:
        assert export.is_empty(connection)


def test_an_export_of_another_version_is_refused(project, empty, monkeypatch):
    monkeypatch.setattr("image_pipeline.catalog.export.VERSION", 2)
    with pytest.raises(RebuildError, match="version 1"):
        rebuild(project.bucket, empty, PREFIXES, utc_now(), quiet)


def test_a_batch_that_was_not_finished_runs_again(s3, tmp_path):
    with open_project(s3, tmp_path) as project:
        project.upload({"a.jpg": photo(1)})
        assert project.look_and_run()[1].success
        project.upload({"b.jpg": photo(2), "c.jpg": photo(3)})
        (request,) = project.look().run_requests
        rebuilt = Catalog(f"sqlite:///{tmp_path / 'rebuilt.db'}")
        done = rebuild(project.bucket, rebuilt, PREFIXES, utc_now(), quiet)
        assert done.unfinished == [request.partition_key]
        with rebuilt.read() as connection:
            query = sa.text("SELECT key, verdict FROM uploads WHERE batch_id = :batch ORDER BY key")
            found = connection.execute(query, {"batch": request.partition_key}).all()
            state = connection.execute(
                sa.text("SELECT state FROM batches WHERE id = :batch"),
                {"batch": request.partition_key},
            ).scalar_one()
        rebuilt.close()
    assert [tuple(row) for row in found] == [
        ("uploads/photos/b.jpg", None), ("uploads/photos/c.jpg", None),
    ]  # fmt: skip
    assert state == "retry"


def test_an_original_that_was_moved_since_is_no_new_upload(s3, tmp_path):
    """A move in parts gives another ETag; the export of the batch has the one from before."""
    with open_project(s3, tmp_path) as project:
        project.upload({"a.jpg": photo(1)})
        assert project.look_and_run()[1].success
        key = "uploads/photos/a.jpg"
        upload = project.bucket.client.create_multipart_upload(
            Bucket=project.bucket.name, Key=key, StorageClass="STANDARD_IA"
        )["UploadId"]
        part = project.bucket.client.upload_part_copy(
            Bucket=project.bucket.name, Key=key, UploadId=upload, PartNumber=1,
            CopySource={"Bucket": project.bucket.name, "Key": key},
        )["CopyPartResult"]  # fmt: skip
        project.bucket.client.complete_multipart_upload(
            Bucket=project.bucket.name, Key=key, UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )  # fmt: skip
        rebuilt = Catalog(f"sqlite:///{tmp_path / 'rebuilt.db'}")
        rebuild(project.bucket, rebuilt, PREFIXES, utc_now(), quiet)
        found = sweep(project.bucket, rebuilt, "photos", PREFIXES[0], "", utc_now(), lambda: True)
        rebuilt.close()
    assert (found.listed, found.found) == (1, 0)


def test_the_command(project, tmp_path):
    into = f"sqlite:///{tmp_path / 'rebuilt.db'}"
    done = CliRunner().invoke(cli, ["catalog", "rebuild", "--into", into, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"]["uploads"] == 10
    again = CliRunner().invoke(cli, ["catalog", "rebuild", "--into", into])
    assert again.exit_code == 1
    assert "not empty" in again.stderr
    assert "Traceback" not in again.stderr
