"""Events through a real SQS queue that a real bucket writes to."""

import json
import secrets
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import removals
from image_pipeline.catalog.schema import uploads
from image_pipeline.embedded import EmbeddedS3
from image_pipeline.ingest.discovery import sweep
from image_pipeline.ingest.queue import Queue, drain
from image_pipeline.settings import BucketSettings, Settings, Source
from image_pipeline.store.bucket import Bucket, StoreError

KEYS = [
    "uploads/photos/plain.jpg",
    "uploads/photos/Ferien am See (1) +ä 100%.jpg",
    "uploads/photos/a+b%20c//d.jpg",
    "uploads/photos/emoji \U0001f3d4.jpg",
    "uploads/photos/" + "n" * 900 + ".jpg",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedS3(tmp_path_factory.mktemp("s3"), services=("s3", "sqs")) as running:
        yield running


@pytest.fixture
def bucket(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"test-{secrets.token_hex(6)}"
    made = Bucket(BucketSettings(name=name, endpoint_url=server.endpoint_url))
    made.create_if_missing()
    yield made
    made.client.close()


@pytest.fixture
def dead_letters(bucket, server):
    return make_queue(bucket, server, {})


@pytest.fixture
def queue(bucket, server, dead_letters):
    """A queue that puts aside what was received twice, and that the bucket tells of puts."""
    arn = f"arn:aws:sqs:us-east-1:000000000000:{dead_letters.url.rsplit('/', 1)[-1]}"
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    made = make_queue(bucket, server, {"RedrivePolicy": policy, "VisibilityTimeout": "0"})
    name = made.url.rsplit("/", 1)[-1]
    bucket.client.put_bucket_notification_configuration(
        Bucket=bucket.name,
        NotificationConfiguration={
            "QueueConfigurations": [
                {
                    "QueueArn": f"arn:aws:sqs:us-east-1:000000000000:{name}",
                    "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
                }
            ]
        },
    )
    return made


def make_queue(bucket, server, attributes):
    queue = Queue(f"{server.endpoint_url}/000000000000/x", bucket)
    name = f"queue-{secrets.token_hex(6)}"
    answer = queue.client.create_queue(QueueName=name, Attributes=attributes)
    return Queue(answer["QueueUrl"].replace("localhost", "127.0.0.1"), bucket)


@pytest.fixture
def settings(bucket):
    sources = {"photos": Source(prefix="uploads/photos/"), "shop": Source(prefix="uploads/shop/")}
    return Settings(bucket=bucket.settings, sources=sources)


def look(queue, bucket, catalog, settings, seconds=0.0):
    return drain(queue, bucket, catalog, settings, now, lambda: seconds)


def now():
    return datetime(2026, 3, 1, tzinfo=UTC)


def look_until_empty(queue, bucket, catalog, settings):
    """What all looks found: a server may give back one message at a time."""
    found = 0
    while (done := look(queue, bucket, catalog, settings)).messages:
        found += done.found
    return found


def rows(catalog):
    with catalog.read() as connection:
        query = sa.select(uploads.c.source, uploads.c.key, uploads.c.etag, uploads.c.size)
        return sorted(tuple(row) for row in connection.execute(query))


def swept(bucket, catalog, source="photos"):
    return sweep(bucket, catalog, source, f"uploads/{source}/", "", now(), lambda: True)


def test_events_and_the_sweep_know_an_upload_by_the_same_name(bucket, queue, catalog, settings):
    for number, key in enumerate(KEYS):
        bucket.put(key, b"x" * (number + 1), "image/jpeg")
    assert look_until_empty(queue, bucket, catalog, settings) == len(KEYS)
    assert [row[1] for row in rows(catalog)] == sorted(KEYS)
    again = swept(bucket, catalog)
    assert (again.listed, again.found) == (len(KEYS), 0)


def test_a_multipart_upload_is_known_by_its_own_kind_of_etag(bucket, queue, catalog, settings):
    key = KEYS[0]
    upload = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    part = bucket.client.upload_part(
        Bucket=bucket.name, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 10
    )
    bucket.client.complete_multipart_upload(
        Bucket=bucket.name, Key=key, UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )  # fmt: skip
    assert look_until_empty(queue, bucket, catalog, settings) == 1
    assert swept(bucket, catalog).found == 0
    assert rows(catalog)[0][2].endswith("-1")


def test_what_is_no_upload_is_left_out(bucket, queue, catalog, settings):
    for key in ("variants/a.jpg", "uploads/elsewhere/a.jpg", "uploads/photos/folder/"):
        bucket.put(key, b"", "image/jpeg")
    assert look_until_empty(queue, bucket, catalog, settings) == 0
    assert rows(catalog) == []


def test_every_source_gets_its_own(bucket, queue, catalog, settings):
    bucket.put("uploads/photos/a.jpg", b"1", "image/jpeg")
    bucket.put("uploads/shop/a.jpg", b"1", "image/jpeg")
    assert look_until_empty(queue, bucket, catalog, settings) == 2
    assert [row[:2] for row in rows(catalog)] == [
        ("photos", "uploads/photos/a.jpg"), ("shop", "uploads/shop/a.jpg"),
    ]  # fmt: skip


def test_events_that_come_twice_and_backwards(bucket, queue, catalog, settings):
    for data in (b"old", b"newer"):
        bucket.put(KEYS[0], data, "image/jpeg")
    messages = []
    while received := queue.receive(0):
        messages += received
        queue.delete(received)
    for message in [*reversed(messages), *messages]:
        queue.client.send_message(QueueUrl=queue.url, MessageBody=message.body)
    assert look_until_empty(queue, bucket, catalog, settings) == 2
    assert [row[3] for row in rows(catalog)] in ([3, 5], [5, 3])


def test_a_removal_undoes_nothing(bucket, queue, catalog, settings):
    bucket.put(KEYS[0], b"x", "image/jpeg")
    bucket.client.delete_object(Bucket=bucket.name, Key=KEYS[0])
    assert look_until_empty(queue, bucket, catalog, settings) == 1
    assert [row[1] for row in rows(catalog)] == [KEYS[0]]


def test_a_message_stays_until_what_it_says_is_committed(
    bucket, queue, catalog, settings, monkeypatch
):
    bucket.put(KEYS[0], b"x", "image/jpeg")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("image_pipeline.catalog.uploads.add", killed)
        with pytest.raises(KeyboardInterrupt):
            look(queue, bucket, catalog, settings)
    assert rows(catalog) == []
    with monkeypatch.context() as patch:
        patch.setattr(queue, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            look(queue, bucket, catalog, settings)
    assert len(rows(catalog)) == 1


def test_nothing_is_doubled_by_a_message_that_was_not_deleted(bucket, server, catalog, settings):
    queue = make_queue(bucket, server, {"VisibilityTimeout": "0"})
    event = {
        "eventName": "ObjectCreated:Put", "eventTime": "2026-03-01T00:00:00Z",
        "s3": {"bucket": {"name": bucket.name},
               "object": {"key": "uploads/photos/a.jpg", "size": 1, "eTag": "e"}},
    }  # fmt: skip
    queue.client.send_message(QueueUrl=queue.url, MessageBody=json.dumps({"Records": [event]}))
    delete, queue.delete = queue.delete, lambda messages: None
    assert look(queue, bucket, catalog, settings).found == 1
    queue.delete = delete
    done = look(queue, bucket, catalog, settings)
    assert (done.messages, done.found) == (1, 0)
    assert queue.receive(0) == []
    assert len(rows(catalog)) == 1


def test_what_is_no_event_goes_to_the_dead_letters_and_holds_up_nobody(
    bucket, queue, dead_letters, catalog, settings
):
    queue.client.send_message(QueueUrl=queue.url, MessageBody="hello")
    bucket.put(KEYS[0], b"x", "image/jpeg")
    bad = 0
    for _ in range(6):
        bad += len(look(queue, bucket, catalog, settings).bad)
    assert len(rows(catalog)) == 1
    assert bad == 2
    assert [message.body for message in dead_letters.receive(2)] == ["hello"]


def test_what_housekeeping_is_at_is_left_to_the_sweep(bucket, queue, catalog, settings):
    with catalog.write() as connection:
        removals.begin(connection, "orphans-1", [KEYS[0]], now())
    for key in KEYS[:2]:
        bucket.put(key, b"x", "image/jpeg")
    assert look_until_empty(queue, bucket, catalog, settings) == 1
    with catalog.write() as connection:
        removals.end(connection, "orphans-1", [KEYS[0]])
    assert swept(bucket, catalog).found == 1


def test_what_no_event_told_is_found_by_the_sweep(bucket, queue, catalog, settings):
    bucket.put(KEYS[0], b"x", "image/jpeg")
    while received := queue.receive(0):
        queue.delete(received)
    assert look_until_empty(queue, bucket, catalog, settings) == 0
    assert swept(bucket, catalog).found == 1


def test_a_queue_that_is_not_there_is_a_failure_of_the_store(bucket, catalog, settings, server):
    missing = Queue(f"{server.endpoint_url}/000000000000/missing", bucket)
    with pytest.raises(StoreError, match="missing"):
        look(missing, bucket, catalog, settings)


def test_a_first_request_waits_for_a_message(bucket, server, catalog, settings):
    queue = make_queue(bucket, server, {})
    asked = []
    receive = queue.receive
    queue.receive = lambda wait: asked.append(wait) or receive(0)
    look(queue, bucket, catalog, settings, seconds=15.0)
    assert asked == [15.0]
