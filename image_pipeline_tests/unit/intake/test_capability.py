"""Ids: whoever made one can read it, and nobody else can make one."""

import base64
import hmac
import re
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.ingest.presigning import TYPES, upload_key
from image_pipeline.intake.capability import MAX_LENGTH, Capability, Sealer, UnknownUploadError

SECRET = bytes(range(32))
ONE = Capability("photos", "ab" * 16, "a.jpg", "image/jpeg", 5, 1_800_000_000, in_parts=False)

CAPABILITIES = st.builds(
    Capability,
    source=st.from_regex(r"[a-z0-9][a-z0-9_]{0,30}", fullmatch=True),
    token=st.binary(min_size=16, max_size=16).map(bytes.hex),
    name=st.text(max_size=300).map(lambda name: upload_key("", name, "t").removeprefix("t/")),
    content_type=st.sampled_from(TYPES),
    size=st.integers(1, 2_000_000_000),
    expires_at=st.integers(0, 2**32 - 1),
    in_parts=st.booleans(),
)


@given(CAPABILITIES)
def test_an_id_is_read_as_it_was_made(one):
    upload = Sealer(SECRET).seal(one)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", upload)
    assert len(upload) <= MAX_LENGTH
    assert Sealer(SECRET).open(upload) == one


@given(CAPABILITIES, st.data())
def test_no_other_id_is_read(one, data):
    upload = Sealer(SECRET).seal(one)
    place = data.draw(st.integers(0, len(upload) - 1))
    other = data.draw(st.sampled_from("Ab0_-=+/ é").filter(lambda other: other != upload[place]))
    with pytest.raises(UnknownUploadError):
        Sealer(SECRET).open(upload[:place] + other + upload[place + 1 :])


def test_each_upload_has_one_id():
    """The last letter of base64 has bits that mean nothing."""
    alphabet = string.ascii_letters + string.digits + "-_"
    for name in ("a.jpg", "aa.jpg", "aaa.jpg"):
        upload = Sealer(SECRET).seal(replace(ONE, name=name))
        for other in alphabet.replace(upload[-1], ""):
            with pytest.raises(UnknownUploadError):
                Sealer(SECRET).open(upload[:-1] + other)
        with pytest.raises(UnknownUploadError):
            Sealer(SECRET).open(upload + "=")


@given(st.text(max_size=400))
def test_anything_else_is_unknown(upload):
    with pytest.raises(UnknownUploadError):
        Sealer(SECRET).open(upload)


def test_another_secret_reads_nothing():
    with pytest.raises(UnknownUploadError):
        Sealer(b"x" * 32).open(Sealer(SECRET).seal(ONE))


def test_a_short_body_with_a_right_signature_is_unknown():
    body = b"\x01\x02"
    sealed = body + hmac.digest(SECRET, body, "sha256")[:16]
    with pytest.raises(UnknownUploadError):
        Sealer(SECRET).open(base64.urlsafe_b64encode(sealed).decode().rstrip("="))


def test_the_key_has_the_random_part_and_no_more():
    assert ONE.key("uploads/photos/") == f"uploads/photos/{ONE.token}/a.jpg"
    sealed = Sealer(SECRET).seal(ONE)
    assert sealed != Sealer(SECRET).seal(replace(ONE, token="cd" * 16))
    # Nobody who sees a key can tell the end of the id, which is the signature.
    assert sealed[-20:] not in ONE.key("")
