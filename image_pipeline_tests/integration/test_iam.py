"""The policies of deploy/iam, on a server that enforces them."""

import json
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from image_pipeline.embedded import EmbeddedS3

POLICIES = Path(__file__).parents[2] / "deploy" / "iam"
BUCKET = "images"

PREFIXES = (
    "uploads", "batches", "ledger", "variants", "manifests", "indexes", "galleries", "tables",
    "plans", "trash", "dagster-logs", "templates",
)  # fmt: skip

#: What each may do, by prefix, and with the bucket as a whole. Nothing else.
ALL = set(PREFIXES)
KEPT = ALL - {"templates"}
OWN = KEPT - {"uploads", "plans", "trash"}
READ = {
    "pipeline": OWN | {"uploads", "templates"},
    "intake": {"uploads", "manifests", "variants"},
    "maintenance": ALL,
    "forget": ALL,
    "reader": {"variants", "manifests", "indexes", "galleries"},
}
WRITE = {
    "uploader": {"uploads"},
    "intake": {"uploads"},
    "pipeline": OWN,
    "maintenance": KEPT,
    "forget": ALL,
}
DELETE = {"maintenance": KEPT, "forget": ALL}
LIST = {"pipeline", "maintenance", "forget", "intake"}
NAMES = sorted(path.stem for path in POLICIES.glob("*.json"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedS3(
        tmp_path_factory.mktemp("s3"), services=("s3", "iam", "sts"), check_access=True
    ) as running:
        yield running


def client(server, service, key="test", secret="test"):
    return boto3.client(
        service, endpoint_url=server.endpoint_url, region_name="us-east-1",
        aws_access_key_id=key, aws_secret_access_key=secret,
    )  # fmt: skip


@pytest.fixture(scope="module")
def users(server):
    """A client for each policy, and one that may do everything."""
    iam, root = client(server, "iam"), client(server, "s3")
    root.create_bucket(Bucket=BUCKET)
    found = {"root": root}
    for name in NAMES:
        iam.create_user(UserName=name)
        document = (POLICIES / f"{name}.json").read_text().replace("BUCKET", BUCKET)
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        found[name] = client(server, "s3", key["AccessKeyId"], key["SecretAccessKey"])
    yield found
    for one in (*found.values(), iam):
        one.close()


def allowed(call, **arguments):
    try:
        call(Bucket=BUCKET, **arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("AccessDenied", "403"):
            raise
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_what_each_may_do_with_objects(users, name):
    user = users[name]
    for prefix in PREFIXES:
        key = f"{prefix}/a"
        users["root"].put_object(Bucket=BUCKET, Key=key, Body=b"x")
        assert allowed(user.get_object, Key=key) == (prefix in READ.get(name, ())), key
        assert allowed(user.put_object, Key=key, Body=b"y") == (prefix in WRITE.get(name, ())), key
        assert allowed(user.delete_object, Key=key) == (prefix in DELETE.get(name, ())), key
    assert not allowed(user.put_object, Key="elsewhere/a", Body=b"x") or name == "forget"


@pytest.mark.parametrize("name", NAMES)
def test_what_each_may_do_with_the_bucket(users, name):
    user = users[name]
    assert allowed(user.list_objects_v2, Prefix="uploads/") == (name in LIST)
    rules = {"Rules": [{"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "x/"},
                        "Expiration": {"Days": 1}}]}  # fmt: skip
    may = allowed(user.put_bucket_lifecycle_configuration, LifecycleConfiguration=rules)
    assert may == (name == "lifecycle")
    status = {"Status": "Suspended"}
    assert not allowed(user.put_bucket_versioning, VersioningConfiguration=status)
    assert not allowed(user.delete_bucket)


@pytest.mark.parametrize("name", NAMES)
def test_only_forgetting_removes_a_version(users, name):
    root = users["root"]
    root.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    version = root.put_object(Bucket=BUCKET, Key="uploads/v", Body=b"x")["VersionId"]
    may = allowed(users[name].delete_object, Key="uploads/v", VersionId=version)
    assert may == (name == "forget")
    root.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_names_no_bucket_but_this_one(name):
    document = json.loads((POLICIES / f"{name}.json").read_text())
    for statement in document["Statement"]:
        for resource in statement["Resource"]:
            assert resource.startswith(("arn:aws:s3:::BUCKET", "arn:aws:sqs:REGION:ACCOUNT:QUEUE"))
        assert statement["Effect"] == "Deny" or "*" not in "".join(statement["Action"])


def test_the_page_names_every_policy():
    page = (POLICIES / "README.md").read_text()
    for name in NAMES:
        assert f"| `{name}` |" in page
