"""One batch of good, double, broken and hostile files, run once; every test looks at a part."""

import hashlib
import io
import json
import re
import urllib.request

import dagster as dg
import pytest
import sqlalchemy as sa
from PIL import Image

from image_pipeline.catalog import uploads
from image_pipeline.catalog.schema import timings

from .project import SECRET, checks_of, jpeg, metadata_of, photo, photo_with_gps

pytestmark = pytest.mark.xdist_group("batch")

ORIGINAL, COPY, SMALLER, TINY = "Ferien am See +1.jpg", "copy.jpg", "smaller.jpg", "tiny.jpg"
MARKUP = "<img src=x onerror=alert(1)>.jpg"
SCRIPT = "\"'><script>alert(2)</script>.jpg"
BACKWARDS = "photo\u202egpj.exe"
TWO_LINES = "two\nlines.jpg"

#: Of a 900x600 picture: four sizes; of 200x150: two; of 450x300: three. In three formats each.
VARIANTS = {ORIGINAL: 12, TINY: 6, MARKUP: 9}
RENDITIONS = ("responsive_variants", "thumbnails")


def make_files():
    original = photo_with_gps(1)
    with Image.open(io.BytesIO(original)) as picture:
        smaller = jpeg(picture.resize((450, 300), Image.Resampling.LANCZOS))
    return {
        ORIGINAL: original,
        COPY: original,
        SMALLER: smaller,
        TINY: photo(5, 200, 150),
        MARKUP: photo(3),
        SCRIPT: b"a text file",
        BACKWARDS: b"MZ a program",
        TWO_LINES: photo(4)[:9000],
        "empty.jpg": b"",
    }


class Result:
    """The project after its batch was run."""

    def __init__(self, project):
        self.project = project
        self.files = make_files()
        project.upload(self.files)
        self.batch, self.run = project.look_and_run()

    def id(self, name):
        return hashlib.sha256(self.files[name]).hexdigest()

    def rows(self, asset="raw_uploads"):
        table = self.project.table(asset, self.batch)
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        return {row["key"].removeprefix("uploads/photos/"): row for row in rows}

    def json(self, key):
        return json.loads(self.project.bucket.get(key))

    def manifest(self, name):
        return self.json(f"manifests/photos/{self.id(name)}.json")

    def metadata(self, asset):
        return metadata_of(self.run, asset)


@pytest.fixture(scope="module")
def result(shared_project):
    return Result(shared_project)


def test_the_run_is_green_although_files_are_bad(result):
    assert result.run.success
    batch = result.project.batch(result.batch)
    assert (batch.state, batch.attempt, batch.lease_owner) == ("done", 1, None)


def test_every_upload_has_its_verdict_and_its_reason(result):
    found = {name: (row["verdict"], row["reason"]) for name, row in result.rows().items()}
    assert found == {
        # Before deduplication: both copies are good pictures.
        **dict.fromkeys([ORIGINAL, COPY, SMALLER, TINY, MARKUP], ("accepted", None)),
        SCRIPT: ("rejected", "not_an_image"),
        BACKWARDS: ("rejected", "not_an_image"),
        TWO_LINES: ("rejected", "truncated"),
        "empty.jpg": ("rejected", "empty_file"),
    }
    assert all(row["message"] for row in result.rows().values() if row["verdict"] == "rejected")


def test_the_columns_of_the_verdict_table(result):
    table = result.project.table("raw_uploads", result.batch)
    assert list(table.columns) == [
        "key", "verdict", "reason", "message", "image_id", "format", "width", "height", "bytes",
        "flags", "seconds",
    ]  # fmt: skip
    row = result.rows()[ORIGINAL]
    assert (row["image_id"], row["format"]) == (result.id(ORIGINAL), "jpeg")
    assert (row["width"], row["height"]) == (900, 600)
    assert row["bytes"] == len(result.files[ORIGINAL])


