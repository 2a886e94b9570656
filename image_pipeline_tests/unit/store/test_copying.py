"""Copies lose nothing, whatever their size; archived objects are told apart."""

import random
import threading
from datetime import UTC, datetime, timedelta

import pytest

from image_pipeline.store.bucket import (
    ObjectArchivedError,
    ObjectChangedError,
    ObjectGoneError,
    StoreError,
)
from image_pipeline.store.objects import parse_restore

#: What an object may carry besides its bytes, as S3 takes it.
CARRIED = {
    "ContentType": "image/tiff",
    "CacheControl": "public, max-age=77",
    "ContentDisposition": 'attachment; filename="ä.tif"'.encode().decode("latin-1"),
    "ContentLanguage": "de",
    "Metadata": {"camera": "box", "note": "a b"},
}
TAGS = [{"Key": "keep", "Value": "yes & no"}, {"Key": "who", "Value": "me+you"}]


def write(bucket, key, data, **extra):
    bucket.client.put_object(
        Bucket=bucket.name, Key=key, Body=data, Tagging="keep=yes+%26+no&who=me%2Byou",
        **{**CARRIED, **extra},
    )  # fmt: skip


def carried(bucket, key):
    answer = bucket.client.head_object(Bucket=bucket.name, Key=key)
    tags = bucket.client.get_object_tagging(Bucket=bucket.name, Key=key)["TagSet"]
    return {name: answer.get(name) for name in CARRIED}, sorted(tags, key=lambda tag: tag["Key"])


@pytest.mark.parametrize("to_class", [None, "STANDARD_IA", "GLACIER"])
@pytest.mark.parametrize("parts", [False, True])
def test_a_copy_carries_everything_along(bucket, parts, to_class):
    data = random.Random(5).randbytes(11 * 1024 * 1024 if parts else 3000)
    if parts:
        bucket.copy_bytes, bucket.part_bytes = 5_000_000, 5 * 1024 * 1024
    write(bucket, "from/ä b+c.tif", data)
    before = bucket.head("from/ä b+c.tif")
    etag = bucket.copy(
        before and "from/ä b+c.tif", "to/x", etag=before.etag, storage_class=to_class
    )
    after = bucket.head("to/x")
    assert (after.etag, after.size) == (etag, len(data))
    assert etag.endswith("-3") == parts
    assert after.storage_class == (to_class or "STANDARD")
    assert carried(bucket, "to/x") == (carried(bucket, "from/ä b+c.tif")[0], TAGS)
    assert carried(bucket, "from/ä b+c.tif")[1] == TAGS
    if to_class != "GLACIER":
        assert bucket.get("to/x") == data


def test_a_copy_of_something_in_a_colder_class_is_standard_unless_told(bucket):
    write(bucket, "cold", b"x", StorageClass="STANDARD_IA")
    bucket.copy("cold", "copy")
    assert bucket.head("copy").storage_class == "STANDARD"


def test_an_object_changes_its_class_in_place(bucket):
    write(bucket, "photo", b"pixels")
    before = carried(bucket, "photo")
    etag = bucket.copy("photo", "photo", storage_class="STANDARD_IA")
    (listed,) = bucket.list("photo")
    assert (listed.storage_class, listed.etag) == ("STANDARD_IA", etag)
    assert carried(bucket, "photo") == before
    assert bucket.get("photo") == b"pixels"


@pytest.mark.parametrize("parts", [False, True])
def test_only_the_version_asked_for_is_copied(bucket, parts):
    bucket.put("photo", b"first", "image/jpeg")
    first = bucket.head("photo")
    bucket.put("photo", b"other", "image/jpeg")
    if parts:
        bucket.copy_bytes, bucket.part_bytes = 1, 5 * 1024 * 1024
    with pytest.raises(ObjectChangedError, match="photo"):
        bucket.copy("photo", "to", etag=first.etag)
    # What was known is old: the store itself compares.
    with pytest.raises(ObjectChangedError, match="photo"):
        bucket.copy("photo", "to", etag=first.etag, known=first)
    assert bucket.head("to") is None
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name)
    assert uploads.get("Uploads", []) == [], "parts that nobody completes are paid for"


def test_nothing_is_overwritten_if_told_so(bucket):
    headers = []
    bucket.client.meta.events.register(
        "before-call.s3.CopyObject", lambda **call: headers.append(call["params"]["headers"])
    )
    bucket.put("photo", b"first", "image/jpeg")
    bucket.copy("photo", "to", only_if_missing=True)
    # The server of these tests does not look at it in this request; S3 does.
    assert [sent["If-None-Match"] for sent in headers] == ["*"]
    bucket.put("photo", b"other", "image/jpeg")
    bucket.copy_bytes, bucket.part_bytes = 1, 5 * 1024 * 1024
    with pytest.raises(ObjectChangedError):
        bucket.copy("photo", "to", only_if_missing=True)
    assert bucket.get("to") == b"first"


def test_what_is_gone_cannot_be_copied(bucket):
    with pytest.raises(ObjectGoneError, match="nothing"):
        bucket.copy("nothing", "to")


def test_an_archived_object_says_so_until_it_is_restored(bucket, tmp_path):
    write(bucket, "deep", b"pixels", StorageClass="DEEP_ARCHIVE")
    head = bucket.head("deep")
    assert (head.storage_class, head.restore, head.archived) == ("DEEP_ARCHIVE", "", True)
    for read in (
        lambda: bucket.get("deep"),
        lambda: bucket.download("deep", tmp_path / "file", head.etag),
        lambda: bucket.copy("deep", "to"),
    ):
        with pytest.raises(ObjectArchivedError, match="deep"):
            read()
    assert list(tmp_path.iterdir()) == []
    assert bucket.restore("deep", 3, "Bulk")
    assert bucket.head("deep").restore == "ongoing"
    assert not bucket.restore("deep", 3, "Bulk"), "it is under way"
    assert bucket.head("deep").archived
    # The server takes two seconds, as a store takes hours.
    pause, deadline = threading.Event(), datetime.now(UTC) + timedelta(seconds=20)
    while bucket.head("deep").restore == "ongoing" and datetime.now(UTC) < deadline:
        pause.wait(0.1)
    head = bucket.head("deep")
    until = datetime.fromisoformat(head.restore.removeprefix("until "))
    assert timedelta(days=2) < until - datetime.now(UTC) < timedelta(days=5)
    assert not head.archived
    assert bucket.get("deep") == b"pixels"
    bucket.copy("deep", "to", etag=head.etag)
    assert bucket.head("to").storage_class == "STANDARD"


def test_what_is_not_archived_cannot_be_restored(bucket):
    bucket.put("photo", b"x", "image/jpeg")
    with pytest.raises(StoreError, match="photo"):
        bucket.restore("photo", 1, "Standard")
    with pytest.raises(ObjectGoneError):
        bucket.restore("nothing", 1, "Standard")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ""),
        ('ongoing-request="true"', "ongoing"),
        # The example of S3's own reference of HeadObject.
        (
            'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"',
            "until 2012-12-21T00:00:00+00:00",
        ),
    ],
)
def test_the_header_about_a_restore(header, expected):
    assert parse_restore(header) == expected
