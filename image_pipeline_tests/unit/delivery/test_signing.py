"""Signed URLs and cookies, checked by RFC 8017 in plain arithmetic and by openssl."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cache
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from image_pipeline.delivery.manifest import image_manifest, picture_html
from image_pipeline.delivery.signing import (
    MAX_MINUTES,
    SigningError,
    sign_manifest,
    signed_cookies,
    signer,
)
from image_pipeline.delivery.urls import url_builder
from image_pipeline.settings import Delivery, Settings, Signing, Source

from .helpers import a_variant, an_image

NOW = datetime(2026, 3, 1, 12, 0, 0, 750_000, tzinfo=UTC)
ID = "K2JCJMDEHXQW5F"
KEY = "variants/ab12/small-640x427.f00.avif"
BASE = "https://private.test/img"
VARIABLE = "IMAGE_PIPELINE_DELIVERY__SIGNING__PRIVATE_KEY"


@cache
def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key=None, encryption=None, form=serialization.PrivateFormat.PKCS8):
    chosen = encryption or serialization.NoEncryption()
    key = key or rsa_key()
    return key.private_bytes(serialization.Encoding.PEM, form, chosen).decode()


def settings(signing=None, **sources):
    chosen = Signing(key_pair_id=ID, private_key=SecretStr(pem())) if signing is None else signing
    made = {
        name: Source(prefix=f"uploads/{name}/", access=access, base_url=base)
        for name, (access, base) in sources.items()
    }
    return Settings(sources=made, delivery=Delivery(signing=chosen))


PRIVATE = {"secret": ("private", BASE)}


def sign(key=KEY, **options):
    return signer(settings(**PRIVATE), "secret", None, lambda: NOW, **options)(key)


def plain(text):
    """The bytes behind CloudFront's base64, by the three replacements its manual names."""
    return base64.b64decode(
        text.replace("-", "+").replace("_", "=").replace("~", "/"), validate=True
    )


def emsa(message, length):
    """EMSA-PKCS1-v1_5 with SHA-1: RFC 8017, 9.2, its prefix from note 1 there."""
    prefix = bytes.fromhex("3021300906052b0e03021a05000414")
    tail = prefix + hashlib.sha1(message).digest()
    return b"\x00\x01" + b"\xff" * (length - len(tail) - 3) + b"\x00" + tail


def is_signed(message, signature):
    """RSASSA-PKCS1-v1_5: RFC 8017, 8.2.2, with the public key's numbers only."""
    numbers = rsa_key().public_key().public_numbers()
    length = (numbers.n.bit_length() + 7) // 8
    opened = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n)
    return len(signature) == length and opened.to_bytes(length, "big") == emsa(message, length)


def canned(url, expires):
    """CloudFront's canned policy, as its manual spells it: no white space."""
    condition = '"Condition":{"DateLessThan":{"AWS:EpochTime":' + str(expires) + "}}"
    return ('{"Statement":[{"Resource":"' + url + '",' + condition + "}]}").encode()


def parts(signed):
    """The URL before its signature, and the signature's parameters."""
    url, _, query = signed.partition("?")
    return url, {name: values[0] for name, values in parse_qs(query, strict_parsing=True).items()}