def test_duplicates_of_bytes_and_of_the_picture(result):
    listed = result.json(f"manifests/batches/{result.batch}.json")["uploads"]
    found = {
        one["key"].removeprefix("uploads/photos/"): (
            one["verdict"],
            one["reason"],
            one["canonical"],
        )
        for one in listed
    }
    original = result.id(ORIGINAL)
    assert found[ORIGINAL] == ("accepted", None, original)
    assert found[COPY] == ("duplicate", "bytes", original)
    assert found[SMALLER] == ("duplicate", "picture", original)
    assert found[TINY] == ("accepted", None, result.id(TINY))
    images = result.project.table("deduped_images", result.batch).set_index("image_id")
    assert dict(images["uploads"]) == {
        original: 2, result.id(SMALLER): 1, result.id(TINY): 1, result.id(MARKUP): 1,
    }  # fmt: skip
    assert images.loc[result.id(SMALLER), "canonical_id"] == original
    assert images.loc[result.id(SMALLER), "tier"] == "picture"


def test_every_canonical_has_its_variants_and_nobody_else_has_any(result):
    found = {}
    for key in result.project.objects("variants/"):
        found.setdefault(key.split("/")[1], []).append(key)
    assert {image: len(keys) for image, keys in found.items()} == {
        result.id(name): count for name, count in VARIANTS.items()
    }


def test_variants_are_served_as_what_they_are_and_for_ever(result):
    types = {"avif": "image/avif", "webp": "image/webp", "jpg": "image/jpeg"}
    for key, data in result.project.objects("variants/").items():
        head = result.project.bucket.head(key)
        assert head.content_type == types[key.rsplit(".", 1)[1]]
        assert head.cache_control == "public, max-age=31536000, immutable"
        assert head.size == len(data) > 0


def test_variants_are_the_pictures_that_their_names_say_without_metadata(result):
    formats = {"avif": "AVIF", "webp": "WEBP", "jpg": "JPEG"}
    assert SECRET in result.files[ORIGINAL]
    for key, data in result.project.objects("variants/").items():
        width, height, kind = re.search(r"-(\d+)x(\d+)\.[0-9a-f]{12}\.(\w+)$", key).groups()
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            assert picture.format == formats[kind]
            assert picture.size == (int(width), int(height))
            assert not dict(picture.getexif())
            assert not {"exif", "xmp", "comment", "icc_profile"} & picture.info.keys()
        assert SECRET not in data
        assert b"Exif" not in data


def test_nothing_is_enlarged(result):
    sizes = {
        (one["size"], one["width"], one["height"]) for one in result.manifest(TINY)["variants"]
    }
    assert sizes == {("thumb", 96, 96), ("small", 200, 150)}
    widest = max(one["width"] for one in result.manifest(ORIGINAL)["variants"])
    assert widest == 900


def test_the_manifest_of_a_canonical_and_of_its_alias(result):
    manifest = result.manifest(ORIGINAL)
    assert (manifest["width"], manifest["height"]) == (900, 600)
    assert manifest["aliases"] == [result.id(SMALLER)]
    assert manifest["uploads"] == [f"uploads/photos/{name}" for name in (ORIGINAL, COPY, SMALLER)]
    assert set(manifest["srcset"]) == {"avif", "webp", "jpeg"}
    assert [part.split()[1] for part in manifest["srcset"]["avif"].split(", ")] == [
        "320w", "640w", "900w",
    ]  # fmt: skip
    assert result.manifest(SMALLER) == {**manifest, "id": result.id(SMALLER)}


def test_a_browser_gets_what_the_manifest_promises(result):
    for one in result.manifest(MARKUP)["variants"]:
        with urllib.request.urlopen(one["url"], timeout=10) as answer:
            data = answer.read()
            assert answer.headers["Content-Type"] == one["mime"]
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert hashlib.sha256(data).hexdigest() == one["sha256"]
        assert len(data) == one["bytes"]


