"""Samples of a TIFF that Pillow reads as something else."""

from __future__ import annotations

from PIL import ImageFile, TiffImagePlugin

_BITS, _PHOTOMETRIC = 258, 262

_WHITE_IS_ZERO = 0


def widen_planes(opened: ImageFile.ImageFile) -> None:
    """Read planes of 16-bit samples as such, before they are loaded.

    Where each colour has a plane of its own and nothing is compressed, Pillow takes each for 8
    bits. No other file has planes named by one letter with samples of 16 bits.
    """
    if set(_tags(opened).get(_BITS, ())) != {16}:
        return
    order = "L" if _tags(opened).prefix == b"II" else "B"
    opened.tile = [
        part._replace(args=(f"{part.args[0]};16{order}", *part.args[1:]))
        if part.codec_name == "raw" and isinstance(part.args, tuple) and len(part.args[0]) == 1
        else part
        for part in opened.tile
    ]


def is_negative(opened: ImageFile.ImageFile) -> bool:
    """Whether white is zero in grey samples of more than 8 bits; Pillow inverts up to 8."""
    return opened.mode.startswith("I") and _tags(opened).get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _tags(opened: ImageFile.ImageFile) -> TiffImagePlugin.ImageFileDirectory_v2:
    assert isinstance(opened, TiffImagePlugin.TiffImageFile)
    return opened.tag_v2