class TestUrls:
    def test_the_signature_is_that_of_the_canned_policy(self):
        url, query = parts(sign())
        assert url == f"{BASE}/{KEY}"
        assert list(query) == ["Expires", "Signature", "Key-Pair-Id"]
        assert query["Key-Pair-Id"] == ID
        assert is_signed(canned(url, query["Expires"]), plain(query["Signature"]))

    def test_it_ends_when_the_settings_say_and_not_before_the_second(self):
        _, query = parts(sign())
        assert int(query["Expires"]) == int(NOW.timestamp()) + 3600
        _, short = parts(sign(minutes=0.5))
        assert int(short["Expires"]) == int((NOW + timedelta(seconds=30)).timestamp())

    @pytest.mark.parametrize("change", ["url", "expires", "signature"])
    def test_nothing_of_it_can_be_changed(self, change):
        url, query = parts(sign())
        expires, signature = int(query["Expires"]), plain(query["Signature"])
        if change == "url":
            url = url.replace("small", "large")
        elif change == "expires":
            expires += 1
        else:
            signature = bytes([signature[0], signature[1] ^ 1]) + signature[2:]
        assert not is_signed(canned(url, expires), signature)

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
    def test_any_key_gives_a_url_that_fits_into_a_query_and_a_srcset(self, key):
        signed = sign(key)
        url, query = parts(signed)
        assert url == url_builder(BASE, BASE)(key)
        assert re.fullmatch(r"[A-Za-z0-9\-_~]+", query["Signature"])
        assert not set(signed) & set(" ,\"'<>")
        assert is_signed(canned(url, query["Expires"]), plain(query["Signature"]))

    def test_the_moment_is_that_of_signing(self):
        moments = iter([NOW, NOW + timedelta(minutes=5)])
        sign = signer(settings(**PRIVATE), "secret", None, lambda: next(moments))
        first, second = (int(parts(sign(KEY))[1]["Expires"]) for _ in range(2))
        assert second - first == 300

    def test_openssl_says_so_too(self, tmp_path):
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        url, query = parts(sign())
        public = rsa_key().public_key()
        spelled = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (tmp_path / "public.pem").write_bytes(spelled)
        (tmp_path / "signature").write_bytes(plain(query["Signature"]))
        call = ["openssl", "dgst", "-sha1", "-verify", "public.pem", "-signature", "signature"]
        for message, code in ((canned(url, query["Expires"]), 0), (canned(url, 1), 1)):
            asked = subprocess.run(
                call, input=message, cwd=tmp_path, capture_output=True, check=False
            )
            assert asked.returncode == code, asked.stderr


class TestCookies:
    def cookies(self, base=BASE, **options):
        made = settings(secret=("private", base))
        return signed_cookies(made, "secret", lambda: NOW, **options)

    def opened(self, cookies):
        return json.loads(plain(cookies.values["CloudFront-Policy"]))["Statement"][0]

    def test_the_policy_is_signed_and_compact(self):
        values = self.cookies().values
        assert list(values) == [
            "CloudFront-Policy",
            "CloudFront-Signature",
            "CloudFront-Key-Pair-Id",
        ]
        policy = plain(values["CloudFront-Policy"])
        assert policy == canned(f"{BASE}/*", int(NOW.timestamp()) + 3600)
        assert not re.search(rb"\s", policy)
        assert is_signed(policy, plain(values["CloudFront-Signature"]))
        assert not is_signed(policy + b" ", plain(values["CloudFront-Signature"]))
        assert values["CloudFront-Key-Pair-Id"] == ID

    @pytest.mark.parametrize(
        ("url", "accepted"),
        [
            (f"{BASE}/{KEY}", True),
            (f"{BASE}/variants/ff/xlarge-2560x1440.f00.jpg", True),
            (f"{BASE}/manifests/secret/ab12.json", True),
            ("https://private.test/other/variants/ab12/x.avif", False),
            ("https://public.test/img/variants/ab12/x.avif", False),
            ("https://private.test.evil.test/img/variants/x.avif", False),
            ("http://private.test/img/variants/ab12/x.avif", False),
        ],
    )
    def test_they_open_what_the_source_has_and_no_other_host(self, url, accepted):
        resource = self.opened(self.cookies())["Resource"]
        # CloudFront's * stands for any number of characters, slashes included.
        assert "[" not in resource
        assert fnmatchcase(url, resource) is accepted

    def test_they_say_where_they_belong_and_until_when(self):
        cookies = self.cookies(minutes=10)
        assert (cookies.domain, cookies.path) == ("private.test", "/img")
        assert cookies.expires_at == datetime(2026, 3, 1, 12, 10, tzinfo=UTC)
        limit = self.opened(cookies)["Condition"]["DateLessThan"]["AWS:EpochTime"]
        assert limit == cookies.expires_at.timestamp()
        assert self.cookies("https://private.test/").path == "/"

    def test_they_fit_into_set_cookie(self):
        cookies = self.cookies()
        for header, (name, value) in zip(cookies.headers, cookies.values.items(), strict=True):
            assert header == (f"{name}={value}; Domain=private.test; Path=/img; Secure; HttpOnly")
            # RFC 6265, 4.1.1: no white space, double quote, comma, semicolon or backslash.
            assert re.fullmatch(r"[A-Za-z0-9\-_~]+", value)

    def test_a_source_without_a_cdn_has_none(self):
        with pytest.raises(SigningError, match=r"sources\.secret\.base_url"):
            self.cookies(None)

    def test_a_public_source_needs_none(self):
        with pytest.raises(SigningError, match="public"):
            signed_cookies(settings(photos=("public", BASE)), "photos", lambda: NOW)


