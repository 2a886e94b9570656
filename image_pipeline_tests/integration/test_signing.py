"""Signed URLs at a real S3 server, and the commands that print them."""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import botocore.auth
import click
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from image_pipeline.commands.signing import run_cookies, run_sign
from image_pipeline.delivery.manifest import PublishedImage, Variant, image_manifest, to_json
from image_pipeline.delivery.signing import sign_manifest, signer
from image_pipeline.delivery.urls import url_builder
from image_pipeline.settings import BucketSettings, Delivery, Settings, Signing, Source
from image_pipeline.store.layout import image_manifest_key

IMAGE = "ab" * 32
KEYS = [f"variants/{IMAGE}/small-{width}x10.f00.webp" for width in (20, 40)]


@pytest.fixture
def settings(bucket):
    """A private and a public source, and no CDN."""
    sources = {
        "secret": Source(prefix="uploads/secret/", access="private"),
        "photos": Source(prefix="uploads/photos/"),
    }
    place = BucketSettings(name=bucket.name, endpoint_url=bucket.endpoint_url)
    return Settings(bucket=place, sources=sources, delivery=Delivery(signing=Signing(minutes=10)))


@pytest.fixture
def manifest(bucket):
    """An image of the private source, with its files and its manifest in the bucket."""
    variants = []
    for number, key in enumerate(KEYS):
        data = b"picture %d" % number
        bucket.put(key, data, "image/webp")
        width = int(key.split("-")[1].split("x")[0])
        variants.append(Variant("responsive", "small", "webp", width, 10, len(data), "0" * 64, key))
    image = PublishedImage(
        id=IMAGE, source="secret", width=40, height=10, has_alpha=False, animated=False,
        dominant_color="#336699", placeholder="", variants=tuple(variants),
        uploads=("uploads/secret/a.jpg",), aliases=(),
    )  # fmt: skip
    made = image_manifest(image, url_builder(None, bucket.url))
    bucket.put(image_manifest_key("secret", IMAGE), to_json(made), "application/json")
    return made


def fetch(url):
    """Status and body of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


class TestPresigned:
    def test_a_signed_url_gives_the_file(self, bucket, settings, manifest):
        sign = signer(settings, "secret", bucket)
        assert fetch(sign(KEYS[0])) == (200, b"picture 0")

    def test_a_key_of_any_name_works(self, bucket, settings):
        key = "uploads/secret/été, 50% & más+1?#.jpg"
        bucket.put(key, b"strange", "image/jpeg")
        assert fetch(signer(settings, "secret", bucket)(key)) == (200, b"strange")

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (KEYS[0], KEYS[1]),
            ("X-Amz-Expires=600", "X-Amz-Expires=6000"),
            ("Signature=", "Signature=0"),
        ],
        ids=["key", "expiry", "signature"],
    )  # fmt: skip
    def test_a_changed_one_is_refused(self, bucket, settings, manifest, old, new):
        url = signer(settings, "secret", bucket)(KEYS[0])
        changed = url.replace(old, new)
        assert changed != url
        assert fetch(changed)[0] == 403

    def test_one_is_refused_when_its_time_is_over(self, bucket, settings, manifest, monkeypatch):
        sign = signer(settings, "secret", bucket)
        for minutes, status in ((-9, 200), (-11, 403)):
            moment = datetime.now(UTC) + timedelta(minutes=minutes)
            monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda at=moment: at)
            assert fetch(sign(KEYS[0]))[0] == status

    def test_the_signature_is_the_one_that_all_regions_know(self, bucket, settings):
        # Version 2 is refused by every region opened since 2014, and has no limit of time.
        url = signer(settings, "secret", bucket)("k")
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
        assert "X-Amz-Expires=600" in url

    def test_every_url_of_a_signed_manifest_gives_its_file(self, bucket, settings, manifest):
        signed = sign_manifest(manifest, signer(settings, "secret", bucket))
        candidates = [one.split(" ")[0] for one in signed["srcset"]["webp"].split(", ")]
        assert [fetch(url) for url in candidates] == [(200, b"picture 0"), (200, b"picture 1")]
        assert fetch(signed["src"])[0] == 200
        assert {one["url"] for one in signed["variants"]} == set(candidates)


@pytest.fixture
def at_cdn(settings):
    """The same with a CDN before the private source."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    source = Source(prefix="uploads/secret/", access="private", base_url="https://private.test")
    signing = Signing(key_pair_id="K1", private_key=SecretStr(pem))
    update = {
        "sources": {**settings.sources, "secret": source},
        "delivery": Delivery(signing=signing),
    }
    return settings.model_copy(update=update)


