"""Inventories: every object exactly once, or none at all."""

import csv
import gzip
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import orc

from image_pipeline.catalog import housekeeping
from image_pipeline.maintenance import inventory as module
from image_pipeline.maintenance.inventory import (
    KEPT,
    Group,
    Listed,
    Total,
    open_inventory,
    take_inventory,
)
from image_pipeline.maintenance.listing import cuts_of, list_all
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.maintenance.s3_inventory import newest_report, read_manifest, read_report
from image_pipeline.settings import Maintenance
from image_pipeline.store import layout
from image_pipeline.store.bucket import Bucket, Object, Page, StoreError
from image_pipeline_tests.unit.store.test_bucket import ODD_KEYS

from .filled import BATCH, NOW, Filled, image_id, settings_of, variant_key

PREFIXES = {"photos": "uploads/photos/", "shop": "uploads/shop/"}


class Paged:
    """Objects that are listed in pages of a few; ``fails_at`` is the page that cannot be read."""

    def __init__(self, keys, size=3, fails_at=None):
        self.keys = sorted(set(keys), key=str.encode)
        self.size = size
        self.fails_at = fails_at
        self.pages = 0

    def page(self, prefix, after=""):
        self.pages += 1
        if self.pages == self.fails_at:
            raise StoreError("page")
        found = [key for key in self.keys if key.startswith(prefix) and key > after]
        part = found[: self.size]
        return Page([Object(key, "e", 1, NOW) for key in part], len(found) > len(part))

    def folders(self, prefix):
        rests = [key[len(prefix) :] for key in self.keys if key.startswith(prefix)]
        return sorted({f"{prefix}{rest.split('/')[0]}/" for rest in rests if "/" in rest})


#: All that has an UTF-8 form.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)

KEYS = st.builds(
    lambda prefix, rest: prefix + rest,
    st.sampled_from(
        ["", "variants/", "variants/0", "variants/f", "manifests/photos/a", "uploads/photos/",
         "uploads/photos/2026/", "uploads/shop", "tables/", "trash/", "zz"]
    ),
    TEXT,
)  # fmt: skip


@given(st.sets(KEYS.filter(bool), max_size=60))
def test_a_parallel_listing_has_every_object_once(keys):
    found = [one.key for page in list_all(Paged(keys), PREFIXES, 4) for one in page]
    assert sorted(found) == sorted(keys)


def many_keys():
    return [f"variants/{image_id(n)}/x" for n in range(40)] + [
        f"uploads/photos/{n}/x" for n in "abc"
    ]


def test_an_error_on_any_page_ends_the_listing():
    keys = many_keys()
    whole = Paged(keys)
    assert len([one for page in list_all(whole, PREFIXES) for one in page]) == len(keys)
    # No range is listed beyond its end: the first page, and of each range at most one more than
    # it needs.
    assert whole.pages <= 1 + len(keys) / whole.size + len(cuts_of(whole, PREFIXES)) + 1
    for fails_at in range(1, whole.pages + 1):
        with pytest.raises(StoreError):
            list(list_all(Paged(keys, fails_at=fails_at), PREFIXES))


def test_a_listing_that_is_not_in_order_is_an_error():
    class Unordered(Paged):
        def page(self, prefix, after=""):
            page = super().page(prefix, after)
            return Page(page.objects[::-1], page.more)

    with pytest.raises(StoreError, match="order"):
        list(list_all(Unordered(many_keys()), PREFIXES))


def test_a_listing_that_repeats_itself_is_an_error():
    class Repeating(Paged):
        def page(self, prefix, after=""):
            return super().page(prefix, "")

    with pytest.raises(StoreError, match="order"):
        list(list_all(Repeating(many_keys()), PREFIXES))


def test_a_page_that_promises_more_and_has_nothing_is_an_error():
    class Promising(Paged):
        def page(self, prefix, after=""):
            return Page([], True)

    with pytest.raises(StoreError, match="more follows"):
        list(list_all(Promising(many_keys()), PREFIXES))


def test_a_small_bucket_is_listed_with_one_request():
    small = Paged(["a", "variants/b"])
    assert [one.key for page in list_all(small, PREFIXES) for one in page] == small.keys
    assert small.pages == 1