class TestNeighbours:
    """Files are named by image: what opens one source at an address opens all that are there."""

    @pytest.mark.parametrize(
        "other", [BASE, "https://private.test", "http://PRIVATE.test/img/x", f"{BASE}/"]
    )
    def test_a_private_source_shares_its_address_with_no_public_one(self, other):
        with pytest.raises(ValueError, match="public source 'photos'"):
            settings(**PRIVATE, photos=("public", other))

    @pytest.mark.parametrize("other", ["https://img.test", "https://private.test/imgs", None])
    def test_other_addresses_do_not_matter(self, other):
        both = settings(**PRIVATE, photos=("public", other))
        assert signer(both, "secret", None)(KEY)
        assert signed_cookies(both, "secret").values

    def test_the_common_address_of_all_sources_counts(self):
        made = {
            "secret": Source(prefix="uploads/secret/", access="private"),
            "photos": Source(prefix="uploads/photos/"),
        }
        signing = Signing(key_pair_id=ID, private_key=SecretStr(pem()))
        with pytest.raises(ValueError, match="public source 'photos'"):
            Settings(sources=made, delivery=Delivery(base_url=BASE, signing=signing))

    def test_two_private_sources_may_share_it_but_not_by_cookies(self):
        both = settings(**PRIVATE, hidden=("private", BASE))
        assert signer(both, "secret", None)(KEY)
        with pytest.raises(SigningError, match="'hidden'"):
            signed_cookies(both, "secret")


class TestSettings:
    def attempt(self, key_pair_id=ID, private_key=None):
        secret = None if private_key is None else SecretStr(private_key)
        signing = Signing(key_pair_id=key_pair_id, private_key=secret)
        made = signer(settings(signing, **PRIVATE), "secret", None, lambda: NOW)
        return parts(made(KEY))

    @pytest.mark.parametrize(
        "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
    )
    @pytest.mark.parametrize("newline", ["\n", "\\n", "\r\n"])
    def test_the_key_may_be_spelled_as_files_and_environments_do(self, form, newline):
        text = pem(form=form).replace("\n", newline)
        url, query = self.attempt(private_key=f"\n{text}\n")
        assert is_signed(canned(url, query["Expires"]), plain(query["Signature"]))

    @pytest.mark.parametrize(
        ("key_pair_id", "private_key", "match"),
        [
            (None, "", r"delivery\.signing\.key_pair_id"),
            ("", "", r"delivery\.signing\.key_pair_id"),
            ("K2&x=1", "", r"delivery\.signing\.key_pair_id"),
            (ID, None, f"set {VARIABLE}"),
            (ID, "  ", f"set {VARIABLE}"),
            (ID, "secret words", f"{VARIABLE}: is no private key in PEM"),
            (
                ID,
                "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----",
                "no private key",
            ),
        ],
    )
    def test_what_is_missing_or_wrong_is_named_and_not_repeated(
        self, key_pair_id, private_key, match
    ):
        with pytest.raises(SigningError, match=match) as caught:
            self.attempt(key_pair_id, private_key)
        assert "secret" not in str(caught.value).replace("sources.secret", "")
        assert caught.value.__cause__ is None

    def test_other_keys_are_refused_by_name(self):
        with pytest.raises(SigningError, match="no RSA key"):
            self.attempt(private_key=pem(ec.generate_private_key(ec.SECP256R1())))
        locked = pem(encryption=serialization.BestAvailableEncryption(b"word"))
        with pytest.raises(SigningError, match="encrypted"):
            self.attempt(private_key=locked)

    @pytest.mark.parametrize("minutes", [0, -1, MAX_MINUTES + 1])
    def test_a_lifetime_that_s3_would_refuse_is_refused_here(self, minutes):
        with pytest.raises(SigningError, match="minutes"):
            sign(minutes=minutes)

    def test_a_public_source_is_not_signed_and_needs_no_key(self):
        assert signer(settings(Signing(), photos=("public", BASE)), "photos", None) is None

    def test_without_a_cdn_s3_is_asked_for_the_url(self):
        class Stub:
            def presigned_url(self, key, seconds):
                return f"https://bucket.test/{key}?X-Amz-Expires={seconds}"

        made = settings(Signing(minutes=2), secret=("private", None))
        assert signer(made, "secret", Stub())("k").endswith("/k?X-Amz-Expires=120")
        assert signer(made, "secret", Stub(), minutes=0.001)("k").endswith("=1")


