"""What a file is, by its first bytes. Foreign files are in ``hostile.py``."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.imaging.containers import is_raw
from image_pipeline.imaging.sniffing import sniff
from image_pipeline.imaging.verdict import Reason, Rejected

from . import hostile
from .builders import encoded, noise, tiff

PIXEL = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "GIF", "BMP"])
def test_what_is_decoded(kind: str) -> None:
    assert sniff(encoded(noise(16, 16), kind)[:4096]) == kind.lower()


@pytest.mark.parametrize("name", hostile.foreign())
def test_what_is_not(name: str) -> None:
    data, reason = hostile.foreign()[name]
    with pytest.raises(Rejected) as refused:
        sniff(data[:4096])
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("commented.svg", "SVG"),
        ("utf-32-be.svg", "SVG"),
        ("packed.svgz", "compressed"),
        ("scanner.pdf", "PDF"),
        ("blanks.eps", "PostScript"),
        ("nikon.nef", "camera RAW"),
        ("old.mov", "video"),
    ],
)
def test_people_are_told_what_it_is(name: str, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        sniff(hostile.foreign()[name][0])


class TestRaw:
    @pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
    def test_a_plain_tiff_is_none(self, order: str, big: bool) -> None:
        assert sniff(tiff(PIXEL, order=order, big=big)) == "tiff"

    def test_a_pyramid_is_none(self) -> None:
        """Smaller copies stand below the first directory as well (Adobe's TIFF notes)."""
        below = tiff(PIXEL)[8:]
        assert sniff(tiff(PIXEL | {330: 10}, below)) == "tiff"

    @pytest.mark.parametrize(
        "compression", [1, 2, 3, 4, 5, 6, 7, 8, 32_773, 32_946, 34_712, 50_000]
    )
    def test_known_compressions_are_none(self, compression: int) -> None:
        assert sniff(tiff(PIXEL | {259: compression})) == "tiff"

    def test_a_directory_below_itself(self) -> None:
        assert not is_raw(tiff(PIXEL | {330: [10] * 5000}))

    def test_a_directory_out_of_reach_is_no_reason(self) -> None:
        """Only the whole file shows what is at its end."""
        data = tiff(PIXEL | {50_706: b"\1\4\0\0"}, bytes(9000))
        assert sniff(data[:4096]) == "tiff"
        with pytest.raises(Rejected, match="camera RAW"):
            sniff(data)


class TestHostileText:
    @pytest.mark.parametrize("piece", [b"<!-- --", b"<!--x-->", b"<??>", b" ", b"<?x", b"P1 #\n"])
    def test_is_judged_in_no_time(self, piece: bytes) -> None:
        """A pattern that goes back over its choices would take years for some of these."""
        begun = time.process_time()
        with pytest.raises(Rejected) as refused:
            sniff(piece * 100_000)
        assert refused.value.reason is Reason.not_an_image
        assert time.process_time() - begun < 1

    @given(data=st.binary(max_size=100))
    def test_any_bytes_get_an_answer(self, data: bytes) -> None:
        for head in (b"", b"II*\0", b"\xff\xfe", b"\0\0\0\x10ftyp", b"P5 ", b"<?xml"):
            with suppress(Rejected):
                assert sniff(head + data)