class TestCommands:
    def test_the_url_of_a_key_stands_alone(self, settings, manifest, capsys):
        assert run_sign(settings, KEYS[1], None, None, False) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [fetch(line) for line in lines] == [(200, b"picture 1")]

    def test_json_says_until_when(self, settings, manifest, capsys):
        before = datetime.now(UTC)
        run_sign(settings, KEYS[0], "secret", 5, True)
        found = json.loads(capsys.readouterr().out)
        assert (found["source"], found["key"]) == ("secret", KEYS[0])
        until = datetime.fromisoformat(found["expires_at"])
        assert abs(until - before - timedelta(minutes=5)) < timedelta(minutes=1)
        assert "X-Amz-Expires=300" in found["url"]

    def test_an_image_is_its_signed_manifest(self, at_cdn, manifest, capsys):
        run_sign(at_cdn, IMAGE, None, None, True)
        signed = json.loads(capsys.readouterr().out)
        assert signed["id"] == IMAGE
        assert signed["src"].startswith("https://private.test/variants/")
        assert "Key-Pair-Id=K1" in signed["html"]
        run_sign(at_cdn, IMAGE, None, None, False)
        lines = capsys.readouterr().out.splitlines()
        assert sum(line.startswith("https://private.test/") for line in lines) == len(KEYS)

    @pytest.mark.parametrize(
        ("wanted", "source", "message"),
        [
            ("variants/none.jpg", None, "no object"),
            ("cd" * 32, None, "secret has published no image"),
            (KEYS[0], "photos", "public"),
        ],
    )
    def test_what_cannot_be_signed_is_said(self, settings, manifest, wanted, source, message):
        with pytest.raises(click.ClickException, match=message):
            run_sign(settings, wanted, source, None, False)

    def test_a_missing_setting_is_named(self, at_cdn, manifest):
        delivery = Delivery(signing=Signing(key_pair_id="K1"))
        without = at_cdn.model_copy(update={"delivery": delivery})
        with pytest.raises(click.ClickException, match="PRIVATE_KEY"):
            run_sign(without, KEYS[0], None, None, False)
        with pytest.raises(click.ClickException, match="PRIVATE_KEY"):
            run_cookies(without, "secret", None, False)

    def test_the_source_is_asked_for_where_it_is_not_clear(self, settings):
        other = Source(prefix="uploads/other/", access="private")
        two = settings.model_copy(update={"sources": {**settings.sources, "other": other}})
        none = settings.model_copy(update={"sources": {"photos": settings.sources["photos"]}})
        for chosen, known in ((two, "other, secret"), (none, "there is none")):
            with pytest.raises(click.UsageError, match=known):
                run_sign(chosen, KEYS[0], None, None, False)

    def test_cookies_are_printed_as_a_server_sends_them(self, at_cdn, capsys):
        assert run_cookies(at_cdn, "secret", 5, False) == 0
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        assert [line.split("=")[0] for line in lines] == [
            "Set-Cookie: CloudFront-Policy",
            "Set-Cookie: CloudFront-Signature",
            "Set-Cookie: CloudFront-Key-Pair-Id",
        ]
        assert "They work until" in printed.err
        run_cookies(at_cdn, "secret", 5, True)
        found = json.loads(capsys.readouterr().out)
        assert set(found) == {"cookies", "domain", "path", "expires_at", "set_cookie"}
        assert found["domain"] == "private.test"