def rows_of(bucket, inventory, **options):
    with open_inventory(bucket, inventory) as file:
        return [row for part in file.rows(**options) for row in part]


@pytest.fixture
def filled(catalog):
    made = Filled(catalog)
    made.batch()
    return made


def test_everything_in_a_real_bucket_is_written_down(bucket, catalog, filled):
    _, key = filled.published("a")
    keys = [f"uploads/photos/{key}" for key in ODD_KEYS]
    keys += [f"uploads/shop/{n % 7}/{n:04d}.jpg" for n in range(1200)]
    keys += [variant_key(image_id(n)) for n in range(300)] + [key, layout.batch_key(BATCH), "ü b"]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: bucket.put(key, key.encode(), "text/plain"), keys))
    seen = []
    found = take_inventory(
        bucket, catalog, settings_of(), lambda: NOW, lambda *progress: seen.append(progress)
    )
    rows = rows_of(bucket, found.id)
    assert sorted(row.key for row in rows) == sorted(keys)
    sizes = [len(key.encode()) for key in keys]
    assert (found.objects, found.bytes) == (len(keys), sum(sizes))
    assert {row.key: (row.size, row.etag) for row in rows} == {
        key: (len(key.encode()), hashlib.md5(key.encode()).hexdigest()) for key in keys
    }
    assert {row.storage_class for row in rows} == {"STANDARD"}
    assert (found.origin, found.taken_at) == ("listing", NOW)
    assert seen[-1] == ("storage_inventory", len(keys), len(keys))
    by_key = {row.key: (row.kind, row.by, row.orphan) for row in rows}
    assert by_key[key] == ("variant", "publication", False)
    assert by_key["ü b"] == ("foreign", "foreign", False)
    assert by_key[layout.batch_key(BATCH)] == ("batch", "batch", False)
    assert by_key[keys[0]] == ("upload", "unknown_upload", True)
    totals = {group: (total.objects, total.bytes) for group, total in found.groups.items()}
    assert sum(objects for objects, _ in totals.values()) == len(keys)
    assert totals["variants/", "STANDARD", "variant", "unknown_variant", True][0] == 300
    assert totals["elsewhere", "STANDARD", "foreign", "foreign", False] == (1, 4)
    assert len(found.orphans) == 50
    orphans = rows_of(bucket, found.id, kinds=("variant",), orphan=True)
    assert sorted(row.key for row in orphans) == sorted(
        variant_key(image_id(n)) for n in range(300)
    )
    with catalog.read() as connection:
        (recorded,) = housekeeping.newest_inventories(connection, 5)
    assert recorded == housekeeping.InventoryRow(
        found.id, NOW, len(keys), sum(sizes), "listing", complete=True
    )


class Failing:
    """A bucket whose listing fails after some pages, and whose uploads are counted."""

    def __init__(self, bucket, keys, fails_at):
        self._bucket = bucket
        self._paged = Paged(keys, fails_at=fails_at)
        self.page, self.folders = self._paged.page, self._paged.folders

    def __getattr__(self, name):
        return getattr(self._bucket, name)


@pytest.mark.parametrize("fails_at", [1, 2, 9])
def test_an_inventory_that_breaks_off_is_never_complete(bucket, catalog, filled, fails_at):
    with pytest.raises(StoreError):
        take_inventory(Failing(bucket, many_keys(), fails_at), catalog, settings_of(), lambda: NOW)
    with catalog.read() as connection:
        assert housekeeping.newest_inventories(connection, 5) == []
        (begun,) = housekeeping.newest_inventories(connection, 5, complete_only=False)
    assert not begun.complete
    assert list(bucket.list("")) == []


