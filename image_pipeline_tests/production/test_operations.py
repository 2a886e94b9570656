"""The commands of docs/operations.md, as they stand there."""

import json
import os
import re
import subprocess
import sys
import time
from urllib.parse import urlsplit

import boto3
import pytest

from image_pipeline.embedded import EmbeddedS3
from image_pipeline_tests.production.compose import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("operations")]

PAGE = ROOT / "docs" / "operations.md"
BUCKET = "example-images"


def blocks():
    """The shell commands of the page that talk to AWS."""
    return re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An empty account."""
    folder = tmp_path_factory.mktemp("account")
    with EmbeddedS3(folder, services=("s3", "sqs", "iam", "sts")) as server:
        yield server


@pytest.fixture(scope="module")
def followed(account, tmp_path_factory):
    """What was done after all commands of the page, in their order and in one shell."""
    folder = tmp_path_factory.mktemp("operator")
    program = folder / "aws"
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m image_pipeline_tests.production.aws "$@"\n'
    )
    program.chmod(0o755)
    log = folder / "log"
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "PYTHONPATH": str(ROOT),
        "AWS_COMMANDS_LOG": str(log), "AWS_ENDPOINT_URL": account.endpoint_url,
        **account.environment,
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(blocks())], env=environment, cwd=ROOT,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return log.read_text().splitlines(), done.stdout


@pytest.fixture
def client(account, monkeypatch):
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)
    made = []

    def make(service):
        made.append(boto3.client(service, endpoint_url=account.endpoint_url))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_every_command_was_given(followed):
    commands, _ = followed
    said = re.findall(r"^(?:\w+=\$\()?aws (\w+) ([\w-]+)", "\n".join(blocks()), re.MULTILINE)
    assert len(said) > 15
    assert [tuple(one.split()) for one in commands] == [
        (service.replace("s3api", "s3"), operation) for service, operation in said
    ]


def test_the_bucket_is_private_encrypted_and_versioned(followed, client):
    assert followed
    s3 = client("s3")
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    block = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert len(block) == 4
    assert all(block.values())
    rules = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    (statement,) = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert {one.removeprefix(f"arn:aws:s3:::{BUCKET}/") for one in statement["Resource"]} == {
        "variants/*", "manifests/*", "indexes/*",
    }  # fmt: skip


def test_uploads_reach_the_queue_and_what_is_none_the_dead_letters(followed, client, account):
    _, printed = followed
    (url,) = re.findall(r"queue_url: (\S+)\}", printed)
    url = f"{account.endpoint_url}{urlsplit(url).path}"
    client("s3").put_object(Bucket=BUCKET, Key="uploads/photos/a.jpg", Body=b"a")
    client("s3").put_object(Bucket=BUCKET, Key="variants/none.jpg", Body=b"b")
    sqs = client("sqs")
    keys = []
    deadline = time.monotonic() + 30
    while not keys and time.monotonic() < deadline:
        for message in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2).get("Messages", ()):
            records = json.loads(message["Body"]).get("Records", ())
            keys.extend(record["s3"]["object"]["key"] for record in records)
    assert keys == ["uploads/photos/a.jpg"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    redrive = json.loads(attributes["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"].endswith(":image-pipeline-uploads-dead")
    (statement,) = json.loads(attributes["Policy"])["Statement"]
    assert statement["Condition"]["ArnEquals"] == {"aws:SourceArn": f"arn:aws:s3:::{BUCKET}"}


def test_the_role_may_do_what_the_pipeline_does_and_nothing_is_left_to_fill_in(followed, client):
    assert followed
    iam = client("iam")
    names = iam.list_role_policies(RoleName="image-pipeline")["PolicyNames"]
    assert set(names) == {"bucket", "events-and-logs", "launch-runs"}
    documents = [
        iam.get_role_policy(RoleName="image-pipeline", PolicyName=name)["PolicyDocument"]
        for name in names
    ]
    text = json.dumps(documents)
    assert not re.search(r"BUCKET|REGION|ACCOUNT|QUEUE", text)
    allowed = list(allowed_by(documents))
    wanted = json.loads((ROOT / "deploy" / "iam" / "pipeline.json").read_text(encoding="utf-8"))
    filled = {"BUCKET": BUCKET, "REGION": "us-east-1", "ACCOUNT": "000000000000",
              "QUEUE": "image-pipeline-uploads"}  # fmt: skip
    for action, resource in allowed_by([wanted]):
        name = re.sub("|".join(filled), lambda found: filled[found[0]], resource)
        assert any(
            action == one and re.fullmatch(re.escape(there).replace(r"\*", ".*"), name)
            for one, there in allowed
        ), (action, name)


def allowed_by(documents):
    """Pairs of an action and a resource."""
    for document in documents:
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                for action in as_list(statement["Action"]):
                    for resource in as_list(statement["Resource"]):
                        yield action, resource


def as_list(value):
    return value if isinstance(value, list) else [value]
