"""What a bucket is set to; listing by folders; URLs that work without credentials."""

from urllib.request import urlopen

import pytest

from image_pipeline.store.bucket import Bucket, StoreError
from image_pipeline.store.configuration import put_lifecycle

TRASH = {
    "ID": "trash", "Status": "Enabled", "Filter": {"Prefix": "trash/"}, "Expiration": {"Days": 60},
}  # fmt: skip


def test_lifecycle_rules_are_read_and_replaced(bucket):
    assert bucket.lifecycle() == []
    bucket.put_lifecycle([TRASH])
    assert bucket.lifecycle() == [TRASH]
    other = TRASH | {"ID": "other", "Status": "Disabled"}
    bucket.put_lifecycle([other, TRASH])
    assert {rule["ID"]: rule["Status"] for rule in bucket.lifecycle()} == {
        "other": "Disabled", "trash": "Enabled",
    }  # fmt: skip
    bucket.put_lifecycle([])
    assert bucket.lifecycle() == []


class Client:
    """A client of a bucket with another setting than S3's default."""

    def __init__(self):
        self.put = None

    def get_bucket_lifecycle_configuration(self, Bucket):  # noqa: N803
        return {"Rules": [TRASH], "TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}

    def put_bucket_lifecycle_configuration(self, **request):
        self.put = request


def test_what_else_the_lifecycle_is_set_to_stays():
    client = Client()
    put_lifecycle(client, "pictures", [TRASH | {"ID": "new"}])
    assert client.put == {
        "Bucket": "pictures",
        "LifecycleConfiguration": {"Rules": [TRASH | {"ID": "new"}]},
        "TransitionDefaultMinimumObjectSize": "varies_by_storage_class",
    }


def test_a_bucket_that_is_not_there_is_an_error_and_not_an_empty_answer(bucket):
    nowhere = Bucket(bucket.settings.model_copy(update={"name": "nobody-made-this"}))
    for ask in (nowhere.lifecycle, lambda: nowhere.versioned, lambda: nowhere.folders("")):
        with pytest.raises(StoreError, match="NoSuchBucket"):
            ask()
    nowhere.client.close()


def test_folders_are_told_from_objects(bucket):
    for key in ("a/1", "a/2", "b/c/3", "ä /x", "file", "a/deep/4"):
        bucket.put(key, b"", "text/plain")
    assert bucket.folders("") == ["a/", "b/", "ä /"]
    assert bucket.folders("a/") == ["a/deep/"]
    assert bucket.folders("nobody/") == []


def test_more_folders_than_a_page(bucket):
    for n in range(1003):
        bucket.put(f"many/{n:04d}/x", b"", "text/plain")
    assert bucket.folders("many/") == [f"many/{n:04d}/" for n in range(1003)]


def test_listings_tell_the_class(bucket):
    bucket.put("plain", b"x", "text/plain")
    bucket.client.put_object(Bucket=bucket.name, Key="rare", Body=b"x", StorageClass="GLACIER_IR")
    found = {one.key: one.storage_class for one in bucket.list("")}
    assert found == {"plain": "STANDARD", "rare": "GLACIER_IR"}


def test_a_presigned_url_needs_no_credentials(bucket):
    bucket.put("photos/ä b+c.jpg", b"pixels", "image/jpeg")
    with urlopen(bucket.presigned_url("photos/ä b+c.jpg", 60)) as answer:
        assert answer.read() == b"pixels"
