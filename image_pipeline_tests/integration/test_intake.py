"""The intake on a real HTTP server, before a real bucket: what it allows is what S3 takes."""

import hashlib
import itertools
import json
import time
from dataclasses import replace
from datetime import timedelta

import httpx
import hypothesis
import pytest
import schemathesis

from image_pipeline.catalog import batches, uploads
from image_pipeline.intake import events
from image_pipeline.intake.app import create_app
from image_pipeline.intake.keys import digest
from image_pipeline.intake.status import StatusReader
from image_pipeline.settings import Intake, IntakeSource, Settings, Source
from image_pipeline.stages.tools import Tools, quiet
from image_pipeline.store.layout import image_manifest_key
from image_pipeline.store.multipart import PART_BYTES
from image_pipeline_tests.browser.uploading import Site, jpeg, served
from image_pipeline_tests.unit.stages.helpers import RECIPE

KEY = "ipk_one"
OTHER = "ipk_other"
HEADERS = {"Authorization": f"Bearer {KEY}"}

SOURCES = {
    "photos": Source(prefix="uploads/photos/"),
    "shop": Source(prefix="uploads/shop/"),
}
INTAKE = Intake(
    sources={
        "photos": IntakeSource(keys={"web": digest(KEY)}, files=3, megabytes=30),
        "shop": IntakeSource(keys={"till": digest(OTHER)}, files=3),
    },
    origins=("https://shop.example",),
    per_second=10_000,
    burst=10_000,
    multipart_megabytes=5,
)


@pytest.fixture
def settings(bucket, catalog, tmp_path):
    return Settings(
        bucket=bucket.settings,
        catalog={"url": catalog.url},
        sources=SOURCES,
        recipes={"web": RECIPE},
        intake=INTAKE,
        workers={"spool": tmp_path / "spool", "processes": 1},
        # What was written a second ago is taken at once.
        batches={"max_age_seconds": 1},
    )


@pytest.fixture
def clock(settings):
    """The service's clock: the machine's, and what a test adds."""

    class Clock:
        ahead = timedelta()

        def __call__(self):
            return settings.now() + self.ahead

    return Clock()


@pytest.fixture
def client(settings, bucket, catalog, clock):
    app = create_app(settings, bucket, catalog, clock)
    with (
        served(app) as url,
        httpx.Client(base_url=url, headers=HEADERS, trust_env=False, timeout=30) as client,
    ):
        client.app = app
        yield client


