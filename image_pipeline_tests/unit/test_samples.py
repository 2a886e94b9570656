"""The generated photographs: what each file is for must be true of it."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from image_pipeline.samples import SAMPLES, Sample, photograph, write_samples

SCALE = 0.08
SCENES = [sample for sample in SAMPLES if sample.scene and sample.form != "truncated"]
CAMERA = [sample for sample in SAMPLES if sample.form == "jpeg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, scale=SCALE)
    return folder


def upright(path: Path) -> Image.Image:
    """What a person sees, on white."""
    with Image.open(path) as image:
        if image.mode == "I;16":
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        turned = ImageOps.exif_transpose(image)
    if turned.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned).convert("RGB")
    return turned.convert("RGB")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_writes_every_file_and_reports_it(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    paths = write_samples(tmp_path, scale=0.02, progress=lambda *count: told.append(count))
    assert [path.name for path in paths] == [sample.name for sample in SAMPLES]
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert told == [(n, len(SAMPLES)) for n in range(1, len(SAMPLES) + 1)]
    assert all(sample.note for sample in SAMPLES)
    # Forbidden on one file system or another.
    assert not set("".join(sample.name for sample in SAMPLES)) & set('<>:"/\\|?*')


def test_a_seed_always_makes_the_same_files(tmp_path: Path) -> None:
    write_samples(tmp_path / "one", scale=0.02, seed=1)
    write_samples(tmp_path / "same", scale=0.02, seed=1)
    write_samples(tmp_path / "other", scale=0.02, seed=2)
    one, other = digests(tmp_path / "one"), digests(tmp_path / "other")
    assert one == digests(tmp_path / "same")
    assert [name for name in one if one[name] == other[name]] == ["shopping list.jpg"]


def test_files_that_exist_are_kept(tmp_path: Path) -> None:
    kept = tmp_path / "dunes.jpg"
    kept.write_bytes(b"mine")
    paths = write_samples(tmp_path, scale=0.02)
    assert kept.read_bytes() == b"mine"
    for path in paths:
        os.utime(path, (1, 1))
    write_samples(tmp_path, scale=0.02)
    assert {path.stat().st_mtime for path in paths} == {1}


@pytest.mark.parametrize("sample", SCENES, ids=lambda sample: sample.name)
def test_a_picture_stands_upright_at_its_size_and_is_textured(folder: Path, sample: Sample) -> None:
    image = upright(folder / sample.name)
    assert image.size == (round(sample.width * SCALE), round(sample.height * SCALE))
    grey = np.asarray(image.convert("L"), np.float64)
    assert grey.std() > 15
    assert len(np.unique(grey)) > 100


def test_scenes_differ_and_the_smaller_copy_does_not(folder: Path) -> None:
    hashes = {s.name: imagehash.phash(upright(folder / s.name)) for s in SCENES}
    for one, other in itertools.combinations(hashes, 2):
        assert hashes[one] - hashes[other] > 16, (one, other)
    original = folder / "Ferien am See +1.jpg"
    smaller = folder / "Ferien am See (klein).jpg"
    assert imagehash.phash(upright(smaller)) - hashes[original.name] <= 4
    assert upright(smaller).size == (288, 192)
    assert smaller.stat().st_size < original.stat().st_size / 2


def test_the_same_pixels_without_exif(folder: Path) -> None:
    with (
        Image.open(folder / "still life.jpg") as original,
        Image.open(folder / "still life (no EXIF).jpg") as stripped,
    ):
        assert len(original.getexif()) > 5
        assert len(stripped.getexif()) == 0
        assert original.tobytes() == stripped.tobytes()


def test_the_mirrored_picture_is_another_until_it_is_turned_round(folder: Path) -> None:
    original = imagehash.phash(upright(folder / "Ferien am See +1.jpg"))
    mirrored = upright(folder / "Ferien gespiegelt.jpg")
    assert mirrored.size == (120, 80)
    assert imagehash.phash(mirrored) - original > 16
    assert imagehash.phash(ImageOps.mirror(mirrored)) - original <= 4


def test_the_frame_is_white_and_the_picture_within_it_the_same(folder: Path) -> None:
    framed = upright(folder / "night_city framed.jpg")
    grey = np.asarray(framed.convert("L"))
    border = round(0.05 * 246 * 0.3)
    assert grey.shape == (round(246 * 0.3) + 2 * border, round(369 * 0.3) + 2 * border)
    # Beside a hard edge JPEG rings by a few levels.
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        assert edge.min() > 235
    original = imagehash.phash(upright(folder / "night_city.jpeg"))
    assert imagehash.phash(ImageOps.crop(framed, border)) - original <= 6


def test_two_shots_from_one_place_overlap_and_are_not_the_same(folder: Path) -> None:
    first, second = (upright(folder / f"DSC_010{n}.jpg") for n in (1, 2))
    # The second camera looks a third of the picture further to the right.
    shift, width = round(first.width / 3), first.width
    left = np.asarray(first.crop((shift, 0, width, first.height)).convert("L"), float)
    right = np.asarray(second.crop((0, 0, width - shift, second.height)).convert("L"), float)
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.95
    assert imagehash.phash(first) - imagehash.phash(second) > 10
    assert imagehash.dhash(first) - imagehash.dhash(second) > 10


def test_the_camera_was_turned_and_not_the_world(folder: Path) -> None:
    """Where things are known to be: lamps above the river, a head above its shoulders."""
    city = np.asarray(upright(folder / "night_city.jpeg").convert("L"))
    rows = len(city)
    assert (city[: rows // 2] > 120).sum() > 10 * (city[rows * 3 // 4 :] > 120).sum()
    colour = np.asarray(upright(folder / "IMG_4711.JPG").convert("HSV"))[..., 1].astype(float)
    rows, columns = colour.shape
    middle = colour[:, columns // 4 : columns * 3 // 4]
    # Marble is grey, the garden green.
    assert middle[-rows // 20 :].mean() < 0.4 * middle[: rows // 20].mean()


@pytest.mark.parametrize("sample", CAMERA, ids=lambda sample: sample.name)
def test_a_camera_tells_on_its_owner(folder: Path, sample: Sample) -> None:
    with Image.open(folder / sample.name) as image:
        exif = image.getexif()
        assert exif[0x0112] == sample.orientation
        assert exif[0x010F] == "Sample Optical"
        assert exif[0x013B] == "A. Photographer"
        assert exif.get_ifd(0x8769)[0xA431] == "SN-0012345"
        assert exif.get_ifd(0x8825)[2] == (0.0, 0.0, 36.0)
        sideways = sample.orientation in (6, 8)
        wide, tall = round(sample.width * SCALE), round(sample.height * SCALE)
        assert image.size == ((tall, wide) if sideways else (wide, tall))


def test_orientations_3_6_and_8_are_there() -> None:
    assert {sample.orientation for sample in CAMERA} == {1, 3, 6, 8}


def test_the_odd_files_are_what_they_claim(folder: Path) -> None:
    copy, original = folder / "IMG_4711 Kopie.JPG", folder / "IMG_4711.JPG"
    assert copy.read_bytes() == original.read_bytes()
    with Image.open(folder / "forest_print.jpg") as image:
        assert (image.format, image.mode) == ("JPEG", "CMYK")
    with Image.open(folder / "moon.png") as image:
        levels = np.asarray(image)
    # More than 8 bits are used: most values are no multiple of 257.
    assert levels.dtype == np.uint16
    assert (levels % 257 != 0).mean() > 0.9
    with Image.open(folder / "vase cut-out.png") as image:
        alpha = np.asarray(image.getchannel("A"))
        assert image.mode == "RGBA"
        assert alpha[0, 0] == 0
        assert alpha[alpha.shape[0] // 2, alpha.shape[1] // 2] == 255
    with Image.open(folder / "夕焼け.webp") as image:
        assert image.format == "WEBP"
    with Image.open(folder / "IMG_0815.jpg") as image, pytest.raises(OSError, match="truncated"):
        image.load()
    with pytest.raises(UnidentifiedImageError):
        Image.open(folder / "shopping list.jpg")


def test_photographs_have_their_size_and_seed() -> None:
    one = photograph(97, 61, 5)
    assert one.mode == "RGB"
    assert one.size == (97, 61)
    assert one.tobytes() == photograph(97, 61, 5).tobytes()


def test_photographs_of_different_seeds_look_different() -> None:
    # 8 bits of 64 is where duplicates are first suspected. All of 300 seeds were compared once
    # (least distance 10); these are the first 24 of them.
    hashes = [imagehash.phash(photograph(160, 120, seed)) for seed in range(24)]
    assert min(one - other for one, other in itertools.combinations(hashes, 2)) > 8
