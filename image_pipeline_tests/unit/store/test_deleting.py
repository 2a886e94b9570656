"""Deletions: by the thousand, each with its own result, markers unless they are to be final."""

from types import SimpleNamespace

import pytest

from image_pipeline.store import deleting
from image_pipeline.store.bucket import Bucket, StoreError
from image_pipeline_tests.unit.store.test_bucket import ODD_KEYS


def fill(bucket, keys):
    for key in keys:
        bucket.put(key, key.encode(), "text/plain")


@pytest.fixture
def versioned_bucket(bucket):
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    return bucket


def test_keys_people_really_have_can_be_deleted(bucket):
    keys = [*ODD_KEYS, "bell\x07.jpg"]
    fill(bucket, [*keys, "neighbour"])
    assert bucket.delete([*keys, "was never there"]) == {}
    assert [one.key for one in bucket.list("")] == ["neighbour"]
    assert bucket.delete([]) == {}


def test_more_than_a_request_takes(bucket):
    keys = [f"many/{n:04d}" for n in range(1001)]
    fill(bucket, ["many/0000", "many/0999", "many/1000", "other"])
    requests = []
    bucket.client.meta.events.register(
        "before-call.s3.DeleteObjects", lambda **call: requests.append(call["params"]["body"])
    )
    assert bucket.delete(keys) == {}
    assert [body.count(b"<Key>") for body in requests] == [1000, 1]
    assert [one.key for one in bucket.list("")] == ["other"]


def test_what_has_changed_meanwhile_stays(bucket):
    fill(bucket, ["changed", "same", "bell\x07"])
    etags = {key: bucket.head(key).etag for key in ("changed", "same", "bell\x07")}
    bucket.put("changed", b"anew", "text/plain")
    bucket.put("bell\x07", b"anew", "text/plain")
    errors = bucket.delete(["changed", "same", "bell\x07"], etags=etags)
    assert sorted(errors) == ["bell\x07", "changed"]
    assert all(error.startswith("PreconditionFailed") for error in errors.values())
    assert {one.key for one in bucket.list("")} == {"changed", "bell\x07"}


class Fails:
    """A client whose DeleteObjects fails for some keys, with these codes, one after another."""

    def __init__(self, codes):
        self.codes = codes
        self.requests = []

    def delete_objects(self, Bucket, Delete):  # noqa: N803
        keys = [one["Key"] for one in Delete["Objects"]]
        self.requests.append(keys)
        errors = [
            {"Key": key, "Code": self.codes[key].pop(0), "Message": "no"}
            for key in keys
            if self.codes.get(key)
        ]
        return {"Errors": errors} if errors else {}


def test_errors_of_single_keys_are_reported_and_passing_ones_tried_again(monkeypatch):
    waits = []
    monkeypatch.setattr(deleting, "time", SimpleNamespace(sleep=waits.append))
    client = Fails(
        {"b": ["AccessDenied"], "c": ["InternalError", "SlowDown"], "d": ["SlowDown"] * 99}
    )
    errors = deleting.delete(client, "bucket", ["a", "b", "c", "d"], {})
    assert errors == {"b": "AccessDenied: no", "d": "SlowDown: no"}
    assert client.requests == [["a", "b", "c", "d"], ["c", "d"], ["c", "d"], ["d"]]
    assert len(waits) == 3


def test_a_request_that_fails_as_a_whole_is_a_store_error(bucket):
    nowhere = Bucket(bucket.settings.model_copy(update={"name": "nobody-made-this"}))
    with pytest.raises(StoreError, match="NoSuchBucket"):
        nowhere.delete(["a"])
    nowhere.client.close()


def test_deletes_of_a_versioned_bucket_can_be_undone(versioned_bucket):
    bucket = versioned_bucket
    assert bucket.versioned
    bucket.put("photo", b"first", "image/jpeg")
    bucket.put("photo", b"second", "image/jpeg")
    bucket.put("photo/b", b"neighbour", "image/jpeg")
    assert bucket.delete(["photo"]) == {}
    assert bucket.head("photo") is None
    (marker,) = [one for one in bucket.versions("photo") if one.marker]
    bucket.client.delete_object(Bucket=bucket.name, Key="photo", VersionId=marker.id)
    assert bucket.get("photo") == b"second"


def test_what_is_erased_is_gone_for_good_and_nothing_else(versioned_bucket):
    bucket = versioned_bucket
    fill(bucket, ["photo", "photo", "photo/b"])
    bucket.delete(["photo"])
    assert bucket.erase("photo") == 3
    assert [one.key for one in bucket.versions("photo")] == ["photo/b"]
    assert bucket.erase("photo") == 0
    assert bucket.get("photo/b") == b"photo/b"


def test_a_bucket_that_never_kept_versions(bucket):
    assert not bucket.versioned
    fill(bucket, ["photo"])
    assert bucket.erase("photo") == 1
    assert bucket.head("photo") is None