@pytest.fixture
def web():
    """A browser before the bucket."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def site(settings, bucket, catalog):
    """The pipeline behind the service."""
    tools = Tools.open(settings, bucket, catalog, quiet)
    with tools.workers:
        yield Site("", tools)
    tools.spool.clear()


def named(name="a.jpg", size=5, kind="image/jpeg"):
    return {"name": name, "size": size, "type": kind}


def ask(client, *files, source="photos"):
    return client.post("/uploads", json={"source": source, "files": list(files)})


def allow(client, **file):
    (answer,) = ask(client, named(**file)).raise_for_status().json()["files"]
    return answer


def post(web, allowed, data=b"12345", **changed):
    fields = {**allowed["post"]["fields"], **changed}
    return web.post(allowed["post"]["url"], data=fields, files={"file": ("x", data)})


def state(client, allowed):
    return client.get(f"/uploads/{allowed['id']}").raise_for_status().json()


def error(answer):
    """Status and code of an answer that is no success."""
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()["error"]["code"]


# Permissions


def test_a_file_goes_straight_to_the_bucket(client, web, bucket):
    allowed = allow(client, name="Ferien am See.jpg")
    assert state(client, allowed)["received"] is False
    assert bucket.page("").objects == [], "nothing is written before the file arrives"
    assert post(web, allowed).status_code == 204
    assert bucket.get(allowed["key"]) == b"12345"
    assert bucket.head(allowed["key"]).content_type == "image/jpeg"
    now = state(client, allowed)
    assert (now["state"], now["received"]) == ("waiting", True)


@pytest.mark.parametrize(
    ("length", "changed", "status"),
    [
        (30_000_001, {}, 400),
        (0, {}, 400),
        (5, {"Content-Type": "text/html"}, 403),
        (5, {"key": "uploads/photos/other.jpg"}, 403),
    ],
)
def test_the_bucket_refuses_what_was_not_allowed(client, web, bucket, length, changed, status):
    assert post(web, allow(client), b"x" * length, **changed).status_code == status
    assert bucket.page("").objects == []


def test_each_file_has_one_answer_in_its_order(client):
    wanted = [named("a.svg", kind="image/svg+xml"), named(), named(size=30_000_001)]
    files = ask(client, *wanted).raise_for_status().json()["files"]
    assert [one.get("error", {}).get("code") for one in files] == ["type", None, "too_large"]
    assert [one["name"] for one in files] == [one["name"] for one in wanted]


def test_of_too_many_files_none_is_allowed(client):
    answer = ask(client, *[named()] * 4)
    assert error(answer) == (422, "too_many_files")
    assert "files" not in answer.json()
    assert answer.json()["error"]["files"] == 3


def test_the_key_of_an_object_does_not_open_its_upload(client):
    allowed = allow(client)
    token = allowed["key"].split("/")[2]
    assert error(client.get(f"/uploads/{token}")) == (404, "upload")
    assert error(client.get(f"/uploads/{allowed['id'][:-1]}x")) == (404, "upload")


def test_ids_are_known_to_every_process_of_the_service(client, settings, bucket, catalog):
    allowed = allow(client)
    with served(create_app(settings, bucket, catalog)) as url:
        answer = httpx.get(f"{url}/uploads/{allowed['id']}", trust_env=False)
    assert answer.json()["state"] == "waiting"


# Who may


@pytest.mark.parametrize(
    ("header", "source", "expected"),
    [
        (None, "photos", (401, "unauthorized")),
        ("Bearer wrong", "photos", (401, "unauthorized")),
        (f"Basic {KEY}", "photos", (401, "unauthorized")),
        (f"Bearer {OTHER}", "photos", (403, "forbidden")),
        (None, "nowhere", (401, "unauthorized")),
        (f"Bearer {KEY}", "nowhere", (404, "source")),
    ],
)
def test_who_may_not(client, header, source, expected):
    del client.headers["Authorization"]
    headers = {"Authorization": header} if header else {}
    body = {"source": source, "files": [named()]}
    assert error(client.post("/uploads", json=body, headers=headers)) == expected
    assert error(client.get(f"/sources/{source}", headers=headers)) == expected
    assert error(client.get("/status", params={"source": source}, headers=headers)) == expected


def test_whoever_has_an_id_needs_no_key(client):
    allowed = allow(client)
    del client.headers["Authorization"]
    assert state(client, allowed)["state"] == "waiting"
    assert error(client.get("/batches/photos-1")) == (401, "unauthorized")


def test_a_source_without_keys(client, settings, bucket, catalog):
    intake = Intake(sources={"photos": IntakeSource(anonymous=True, types=("image/png",))})
    free = settings.model_copy(update={"intake": intake})
    with (
        served(create_app(free, bucket, catalog)) as url,
        httpx.Client(base_url=url, trust_env=False) as stranger,
    ):
        assert "post" in allow(stranger, kind="image/png")
        assert stranger.get("/sources/photos").json() == {
            "source": "photos", "anonymous": True, "files": 20, "bytes": 50_000_000,
            "types": ["image/png"], "multipart_bytes": 25_000_000, "minutes": 15.0,
        }  # fmt: skip
        assert error(stranger.get("/batches/x")) == (401, "unauthorized")
        assert error(ask(stranger, named(), source="shop")) == (404, "source")


def test_whoever_asks_too_often_waits(client, settings, bucket, catalog):
    slow = settings.intake.model_copy(update={"per_second": 0.1, "burst": 2})
    app = create_app(settings.model_copy(update={"intake": slow}), bucket, catalog)
    with (
        served(app) as url,
        httpx.Client(base_url=url, headers=HEADERS, trust_env=False) as eager,
    ):
        statuses = [ask(eager, named()).status_code for _ in range(3)]
        answer = ask(eager, named())
        assert statuses == [200, 200, 429]
        assert error(answer) == (429, "too_many_requests")
        assert int(answer.headers["Retry-After"]) == 10
        # Others have their own: by key, and by address.
        other = {"Authorization": f"Bearer {OTHER}"}
        assert eager.get("/sources/shop", headers=other).status_code == 200
        assert eager.get("/health").status_code == 200
        guesses = [
            eager.get("/status", headers={"Authorization": f"Bearer {n}"}).status_code
            for n in range(3)
        ]
        assert guesses == [401, 401, 429]


# Requests that are wrong


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"{", "application/json", (400, "json")),
        (b'{"source": "photos", "files": []}', "application/json", (422, "invalid")),
        (b'{"source": "photos"}', "application/json", (422, "invalid")),
        (b'{"source": "photos", "files": [1]}', "application/json", (422, "invalid")),
        (b'{"source": "photos", "files": [], "x": 1}', "application/json", (422, "invalid")),
        (b"source=photos", "application/x-www-form-urlencoded", (415, "media_type")),
        (b"{}", "text/plain", (415, "media_type")),
        (b" " * (1024 * 1024 + 1), "application/json", (413, "body_too_large")),
    ],
    ids=[
        "no JSON",
        "no files",
        "a field is missing",
        "no file",
        "unknown field",
        "form",
        "text",
        "too large",
    ],
)
def test_bodies_that_are_not_taken(client, body, kind, expected):
    answer = client.post("/uploads", content=body, headers={"Content-Type": kind})
    assert error(answer) == expected


def test_a_body_that_does_not_say_how_long_it_is(client):
    def endless():
        for _ in range(2000):
            yield b" " * 1024

    headers = {"Content-Type": "application/json"}
    answer = client.post("/uploads", content=endless(), headers=headers)
    assert error(answer) == (413, "body_too_large")


def test_our_own_mistakes_are_answered_too(client, monkeypatch):
    def fail(reader, sources):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(StatusReader, "queue", fail)
    answer = client.get("/status", headers={"Origin": "https://shop.example"})
    assert error(answer) == (500, "failed")
    assert "secret" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_addresses_that_are_not_there(client):
    assert error(client.get("/nothing")) == (404, "not_found")
    answer = client.put("/uploads/x")
    assert error(answer) == (405, "method")
    assert {"GET", "DELETE"} <= set(answer.headers["Allow"].split(", "))


def test_what_browsers_are_told(client):
    for answer in (client.get("/status"), client.get("/nothing"), allow_origin(client, "GET")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in client.get("/").headers["Content-Security-Policy"]


def allow_origin(client, method, origin="https://shop.example"):
    return client.options(
        "/uploads",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )


def test_pages_of_other_origins(client):
    allowed = allow_origin(client, "POST")
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    stranger = allow_origin(client, "POST", "https://evil.example")
    assert "Access-Control-Allow-Origin" not in stranger.headers
    answer = client.get("/status", headers={"Origin": "https://shop.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"


def test_without_the_bucket_it_says_to_try_again(client, bucket):
    allowed = allow(client)
    bucket.client.delete_bucket(Bucket=bucket.name)
    bucket.name = "gone-for-ever"
    answer = client.post(f"/uploads/{allow(client, size=6_000_000)['id']}/parts",
                         json={"numbers": [1]})  # fmt: skip
    assert error(answer) == (503, "unavailable")
    assert answer.headers["Retry-After"]
    assert allowed["id"] not in answer.text


# Parts


SIZE = 2 * PART_BYTES + 7
DATA = bytes(range(256)) * (SIZE // 256 + 1)


def parts(client, allowed, *numbers):
    answer = client.post(f"/uploads/{allowed['id']}/parts", json={"numbers": numbers})
    return answer.raise_for_status().json()


def part(number):
    return DATA[:SIZE][(number - 1) * PART_BYTES : number * PART_BYTES]


def put(web, client, allowed, *numbers):
    for one in parts(client, allowed, *numbers)["parts"]:
        web.put(one["url"], content=part(one["number"])).raise_for_status()


def complete(client, allowed):
    return client.post(f"/uploads/{allowed['id']}/complete")


def test_a_large_file_in_parts_is_resumed_and_completed(client, web, bucket):
    allowed = allow(client, name="large.png", size=SIZE, kind="image/png")
    assert allowed["multipart"] == {"part_size": PART_BYTES, "parts": 3}
    put(web, client, allowed, 2)
    # Another page, hours later: it only has the id.
    there = parts(client, allowed)
    assert there["parts"] == []
    assert there["done"] == [
        {"number": 2, "size": PART_BYTES, "etag": hashlib.md5(part(2)).hexdigest()}
    ]
    assert error(complete(client, allowed)) == (409, "incomplete")
    assert complete(client, allowed).json()["error"]["missing"] == [1, 3]
    assert bucket.head(allowed["key"]) is None
    put(web, client, allowed, 1, 3)
    assert complete(client, allowed).json() == {"state": "waiting"}
    assert complete(client, allowed).json() == {"state": "waiting"}
    assert bucket.get(allowed["key"]) == DATA[:SIZE]
    assert bucket.head(allowed["key"]).content_type == "image/png"
    assert state(client, allowed)["received"] is True


def test_a_part_has_the_length_that_was_signed(client, web):
    allowed = allow(client, size=SIZE)
    (one,) = parts(client, allowed, 1)["parts"]
    for data in (part(1) + b"x", part(1)[:-1], b""):
        assert web.put(one["url"], content=data).status_code == 403
    assert parts(client, allowed)["done"] == []


def test_two_pages_send_parts_of_the_same_upload(client, web, bucket):
    allowed = allow(client, size=SIZE)
    parts(client, allowed, 1)
    parts(client, allowed, 2)
    begun = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert [one["Key"] for one in begun] == [allowed["key"]]


def test_an_upload_in_parts_is_given_up(client, web, bucket):
    allowed = allow(client, size=SIZE)
    put(web, client, allowed, 1)
    for _ in range(2):
        assert client.delete(f"/uploads/{allowed['id']}").status_code == 204
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name)
    assert bucket.page("").objects == []


def test_what_has_arrived_stays(client, web, bucket):
    allowed = allow(client, size=SIZE)
    put(web, client, allowed, 1, 2, 3)
    complete(client, allowed).raise_for_status()
    assert error(client.delete(f"/uploads/{allowed['id']}")) == (409, "received")
    answer = client.post(f"/uploads/{allowed['id']}/parts", json={"numbers": [1]})
    assert error(answer) == (409, "received")
    assert bucket.get(allowed["key"]) == DATA[:SIZE]


def test_parts_that_a_file_does_not_have(client):
    allowed = allow(client, size=SIZE)
    answer = client.post(f"/uploads/{allowed['id']}/parts", json={"numbers": [1, 4]})
    assert error(answer) == (422, "invalid")
    small = allow(client)
    answer = client.post(f"/uploads/{small['id']}/parts", json={"numbers": [1]})
    assert error(answer) == (409, "whole")
    assert error(complete(client, small)) == (409, "whole")


def test_parts_are_sent_for_a_day(client, web, clock):
    allowed = allow(client, size=SIZE)
    clock.ahead = timedelta(hours=23)
    put(web, client, allowed, 1, 2, 3)
    clock.ahead = timedelta(hours=25)
    answer = client.post(f"/uploads/{allowed['id']}/parts", json={"numbers": [1]})
    assert error(answer) == (403, "expired")
    assert complete(client, allowed).status_code == 200


# What became of it


def test_published_is_told_with_the_manifest(client, web, site, bucket):
    data = jpeg(7)
    allowed, same = allow(client, size=len(data)), allow(client, size=len(data))
    for one in (allowed, same):
        assert post(web, one, data).status_code == 204
    broken = allow(client, name="broken.jpg")
    post(web, broken, b"\xff\xd8\xff--")
    site.run_batches()
    now = state(client, allowed)
    assert now["state"] == "published"
    manifest = web.get(now["manifest"]).json()
    assert manifest["id"] == hashlib.sha256(data).hexdigest()
    assert now["picture"]["srcset"] == manifest["srcset"]
    assert web.get(now["picture"]["src"]).status_code == 200
    assert state(client, same)["picture"] == now["picture"]
    refused = state(client, broken)
    assert (refused["state"], bool(refused["reason"]), refused["picture"]) == (
        "rejected", True, None,
    )  # fmt: skip
    batch = client.get(f"/batches/{now['batch']}").json()
    assert (batch["state"], batch["uploads"]) == ("published", 3)
    assert batch["verdicts"] == {"accepted": 1, "duplicate": 1, "rejected": 1}
    assert batch["reasons"] == {refused["reason"]: 1}
    assert web.get(batch["manifest"]).json()["batch"] == now["batch"]
    bucket.delete([image_manifest_key("photos", manifest["id"])])
    withdrawn = state(client, allowed)
    assert (withdrawn["state"], withdrawn["reason"]) == ("rejected", "withdrawn")
    stranger = {"Authorization": f"Bearer {OTHER}"}
    assert error(client.get(f"/batches/{now['batch']}", headers=stranger)) == (404, "batch")
    status = client.get("/status").json()
    assert status == {
        "sources": ["photos"], "queue_depth": 0, "waiting": 0, "processing": 0,
        "oldest_waiting_seconds": None, "throughput_per_minute": 0.3,
    }  # fmt: skip


def test_private_pictures_are_signed(web, site, settings, catalog, bucket):
    source = settings.sources["photos"].model_copy(update={"access": "private"})
    private = settings.model_copy(update={"sources": SOURCES | {"photos": source}})
    data = jpeg(8)
    with (
        served(create_app(private, bucket, catalog)) as url,
        httpx.Client(base_url=url, headers=HEADERS, trust_env=False) as client,
    ):
        allowed = allow(client, size=len(data))
        post(web, allowed, data)
        Site("", replace(site.tools, settings=private)).run_batches()
        now = state(client, allowed)
    assert now["state"] == "published"
    for signed in (now["manifest"], now["picture"]["src"]):
        assert "X-Amz-Signature=" in signed
        assert web.get(signed).status_code == 200


def test_events_until_everything_is_final(client, web, site):
    data = jpeg(9)
    good, never = allow(client, size=len(data)), allow(client)
    post(web, good, data)
    post(web, never, b"\xff\xd8\xff--")
    ids = f"{good['id']},{never['id']}"
    with client.stream("GET", "/uploads/events", params={"ids": ids}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = told(stream)
        first = [next(events), next(events)]
        assert [(one["id"], one["state"]) for one in first] == [
            (good["id"], "waiting"), (never["id"], "waiting"),
        ]  # fmt: skip
        assert all(one["received"] for one in first)
        site.run_batches()
        rest = list(events)
    final = {one["id"]: one["state"] for one in rest}
    assert final == {good["id"]: "published", never["id"]: "rejected"}
    (shown,) = [one for one in rest if one["state"] == "published"]
    assert shown == state(client, good)
    with client.stream("GET", f"/uploads/{good['id']}/events") as stream:
        assert list(told(stream)) == [shown]


def told(stream):
    """The states of a stream, as they come."""
    for line in stream.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_streams_that_are_refused(client):
    assert error(client.get("/uploads/events")) == (422, "invalid")
    many = ",".join(allow(client)["id"] for _ in range(101))
    assert error(client.get("/uploads/events", params={"ids": many})) == (422, "invalid")
    assert error(client.get("/uploads/events?ids=x")) == (404, "upload")


def test_streams_of_one_are_bounded_and_end_with_their_listener(client, monkeypatch):
    monkeypatch.setattr(events, "MOST_OF_ONE", 2)
    path = f"/uploads/{allow(client)['id']}/events"
    streams = client.app.state.streams
    with client.stream("GET", path) as one, client.stream("GET", path) as other:
        # Kept: a generator that is dropped closes its stream.
        listening = [told(one), told(other)]
        assert [next(told)["state"] for told in listening] == ["waiting"] * 2
        assert len(streams) == 2
        assert error(client.get(path)) == (429, "too_many_requests")
    deadline = time.monotonic() + 10
    while len(streams):
        assert time.monotonic() < deadline, "a listener is gone, and its stream is not"
        time.sleep(0.01)
    with client.stream("GET", path) as one, client.stream("GET", path) as other:
        assert [one.status_code, other.status_code] == [200, 200]


def test_what_was_never_sent_ends(client, clock):
    allowed = allow(client)
    clock.ahead = timedelta(minutes=24)
    assert state(client, allowed)["state"] == "waiting"
    clock.ahead = timedelta(minutes=26)
    now = state(client, allowed)
    assert (now["state"], now["reason"], now["received"]) == ("rejected", "expired", False)
    clock.ahead = timedelta(days=7, minutes=16)
    assert error(client.get(f"/uploads/{allowed['id']}")) == (404, "upload")


def test_between_discovery_and_the_end(client, catalog, clock, settings):
    """Waiting until a run was asked for, then processing, also while it is tried again."""
    allowed = allow(client)
    now = settings.now()
    row = {
        "source": "photos", "key": allowed["key"], "etag": "e", "size": 5,
        "last_modified": now, "discovered_at": now - timedelta(seconds=90),
    }  # fmt: skip
    with catalog.write() as connection:
        uploads.add(connection, [row])
    told = [state(client, allowed)["state"]]
    status = client.get("/status").json()
    assert (status["queue_depth"], status["waiting"]) == (1, 1)
    assert 90 <= status["oldest_waiting_seconds"] < 120
    with catalog.write() as connection:
        (batch,) = batches.form(connection, "photos", now, 9, lambda found: [list(found)])
    told.append(state(client, allowed)["state"])
    with catalog.write() as connection:
        batches.request(connection, batch, now)
    told.append(state(client, allowed)["state"])
    failed = uploads.Decision(1, "failed", "storage_error", "try again")
    with catalog.write() as connection:
        uploads.decide(connection, [failed], now)
    told.append(state(client, allowed)["state"])
    assert client.get("/status").json()["queue_depth"] == 1
    with catalog.write() as connection:
        batches.give_up(connection, batch, now)
    last = state(client, allowed)
    told.append(last["state"])
    assert told == ["waiting", "waiting", "processing", "processing", "rejected"]
    assert (last["reason"], last["message"]) == ("storage_error", "try again")
    assert client.get(f"/batches/{batch}").json()["state"] == "rejected"


# The document


@pytest.fixture
def known(client, web, site):
    """Ids of uploads in every stage, and of a batch."""
    data = jpeg(7)
    done, whole, in_parts = (allow(client, size=size) for size in (len(data), 5, SIZE))
    post(web, done, data).raise_for_status()
    site.run_batches()
    batch = state(client, done)["batch"]
    assert batch
    return {"done": done["id"], "uploads": [whole["id"], in_parts["id"]], "batch": batch}


def name_what_there_is(case, known, turn):
    """Make of a request about nothing one about something that is there."""
    path = case.operation.path
    if isinstance(case.body, dict) and "source" in case.body:
        case.body = {**case.body, "source": "photos"}
    if isinstance(case.body, dict) and "numbers" in case.body:
        case.body = {"numbers": [number % 3 + 1 for number in case.body["numbers"]]}
    if case.query:
        name, value = ("ids", [known["done"]]) if "events" in path else ("source", "photos")
        case.query = {name: value}
    if path.startswith("/sources"):
        case.path_parameters = {"source": "photos"}
    elif path.startswith("/batches"):
        case.path_parameters = {"id": known["batch"]}
    elif case.path_parameters:
        # A stream of one that is not done would not end.
        choice = [known["done"]] if "events" in path else [*known["uploads"], known["done"]]
        case.path_parameters = {"id": choice[turn % len(choice)]}


def test_the_document_says_what_the_service_does(client, known):
    """Schemathesis sends what the document allows, and what it does not; the same in every run."""
    document = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    answered = {}
    for found in document.get_all_operations():
        operation = found.ok()
        statuses = answered.setdefault(operation.label, set())
        examine(operation, "anything", statuses, lambda case, turn: None)
        examine(
            operation, "known", statuses, lambda case, turn: name_what_there_is(case, known, turn)
        )
        if operation.label not in ("GET /health", "GET /openapi.json"):  # Nothing to get wrong.
            examine(operation, "wrong", statuses, lambda case, turn: None)
    # It has seen the service do everything there is, not only refuse.
    wanting = {label for label, statuses in answered.items() if not statuses & {200, 204}}
    assert len(answered) == 11, "all but the document itself"
    assert wanting == {"POST /uploads/{id}/complete"}, answered


def examine(operation, kind, statuses, change):
    mode = "NEGATIVE" if kind == "wrong" else "POSITIVE"
    turns = itertools.count()

    @hypothesis.given(operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    @hypothesis.settings(max_examples=12, suppress_health_check=list(hypothesis.HealthCheck))
    def send(case):
        change(case, next(turns))
        answer = case.call(headers=HEADERS, timeout=20)
        statuses.add(answer.status_code)
        case.validate_response(answer)

    send()