def test_rejects_have_no_manifest(result):
    names = {key.removeprefix("manifests/photos/") for key in
             result.project.objects("manifests/photos/")}  # fmt: skip
    assert names == {f"{result.id(name)}.json" for name in (ORIGINAL, SMALLER, TINY, MARKUP)}


def test_the_batch_manifest_adds_up(result):
    totals = result.json(f"manifests/batches/{result.batch}.json")["totals"]
    variants = result.project.objects("variants/")
    assert totals == {
        "uploads": 9, "accepted": 3, "duplicate": 2, "rejected": 4, "failed": 0,
        "bytes_in": sum(len(data) for data in result.files.values()),
        "images": 3, "variants": 27, "bytes_out": sum(len(data) for data in variants.values()),
    }  # fmt: skip


def test_the_warm_list_names_every_variant_once(result):
    urls = [one["url"] for one in result.json(f"manifests/warm/{result.batch}.json")["urls"]]
    assert len(urls) == len(set(urls)) == 27
    base = result.project.bucket.url
    assert set(urls) == {f"{base}/{key}" for key in result.project.objects("variants/")}
    assert "/thumb-" in urls[0]


def test_the_gallery_shows_every_upload_and_runs_nothing(result):
    page = result.project.bucket.get(f"galleries/{result.batch}.html").decode()
    for name in (ORIGINAL, COPY, SMALLER, TINY, "empty.jpg"):
        assert name in page
    assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in page
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert result.project.bucket.head(f"galleries/{result.batch}.html").content_type == (
        "text/html; charset=utf-8"
    )


@pytest.mark.parametrize(
    "asset",
    ["raw_uploads", "deduped_images", "responsive_variants", "thumbnails", "cache_warm_manifests"],
)
def test_tables_are_parquet_and_say_how_many_rows_they_have(result, asset):
    rows = {
        "raw_uploads": 9, "deduped_images": 4, "responsive_variants": 18, "thumbnails": 9,
        "cache_warm_manifests": 3,
    }  # fmt: skip
    table = result.project.table(asset, result.batch)
    assert len(table) == rows[asset]
    metadata = result.metadata(asset)
    assert metadata["dagster/row_count"].value == rows[asset]
    assert metadata["dagster/uri"].value == (
        f"s3://{result.project.bucket.name}/tables/{asset}/{result.batch}.parquet"
    )
    columns = [column.name for column in metadata["dagster/column_schema"].schema.columns]
    assert columns == list(table.columns)


def test_the_table_of_variants_is_what_is_in_the_bucket(result):
    objects = result.project.objects("variants/")
    table = result.project.table("responsive_variants", result.batch)
    assert set(table["role"]) == {"responsive"}
    for row in table.to_dict("records"):
        assert row["bytes"] == len(objects[row["key"]])
        assert row["sha256"] == hashlib.sha256(objects[row["key"]]).hexdigest()


def test_people_can_load_a_table_by_the_name_of_its_asset(result):
    project = result.project
    table = project.definitions.load_asset_value(
        "thumbnails", instance=project.instance, partition_key=result.batch
    )
    assert len(table) == 9
    project.instance.add_dynamic_partitions("batches", ["photos-later"])
    with pytest.raises(dg.Failure, match="materialize thumbnails first"):
        project.definitions.load_asset_value(
            "thumbnails", instance=project.instance, partition_key="photos-later"
        )