class Urls(HTMLParser):
    """Every URL of a snippet, as a browser reads it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "src":
                self.found.append(value)
            elif name == "srcset":
                self.found += [candidate.split()[0] for candidate in value.split(", ")]


class TestManifests:
    @pytest.fixture
    def manifest(self):
        variants = [
            a_variant(kind, width, width // 2, width)
            for kind in ("avif", "webp", "jpeg")
            for width in (640, 1024)
        ]
        thumbnail = a_variant("jpeg", 400, 400, 4, role="thumbnail", size="thumbnail")
        return image_manifest(an_image(*variants, thumbnail), url_builder(BASE, BASE))

    def test_every_url_of_it_is_signed(self, manifest):
        def sign(key):
            return f"{BASE}/{key}?a=1&b=2"

        signed = sign_manifest(manifest, sign)
        urls = {one["url"] for one in signed["variants"]}
        assert urls == {sign(one["key"]) for one in manifest["variants"]}
        assert signed["src"] in urls
        reader = Urls()
        reader.feed(signed["html"])
        assert reader.found
        assert set(reader.found) <= urls
        assert "a=1&amp;b=2" in signed["html"]
        assert signed["html"] == picture_html(signed)
        # Nowhere is a URL left that does not work.
        text = json.dumps(signed)
        assert text.count(BASE) == text.count("?a=1")

    def test_nothing_else_of_it_changes(self, manifest):
        before = json.dumps(manifest)
        same = sign_manifest(manifest, url_builder(BASE, BASE))
        assert same == manifest
        sign_manifest(manifest, lambda key: "x")
        assert json.dumps(manifest) == before

    def test_each_file_is_signed_once(self, manifest):
        keys = []
        sign_manifest(manifest, lambda key: keys.append(key) or f"https://x.test/{key}?s")
        assert sorted(keys) == sorted(one["key"] for one in manifest["variants"])

    def test_with_cloudfront_each_of_them_is_accepted(self, manifest):
        made = settings(**PRIVATE)
        signed = sign_manifest(manifest, signer(made, "secret", None, lambda: NOW))
        for candidates in signed["srcset"].values():
            for candidate in candidates.split(", "):
                url, query = parts(candidate.split(" ")[0])
                assert urlsplit(url).hostname == "private.test"
                assert is_signed(canned(url, query["Expires"]), plain(query["Signature"]))

    def test_an_image_without_files_has_nothing_to_sign(self, manifest):
        empty = {**manifest, "variants": [], "srcset": {}, "src": None, "html": ""}
        assert sign_manifest(empty, lambda key: "x") == empty
