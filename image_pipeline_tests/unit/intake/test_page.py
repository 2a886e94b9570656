"""What the upload page is served with."""

import asyncio
import re

import httpx
import pytest
from starlette.applications import Starlette

from image_pipeline.intake import page
from image_pipeline.settings import BucketSettings, Intake, IntakeSource, Settings, Source
from image_pipeline.store.bucket import Bucket

BUCKET, CDN = "https://images.s3.amazonaws.com", "https://cdn.example.com"


class Client:
    """Asks for pages of an application without a server."""

    def __init__(self, *sources):
        self.transport = httpx.ASGITransport(Starlette(routes=page.routes(BUCKET, sources, [CDN])))

    def get(self, path, headers=None):
        async def ask():
            async with httpx.AsyncClient(transport=self.transport, base_url="http://up") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())


@pytest.fixture
def client():
    return Client("photos", "shop")


def assets(client):
    return re.findall(r'(?:href|src)="(assets/[^"]+)"', client.get("/").text)


def policy(client):
    parts = client.get("/").headers["content-security-policy"].split("; ")
    return {name: values for name, *values in map(str.split, parts)}


def test_the_page_runs_and_loads_nothing_but_its_own(client):
    found = policy(client)
    assert found["default-src"] == ["'none'"]
    assert found["script-src"] == found["style-src"] == ["'self'"]
    assert found["connect-src"] == ["'self'", BUCKET]
    assert found["img-src"] == ["'self'", "blob:", "data:", CDN, BUCKET]
    for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert found[name] == ["'none'"]
    text = client.get("/").text
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_its_files_are_kept_for_ever_and_the_page_is_asked_for(client):
    assert client.get("/").headers["cache-control"] == "no-cache"
    kinds = ("text/css", "text/css", "text/javascript")
    for path, kind in zip(assets(client), kinds, strict=True):
        answer = client.get(path)
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_browser_that_has_it_gets_no_second_copy(client):
    for path in ("/", *assets(client)):
        etag = client.get(path).headers["etag"]
        for tag in (etag, f'"other", W/{etag}', "*"):
            again = client.get(path, headers={"If-None-Match": tag})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == etag
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_modules_lead_to_files_of_the_same_version(client):
    *_, script = assets(client)
    folder, waiting, seen = script.rpartition("/")[0], [script], set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            answer = client.get(path)
            assert answer.status_code == 200, path
            names = re.findall(r'^import .* from "\./([a-z]+\.js)";$', answer.text, re.MULTILINE)
            waiting.extend(f"{folder}/{name}" for name in names)
    assert len(seen) > 5


def test_another_version_lies_in_another_folder(client, monkeypatch):
    before = assets(client)
    changed = {**page._assets(), "upload.css": b"body {}"}
    monkeypatch.setattr(page, "_assets", lambda: changed)
    after = Client("photos")
    assert not set(before) & set(assets(after))
    assert after.get(before[0]).status_code == 404


@pytest.mark.parametrize("name", ["upload.html", "..%2fpage.py", "nothing.js"])
def test_nothing_else_is_served(client, name):
    folder = assets(client)[0].rpartition("/")[0]
    assert client.get(f"{folder}/{name}").status_code == 404


def test_one_source_needs_no_choice(client):
    assert client.get("/").text.count("<option") == 2
    alone = Client("photos")
    assert '<p hidden>\n<label for="source">' in alone.get("/").text


@pytest.mark.parametrize(
    ("options", "origin"),
    [
        ({"name": "images"}, "https://images.s3.amazonaws.com"),
        (
            {"name": "images", "region": "eu-west-1"},
            "https://images.s3.eu-west-1.amazonaws.com",
        ),
        ({"name": "images", "endpoint_url": "http://10.0.0.7:9000"}, "http://10.0.0.7:9000"),
    ],
)
def test_bytes_may_go_where_permissions_lead(monkeypatch, options, origin):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    bucket = Bucket(BucketSettings(**options))
    asked = {"Bucket": "images", "Key": "any", "UploadId": "1", "PartNumber": 1}
    assert page.upload_origin(bucket) == origin
    assert bucket.client.generate_presigned_url("upload_part", Params=asked).startswith(origin)
    bucket.client.close()


def test_pictures_come_from_where_manifests_lead():
    settings = Settings(
        bucket=BucketSettings(name="images", endpoint_url="http://10.0.0.7:9000"),
        sources={
            "photos": Source(prefix="uploads/photos/", base_url="https://cdn.example.com/a"),
            "shop": Source(prefix="uploads/shop/"),
            "others": Source(prefix="uploads/others/", base_url="https://other.example.com"),
        },
        intake=Intake(
            sources={name: IntakeSource(anonymous=True) for name in ("photos", "shop")},
        ),
    )
    assert page.picture_origins_of(settings, Bucket(settings.bucket)) == [
        "http://10.0.0.7:9000",
        "https://cdn.example.com",
    ]