@pytest.mark.parametrize(
    ("asset", "numbers"),
    [
        ("raw_uploads", {"uploads": 9, "accepted": 5, "duplicate": 0, "rejected": 4, "failed": 0}),
        ("deduped_images", {"images": 4, "canonical": 3, "duplicates_bytes": 1,
                            "duplicates_pixels": 0, "duplicates_picture": 1, "near": 0}),
        ("responsive_variants", {"variants": 18, "images": 3}),
        ("thumbnails", {"variants": 9, "images": 3}),
        ("cache_warm_manifests", {"images": 3, "variants": 27, "urls_to_warm": 27, "accepted": 3,
                                  "duplicate": 2, "rejected": 4, "failed": 0}),
    ],
)  # fmt: skip
def test_metadata_that_is_plotted_is_numbers(result, asset, numbers):
    metadata = result.metadata(asset)
    for name, value in numbers.items():
        assert isinstance(metadata[name], dg.IntMetadataValue), name
        assert metadata[name].value == value, name
    for name in ("seconds", "images_per_second"):
        assert isinstance(metadata[name], dg.FloatMetadataValue), name
        assert metadata[name].value > 0


def test_bytes_by_format_add_up(result):
    metadata = result.metadata("responsive_variants")
    by_format = [metadata[f"bytes_{kind}"].value for kind in ("avif", "webp", "jpeg")]
    assert all(by_format)
    assert sum(by_format) == metadata["bytes_out"].value


def test_the_contact_sheet_is_a_picture_and_small(result):
    text = result.metadata("cache_warm_manifests")["contact_sheet"].value
    assert text.startswith("![pictures of the batch](data:image/webp;base64,UklGR")
    assert len(text) <= 5 * 1024


def test_the_gallery_can_be_opened_from_the_ui(result):
    url = result.metadata("cache_warm_manifests")["gallery"].value
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_names_from_outside_are_shown_on_one_line_in_one_direction(result):
    cells = []
    for event in result.run.get_asset_materialization_events():
        for value in event.materialization.metadata.values():
            if isinstance(value, dg.TableMetadataValue):
                cells += [cell for record in value.records for cell in record.data.values()]
            elif isinstance(value, dg.MarkdownMetadataValue):
                assert "alert" not in value.value
    assert f"uploads/photos/{SCRIPT}" in cells, "text is shown as text"
    assert "uploads/photos/photo‹U+202E›gpj.exe" in cells
    assert "uploads/photos/two‹U+000A›lines.jpg" in cells
    assert not {"\u202e", "\n"} & set("".join(cells))


def test_the_rejects_are_listed_with_their_reasons(result):
    records = result.metadata("raw_uploads")["rejects"].records
    assert sorted(record.data["reason"] for record in records) == [
        "empty_file", "not_an_image", "not_an_image", "truncated",
    ]  # fmt: skip


def test_all_checks_pass_but_the_one_that_tells_of_rejects(result):
    found = checks_of(result.run)
    assert len(found) == 11
    assert [key for key, passed in found.items() if not passed] == [
        ("raw_uploads", "no_rejected_uploads")
    ]
    (warning,) = [event for event in result.run.get_asset_check_evaluations() if not event.passed]
    assert warning.severity is dg.AssetCheckSeverity.WARN
    assert warning.metadata["reasons"].value == {
        "empty_file": 1, "not_an_image": 2, "truncated": 1,
    }  # fmt: skip


def test_the_ledger_counts_what_became_of_everything(result):
    project = result.project
    run = project.definitions.resolve_job_def("look_at_ledger").execute_in_process(
        instance=project.instance
    )
    metadata = metadata_of(run, "upload_ledger")
    counted = {
        name: metadata[name].value
        for name in ("waiting", "processing", "accepted", "duplicate", "rejected", "failed")
    }
    assert counted == {
        "waiting": 0, "processing": 0, "accepted": 3, "duplicate": 2, "rejected": 4, "failed": 0,
    }  # fmt: skip
    ledger = project.definitions.load_asset_value("upload_ledger", instance=project.instance)
    assert dict(zip(ledger["state"], ledger["uploads"], strict=True)) == {
        "accepted": 3, "duplicate": 2, "rejected": 4,
    }  # fmt: skip