def test_a_file_has_row_groups_and_says_which_bucket_it_is_of(
    bucket, catalog, filled, monkeypatch, tmp_path
):
    monkeypatch.setattr(module, "ROW_GROUP", 10)
    fake = Failing(bucket, [f"k{n:03d}" for n in range(95)], None)
    found = take_inventory(fake, catalog, settings_of(), lambda: NOW)
    data = pq.ParquetFile(io.BytesIO(bucket.get(found.key)))
    assert data.num_row_groups > 5
    assert max(data.metadata.row_group(n).num_rows for n in range(data.num_row_groups)) <= 12
    table = data.read()
    assert table.num_rows == 95
    assert set(table["age_days"].to_pylist()) == {0.0}
    with open_inventory(bucket, found.id) as file:
        assert file.is_of(bucket)
        assert len(file) == 95
        assert [len(part) for part in file.rows(chunk=40)] == [40, 40, 15]
        assert file.total() == Total(95, 95)
        assert file.total(without=("foreign",)) == Total(0, 0)
        bucket.settings = bucket.settings.model_copy(update={"endpoint_url": "http://other"})
        assert not file.is_of(bucket)


def test_an_inventory_that_is_gone_is_refused(bucket, catalog, filled):
    with pytest.raises(PlanRefused, match="inventory_gone"), open_inventory(bucket, "nothing"):
        pass


def test_a_bounded_number_of_inventories_is_kept(bucket, catalog, filled):
    with catalog.write() as connection:
        row = housekeeping.InventoryRow("broken-off", NOW, 0, 0, "listing", complete=False)
        housekeeping.record_inventory(connection, row)
    taken = [
        take_inventory(bucket, catalog, settings_of(), lambda day=day: NOW + timedelta(days=day)).id
        for day in range(KEPT + 2)
    ]
    with catalog.read() as connection:
        rows = housekeeping.newest_inventories(connection, 99, complete_only=False)
    assert [row.id for row in rows] == taken[:1:-1]
    # The files of those that were forgotten are nobody's from then on.
    last = take_inventory(bucket, catalog, settings_of(), lambda: NOW + timedelta(days=30))
    old = [one for one in rows_of(bucket, last.id) if one.by == "old_inventory"]
    assert sorted(one.key for one in old) == sorted(layout.inventory_key(one) for one in taken[:2])
    assert Group("plans/", "STANDARD", "inventory", "old_inventory", True) in last.groups


# Reports of S3 Inventory, as https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html
# describes them.

WRITTEN = datetime(2026, 5, 20, 8, 30, 15, tzinfo=UTC)
CREATED = datetime(2026, 6, 1, 4, 0, tzinfo=UTC)

#: Key, size, ETag, class, is latest, is delete marker.
REPORTED = [
    ("uploads/photos/a b+c%2F, \"ü\".jpg", 12, "e1", "STANDARD", True, False),
    ("uploads/photos/old.jpg", 13, "e2-3", "GLACIER", True, False),
    ("uploads/photos/old.jpg", 14, "e3", "STANDARD", False, False),
    ("uploads/photos/deleted.jpg", None, None, None, True, True),
    (f"variants/{image_id('x')}/small-1x1.0a.webp", 15, "e4", "STANDARD_IA", True, False),
]  # fmt: skip

CSV_SCHEMA = (
    "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
)
PARQUET_SCHEMA = (
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8);"
    " optional binary version_id (UTF8); optional boolean is_latest;"
    " optional boolean is_delete_marker; optional int64 size;"
    " optional int64 last_modified_date (TIMESTAMP_MILLIS); optional binary e_tag (UTF8);"
    " optional binary storage_class (UTF8); }"
)
ORC_SCHEMA = (
    "struct<bucket:string,key:string,version_id:string,is_latest:boolean,"
    "is_delete_marker:boolean,size:bigint,last_modified_date:timestamp,e_tag:string,"
    "storage_class:string>"
)


