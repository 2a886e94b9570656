"""Permissions that a real S3 server checks: it takes what they allow and nothing else."""

import base64
import hmac
import http.client
import json
import re
import secrets
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.ingest.presigning import RefusedError, presigned_post, upload_key
from image_pipeline.settings import Limits, Source

SOURCE = Source(prefix="uploads/photos/", limits=Limits(megabytes=0.001))
BODY = b"\xff\xd8\xff" + b"x" * 500


def post(permission, data=BODY, url=None, **changed):
    """POST a form as a browser does; the status and the answer."""
    boundary = secrets.token_hex(8)
    lines = []
    for name, value in {**permission.fields, **changed}.items():
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"', "", value]
    lines += [f"--{boundary}", 'Content-Disposition: form-data; name="file"; filename="x"', "", ""]
    body = "\r\n".join(lines).encode() + data + f"\r\n--{boundary}--\r\n".encode()
    target = urlsplit(url or permission.url)
    connection = http.client.HTTPConnection(target.netloc, timeout=20)
    connection.request(
        "POST", target.path or "/", body,
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )  # fmt: skip
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


@pytest.fixture
def permission(bucket):
    return presigned_post(bucket, SOURCE, "Ferien am See.jpg", "image/jpeg")


def test_the_file_arrives_under_its_key_with_its_type(bucket, permission):
    status, text = post(permission)
    assert status in (200, 201, 204), text
    assert re.fullmatch(r"uploads/photos/[0-9a-f]{32}/Ferien-am-See\.jpg", permission.key)
    assert bucket.get(permission.key) == BODY
    assert bucket.head(permission.key).content_type == "image/jpeg"


@pytest.mark.parametrize(("length", "word"), [(1001, "TooLarge"), (0, "TooSmall")])
def test_a_file_of_a_size_that_is_not_allowed(bucket, permission, length, word):
    status, text = post(permission, b"x" * length)
    assert status == 400
    assert word in text
    assert bucket.head(permission.key) is None


def test_the_largest_file_that_is_allowed(permission):
    assert post(permission, b"x" * 1000)[0] in (200, 201, 204)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "uploads/photos/other.jpg"},
        {"key": "variants/a.jpg"},
        {"Content-Type": "text/html"},
        {"acl": "public-read"},
    ],
)
def test_nothing_else_is_allowed(bucket, permission, change):
    status, text = post(permission, **change)
    assert status == 403, text
    assert bucket.page("").objects == []


def test_the_signature_covers_the_policy(bucket, permission):
    """The embedded server does not look at it: computed by hand, as AWS documents version 4."""
    fields = permission.fields
    key = b"AWS4embedded"
    _, *scope = fields["x-amz-credential"].split("/")
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    expected = hmac.digest(key, fields["policy"].encode(), "sha256").hex()
    assert fields["x-amz-signature"] == expected
    policy = json.loads(base64.b64decode(fields["policy"]))
    assert scope[1:] == ["us-east-1", "s3", "aws4_request"]
    assert {"Content-Type": "image/jpeg"} in policy["conditions"]
    assert ["content-length-range", 1, 1000] in policy["conditions"]
    assert {"bucket": bucket.name} in policy["conditions"]
    assert {"key": permission.key} in policy["conditions"]


def test_it_ends(bucket, monkeypatch):
    import botocore.signers

    # A server refuses by its own clock, so the permission is given out an hour ago.
    early = botocore.signers.get_current_datetime

    def an_hour_ago(*arguments, **options):
        from datetime import timedelta

        return early(*arguments, **options) - timedelta(hours=1)

    monkeypatch.setattr(botocore.signers, "get_current_datetime", an_hour_ago)
    old = presigned_post(bucket, SOURCE, "a.jpg", "image/jpeg", minutes=15)
    monkeypatch.undo()
    assert post(old)[0] == 403


def test_two_files_of_one_name_do_not_meet(bucket):
    keys = {presigned_post(bucket, SOURCE, "a.jpg", "image/jpeg").key for _ in range(20)}
    assert len(keys) == 20


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "", "image/jpeg; x=y"])
def test_types_that_are_no_pictures(bucket, kind):
    with pytest.raises(RefusedError, match="image/jpeg"):
        presigned_post(bucket, SOURCE, "a.jpg", kind)


@pytest.mark.parametrize("minutes", [0, -1, 7 * 24 * 60 + 1])
def test_times_that_s3_does_not_allow(bucket, minutes):
    with pytest.raises(RefusedError, match="seven days"):
        presigned_post(bucket, SOURCE, "a.jpg", "image/jpeg", minutes=minutes)


def test_the_limit_can_only_be_lowered(bucket):
    assert presigned_post(bucket, SOURCE, "a", "image/png", max_bytes=10).max_bytes == 10
    assert presigned_post(bucket, SOURCE, "a", "image/png", max_bytes=10**9).max_bytes == 1000


@given(st.text(max_size=300))
def test_no_name_leaves_its_folder_or_carries_anything_strange(name):
    key = upload_key("uploads/photos/", name, "00")
    assert re.fullmatch(r"uploads/photos/00/[A-Za-z0-9._-]{1,100}", key)
    assert not key.endswith(("/.", "/.."))


def test_the_command_prints_what_works(bucket, tmp_path):
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        yaml.safe_dump(
            {"bucket": {"name": bucket.name, "endpoint_url": bucket.settings.endpoint_url}}
        )
    )
    (tmp_path / "a b.jpg").write_bytes(BODY)
    command = [sys.executable, "-m", "image_pipeline.cli", "presign", "a b.jpg"]
    options = ["--source", "photos", "--config", str(config)]
    printed = subprocess.run([*command, *options], capture_output=True, check=True, cwd=tmp_path)
    done = subprocess.run(
        printed.stdout.decode(), shell=True, capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (stored,) = bucket.page("uploads/photos/").objects
    assert bucket.get(stored.key) == BODY
    answer = subprocess.run([*command, *options, "--json"], capture_output=True, check=True)
    assert json.loads(answer.stdout)["max_bytes"] == 64_000_000


def test_a_command_without_a_known_type_says_what_to_do(tmp_path):
    command = [sys.executable, "-m", "image_pipeline.cli", "presign", "scan", "--source", "photos"]
    ended = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2
    assert b"--type" in ended.stderr