def test_only_the_pipelines_own_prefixes_are_written(result):
    keys = [one.key for one in result.project.bucket.list("")]
    assert {key.split("/")[0] for key in keys} == {
        "batches", "galleries", "indexes", "ledger", "manifests", "tables", "uploads",
        "variants",
    }  # fmt: skip
    assert result.project.objects("uploads/") == {
        f"uploads/photos/{name}": data for name, data in result.files.items()
    }


def test_the_groups_are_shown_with_their_evidence_and_small_pictures(result):
    metadata = result.metadata("deduped_images")
    (record,) = metadata["groups"].records
    assert record.data["canonical"] == f"uploads/photos/{ORIGINAL}"
    assert (record.data["duplicates"], record.data["tiers"]) == ("2", "bytes, picture")
    pictures = metadata["group_pictures"].value
    assert pictures.count("](data:image/webp;base64,") == 3
    assert len(pictures) < 4096
    assert metadata["bytes_of_duplicates"].value == sum(
        len(result.files[name]) for name in (COPY, SMALLER)
    )


def test_what_duplicates_saved_is_estimated_once_something_was_rendered(result):
    assert "cpu_seconds_saved" not in result.metadata("deduped_images")
    metadata = result.metadata("cache_warm_manifests")
    rows = result.project.catalog
    with rows.read() as connection:
        report = uploads.report(connection, result.batch)
    rendered = [row["seconds"] for row in report if row["verdict"] == "accepted"]
    spent = sum(row["seconds"] for row in report if row["verdict"] == "duplicate")
    saved = 2 * sum(rendered) / len(rendered) - spent
    assert metadata["cpu_seconds_saved"].value == pytest.approx(max(saved, 0), abs=0.002)
    # One of the two has the very bytes of its canonical: nothing would be stored for it.
    stored = sum(len(data) for data in result.project.objects("variants/").values())
    assert metadata["bytes_saved_by_duplicates"].value == pytest.approx(stored / 3, abs=1)


def test_every_stage_wrote_down_what_it_took(result):
    with result.project.catalog.read() as connection:
        rows = connection.execute(sa.select(timings).order_by(timings.c.id)).all()
    by_stage = {row.stage: row for row in rows}
    # There is no edge to warm.
    assert list(by_stage) == [
        "wait", "inspect", "fetch", "dedupe", "near", "render", "store", "publish",
    ]  # fmt: skip
    assert len(rows) == len(by_stage)
    assert {(row.batch_id, row.source, row.attempt) for row in rows} == {
        (result.batch, "photos", 1)
    }
    assert {stage: row.images for stage, row in by_stage.items()} == {
        # Of nine uploads one has no bytes to fetch; two are duplicates, three are canonical.
        "wait": 9, "inspect": 9, "fetch": 8, "dedupe": 5, "near": 3, "render": 3, "store": 3,
        "publish": 3,
    }  # fmt: skip
    assert all(row.seconds > 0 and row.histogram for row in rows if row.stage != "wait")
    inspected, rendered = by_stage["inspect"], by_stage["render"]
    assert inspected.bytes_in == sum(map(len, result.files.values()))
    assert inspected.amounts == {"accepted": 5, "rejected": 4}
    assert by_stage["dedupe"].amounts == {"duplicates.bytes": 1, "duplicates.picture": 1}
    assert inspected.workers == rendered.workers == 2
    assert rendered.bytes_in == sum(len(result.files[name]) for name in VARIANTS)
    assert rendered.bytes_out == sum(
        len(data) for data in result.project.objects("variants/").values()
    )
    made = {
        kind: sum(result.metadata(asset)[f"bytes_{kind}"].value for asset in RENDITIONS)
        for kind in ("avif", "webp", "jpeg")
    }
    assert {kind: rendered.amounts[f"bytes.{kind}"] for kind in made} == made
    assert rendered.amounts["jpeg.avif"] == made["jpeg"]
    assert len(rendered.slowest) == 3
    assert rendered.worst == rendered.slowest[0][1] > 0