def csv_file(rows, name):
    lines = io.StringIO()
    writer = csv.writer(lines, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for key, size, etag, kind, latest, marker in rows:
        written = "" if marker else f"{WRITTEN:%Y-%m-%dT%H:%M:%S}.000Z"
        writer.writerow(
            [name, quote_plus(key, safe="/"), "v", str(latest).lower(), str(marker).lower(),
             "" if size is None else size, written, etag or "", kind or ""]
        )  # fmt: skip
    return gzip.compress(lines.getvalue().encode())


def arrow_table(rows, name):
    keys, sizes, etags, kinds, latest, markers = zip(*rows, strict=True)
    return pa.table(
        {
            "bucket": [name] * len(rows), "key": keys, "version_id": ["v"] * len(rows),
            "is_latest": latest, "is_delete_marker": markers, "size": pa.array(sizes, pa.int64()),
            "last_modified_date": pa.array(
                [None if marker else WRITTEN.replace(tzinfo=None) for marker in markers],
                pa.timestamp("ms"),
            ),
            "e_tag": etags, "storage_class": kinds,
        }
    )  # fmt: skip


def parquet_file(rows, name):
    data = io.BytesIO()
    pq.write_table(arrow_table(rows, name), data)
    return data.getvalue()


def orc_file(rows, name):
    data = io.BytesIO()
    orc.write_table(arrow_table(rows, name), data)
    return data.getvalue()


FORMATS = {
    "CSV": (CSV_SCHEMA, csv_file, "csv.gz"),
    "Parquet": (PARQUET_SCHEMA, parquet_file, "parquet"),
    "ORC": (ORC_SCHEMA, orc_file, "orc"),
}


class Delivered:
    """Reports in a bucket, as S3 delivers them."""

    def __init__(self, bucket, root="reports/"):
        self.bucket = bucket
        self.folder = f"{root}{bucket.name}/weekly/"

    def deliver(self, kind="CSV", created=CREATED, parts=(REPORTED,), **changes):
        schema, data_of, ending = FORMATS[kind]
        files = []
        for number, rows in enumerate(parts):
            data = data_of(rows, self.bucket.name)
            key = f"{self.folder}data/{number}.{ending}"
            self.bucket.put(key, data, "application/octet-stream")
            files.append(
                {"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}
            )
        manifest = {
            "sourceBucket": self.bucket.name,
            "destinationBucket": f"arn:aws:s3:::{self.bucket.name}",
            "version": "2016-11-30",
            "creationTimestamp": str(int(created.timestamp() * 1000)),
            "fileFormat": kind, "fileSchema": schema, "files": files, **changes,
        }  # fmt: skip
        key = f"{self.folder}{created:%Y-%m-%dT%H-%MZ}/manifest.json"
        self.bucket.put(key, json.dumps(manifest).encode(), "application/json")
        return manifest

    @property
    def url(self):
        return f"s3://{self.bucket.name}/{self.folder}"


def with_reports(url):
    return settings_of(maintenance=Maintenance(inventory=url))


EXPECTED = [
    Listed(REPORTED[0][0], "e1", 12, WRITTEN, "STANDARD", "upload", "unknown_upload", True),
    Listed(REPORTED[1][0], "e2-3", 13, WRITTEN, "GLACIER", "upload", "unknown_upload", True),
    Listed(
        REPORTED[4][0], "e4", 15, WRITTEN, "STANDARD_IA", "variant", "unknown_variant", True
    ),
]  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_reports_of_s3_take_the_place_of_a_listing(bucket, catalog, filled, kind):
    delivered = Delivered(bucket)
    delivered.deliver(kind, parts=(REPORTED[:2], REPORTED[2:]))
    found = take_inventory(bucket, catalog, with_reports(delivered.url), lambda: NOW)
    assert (found.origin, found.taken_at, found.objects) == ("s3-inventory", CREATED, 3)
    assert found.bytes == 12 + 13 + 15
    assert rows_of(bucket, found.id) == EXPECTED


def test_the_newest_report_that_is_whole_is_taken(bucket, catalog, filled):
    delivered = Delivered(bucket)
    delivered.deliver(created=CREATED - timedelta(days=2))
    delivered.deliver(created=CREATED - timedelta(days=1))
    # Of the last one only the folder is there yet.
    bucket.put(f"{delivered.folder}2026-06-01T04-00Z/manifest.checksum", b"", "text/plain")
    bucket.put(f"{delivered.folder}hive/dt=2026-06-01-04-00/symlink.txt", b"", "text/plain")
    settings = with_reports(delivered.url)
    found = take_inventory(bucket, catalog, settings, lambda: NOW)
    assert found.taken_at == CREATED - timedelta(days=1)


def test_reports_are_found_from_the_prefix_above(bucket):
    Delivered(bucket).deliver()
    for prefix in ("reports/", f"reports/{bucket.name}/", f"reports/{bucket.name}/weekly/"):
        assert newest_report(bucket, prefix, bucket.name).created_at == CREATED


def test_reports_may_lie_in_another_bucket(bucket, catalog, filled):
    other = Bucket(bucket.settings.model_copy(update={"name": f"{bucket.name}-reports"}))
    other.create_if_missing()
    delivered = Delivered(other)
    delivered.deliver(sourceBucket=bucket.name)
    found = take_inventory(bucket, catalog, with_reports(delivered.url), lambda: NOW)
    other.client.close()
    assert found.objects == 3


def refusal(bucket, catalog, url):
    with pytest.raises(PlanRefused) as refused:
        take_inventory(bucket, catalog, with_reports(url), lambda: NOW)
    with catalog.read() as connection:
        assert housekeeping.newest_inventories(connection, 5) == []
    return refused.value.code


def test_a_report_of_another_bucket_is_refused(bucket, catalog, filled):
    delivered = Delivered(bucket)
    delivered.deliver(sourceBucket="somebody-elses")
    assert refusal(bucket, catalog, delivered.url) == "other_bucket"


def test_where_no_report_is_that_is_said(bucket, catalog, filled):
    assert refusal(bucket, catalog, f"s3://{bucket.name}/reports/") == "no_report"


@pytest.mark.parametrize("field", ["Key", "Size", "LastModifiedDate", "ETag"])
def test_a_report_without_a_field_that_is_needed_is_refused(bucket, catalog, filled, field):
    delivered = Delivered(bucket)
    schema = ", ".join(name for name in CSV_SCHEMA.split(", ") if name != field)
    delivered.deliver(fileSchema=schema)
    assert refusal(bucket, catalog, delivered.url) == "report_fields"


@pytest.mark.parametrize("spoil", ["gone", "cut", "changed"])
def test_a_file_that_is_not_the_one_reported_ends_the_inventory(bucket, catalog, filled, spoil):
    delivered = Delivered(bucket)
    manifest = delivered.deliver(parts=(REPORTED[:2], REPORTED[2:]))
    key = manifest["files"][1]["key"]
    data = bucket.get(key)
    if spoil == "gone":
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    else:
        bucket.put(key, data[:-1] if spoil == "cut" else data[::-1], "text/plain")
    assert refusal(bucket, catalog, delivered.url) == "report_broken"


def test_what_is_no_manifest_is_refused():
    for text in (b"", b"{}", b"[]", b'{"creationTimestamp": "x", "files": []}'):
        with pytest.raises(PlanRefused, match="report_format"):
            read_manifest(text)


def test_a_format_that_is_not_read_is_refused(bucket, catalog, filled):
    delivered = Delivered(bucket)
    delivered.deliver(fileFormat="Avro")
    assert refusal(bucket, catalog, delivered.url) == "report_format"


@pytest.mark.parametrize("kind", FORMATS)
def test_large_files_of_reports_are_read_in_chunks(bucket, kind):
    rows = [(f"k{n}", n, f"e{n}", "STANDARD", True, False) for n in range(2500)]
    delivered = Delivered(bucket)
    delivered.deliver(kind, parts=(rows,))
    report = newest_report(bucket, delivered.folder, bucket.name)
    parts = list(read_report(bucket, report))
    assert max(len(part) for part in parts) <= 1000
    assert [one.key for part in parts for one in part] == [key for key, *_ in rows]


def test_a_bucket_is_cut_where_its_folders_are():
    keys = [f"uploads/photos/{year}/{month:02}/x" for year in (2025, 2026) for month in range(9)]
    cuts = cuts_of(Paged([*keys, "uploads/shop/x"]), PREFIXES)
    assert {f"uploads/photos/{year}/{month:02}/" for year in (2025, 2026) for month in range(9)} < {
        *cuts
    }
    assert {"variants/0", "variants/f", "manifests/shop/a", "trash/", "uploads/shop/"} < {*cuts}
    many = Paged([f"uploads/photos/{n:04}/x" for n in range(1000)])
    assert len([cut for cut in cuts_of(many, PREFIXES) if cut.startswith("uploads/photos/")]) <= 65
