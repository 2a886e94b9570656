"""What events say: forms as AWS documents them, written by hand."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given

from image_pipeline.ingest.events import BadMessageError, Created, created_objects, source_of

RECORD = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-east-1",
    "eventTime": "2026-03-01T09:30:00.123Z",
    "eventName": "ObjectCreated:Put",
    "s3": {
        "s3SchemaVersion": "1.0",
        "bucket": {"name": "images", "arn": "arn:aws:s3:::images"},
        "object": {
            "key": "uploads/photos/Ferien+am+See+%281%29%2B%C3%A4.jpg",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
AT = datetime(2026, 3, 1, 9, 30, 0, 123000, tzinfo=UTC)


def changed(**fields):
    return RECORD | fields


def with_object(**fields):
    return changed(s3=RECORD["s3"] | {"object": RECORD["s3"]["object"] | fields})


def body(*records):
    return json.dumps({"Records": list(records)})


def test_a_put():
    assert created_objects(body(RECORD)) == [
        Created(
            "images", "uploads/photos/Ferien am See (1)+ä.jpg",
            "d41d8cd98f00b204e9800998ecf8427e", 1024, AT,
        )
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["Put", "Post", "Copy", "CompleteMultipartUpload"])
@pytest.mark.parametrize("prefix", ["", "s3:"])
def test_every_way_to_write_an_object(name, prefix):
    (found,) = created_objects(body(changed(eventName=f"{prefix}ObjectCreated:{name}")))
    assert found.size == 1024


@pytest.mark.parametrize(
    "name",
    [
        "ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "LifecycleTransition",
        "ObjectRestore:Completed", "ObjectTagging:Put", "ReducedRedundancyLostObject",
    ],
)  # fmt: skip
def test_everything_else_that_happens_to_objects_is_no_upload(name):
    assert created_objects(body(changed(eventName=name))) == []


def test_keys_are_decoded_exactly_once():
    (found,) = created_objects(body(with_object(key="uploads/100%2525+%252F.jpg")))
    assert found.key == "uploads/100%25 %2F.jpg"


def test_the_message_that_s3_sends_when_notifications_are_switched_on():
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "images", "HostId": "x"}
    assert created_objects(json.dumps(test)) == []


def test_several_records_and_those_inside_a_notification_of_sns():
    inner = body(RECORD, changed(eventName="ObjectRemoved:Delete"), with_object(key="b"))
    wrapped = json.dumps({"Type": "Notification", "TopicArn": "arn", "Message": inner})
    assert [one.key for one in created_objects(wrapped)] == [
        "uploads/photos/Ferien am See (1)+ä.jpg", "b",
    ]  # fmt: skip


def event_bridge(**fields):
    event = {
        "version": "0",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "time": "2026-03-01T09:30:00Z",
        "detail": {
            "bucket": {"name": "images"},
            "object": {"key": "uploads/a+b%20c.jpg", "size": 5, "etag": "b1946ac9"},
        },
    }
    return json.dumps(event | fields)


def test_keys_of_event_bridge_are_taken_as_they_are():
    (found,) = created_objects(event_bridge())
    assert (found.key, found.etag, found.size) == ("uploads/a+b%20c.jpg", "b1946ac9", 5)
    assert found.at == datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    assert created_objects(event_bridge(**{"detail-type": "Object Deleted"})) == []


def test_an_event_without_an_etag_or_with_quotes_around_it():
    without = {"key": "a", "size": 1}
    (found,) = created_objects(body(changed(s3=RECORD["s3"] | {"object": without})))
    assert found.etag == ""
    (found,) = created_objects(body(with_object(eTag='"abc-3"')))
    assert found.etag == "abc-3"


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "7", "hello", "{}", '{"Records": 1}', '{"Records": [1]}',
        '{"Records": [{}]}', '{"Type": "Notification"}', '{"Type": "Notification", "Message": "x"}',
        '{"detail-type": "Object Created"}', "[" * 100_000,
        body(changed(eventTime="yesterday")), body(with_object(key="")),
        body(with_object(key="%ff%fe")), body(with_object(size="many")), body(changed(s3=None)),
        body(RECORD, {"eventName": "ObjectCreated:Put"}),
    ],
)  # fmt: skip
def test_what_is_no_event(text):
    with pytest.raises(BadMessageError):
        created_objects(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Records", "Type", "Message", "Event", "detail-type", "detail", "s3", "object",
                 "bucket", "key", "name", "eventName", "eventTime", "size", "time"]
            ),
            inner, max_size=5,
        ),
        max_leaves=20,
    )
)  # fmt: skip
def test_no_json_escapes_the_two_answers(value):
    with suppress(BadMessageError):
        assert isinstance(created_objects(json.dumps(value)), list)


def test_the_source_is_told_by_the_prefix():
    prefixes = {"shop": "uploads/shop/", "shop2": "uploads/shop2/"}
    assert source_of("uploads/shop2/a.jpg", prefixes) == "shop2"
    assert source_of("uploads/shop/a.jpg", prefixes) == "shop"
    assert source_of("uploads/shopping/a.jpg", prefixes) is None
