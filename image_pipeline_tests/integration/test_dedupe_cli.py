"""``image-pipeline dedupe`` as scripts and people use it: one process, one answer."""

import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from PIL import Image, ImageOps

from image_pipeline.commands.dedupe import (
    MEANINGS,
    near_pairs,
    picture_of,
    sketched_of,
    written_at,
)
from image_pipeline.dedupe.grouping import (
    ASPECT_TOLERANCE,
    CHROMA_TOLERANCE,
    DETAIL_CONTRAST,
    DETAIL_TOLERANCE,
    MIN_TEXTURE,
    PHASH64_DISTANCE,
    PHASH256_DISTANCE,
    UNKNOWN_QUALITY,
    relation,
)
from image_pipeline.dedupe.near import (
    DHASH_CANDIDATE,
    DHASH_TEXTURE,
    MIN_SCORE,
    PHASH_CANDIDATE,
    TRANSFORMS,
    verify,
)
from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.samples import photograph
from image_pipeline.settings import CONFIG_VARIABLE, Limits
from image_pipeline_tests.unit.imaging.builders import encoded

pytestmark = pytest.mark.xdist_group("dedupe")

#: Markup of the terminal library, a terminal's escape, a line break, text that runs backwards.
HOSTILE = "[red]a[bold] \x1b[31m\n b c\u202egpj.jpg"

NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")


def dedupe(*arguments):
    variables = {name: value for name, value in os.environ.items() if name != CONFIG_VARIABLE}
    command = [sys.executable, "-m", "image_pipeline.cli", "dedupe", "--workers", "2"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True, timeout=120, check=False, env=variables,
    )  # fmt: skip


def answer(*arguments):
    ended = dedupe(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


def grouped(document, folder):
    """Canonical -> member -> tier, with names relative to the folder."""
    return {
        os.path.relpath(group["canonical"], folder): {
            os.path.relpath(one["path"], folder): one["tier"] for one in group["members"]
        }
        for group in document["groups"]
    }


def with_comment(data):
    """The same JPEG with a comment segment behind its first marker (ITU-T T.81, B.2.4.5)."""
    return data[:2] + b"\xff\xfe\x00\x08edited" + data[2:]


def recoloured(image):
    """Red and blue exchanged: the brightness hardly changes, the product is another."""
    red, green, blue = image.split()
    return Image.merge("RGB", (blue, green, red))


def write_pictures(folder):
    """Three pictures with what was made of them, one alone, and what is no picture."""
    (folder / "originals").mkdir()
    (folder / "card").mkdir()
    lake, city, alone = (photograph(640, 480, seed) for seed in (1, 5, 8))
    original = folder / "originals" / "IMG_1.jpg"
    original.write_bytes(encoded(lake, "JPEG", quality=92))
    (folder / "card" / "IMG_1.jpg").write_bytes(original.read_bytes())
    (folder / "tagged.jpg").write_bytes(with_comment(original.read_bytes()))
    lake.resize((320, 240)).save(folder / "small.webp", quality=80)
    (folder / "small again.webp").write_bytes((folder / "small.webp").read_bytes())
    ImageOps.mirror(lake).save(folder / "mirrored.jpg", quality=70)
    recoloured(lake).save(folder / "other colours.jpg", quality=85)
    city.save(folder / HOSTILE, "JPEG", quality=90)
    ImageOps.expand(city.resize((512, 384)), 32, "white").save(folder / "framed.jpg", quality=90)
    alone.save(folder / NOT_UTF8, "JPEG", quality=85)
    (folder / "note.jpg").write_bytes(b"just text")
    (folder / "empty.png").write_bytes(b"")
    (folder / "empty too.png").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(original.read_bytes()[:9000])
    os.mkfifo(folder / "pipe.jpg")
    # The older of two equal files is the one that was there first.
    for path, seconds in ((original, 1_000), (folder / "card" / "IMG_1.jpg", 2_000)):
        os.utime(path, (seconds, seconds))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pictures")
    write_pictures(made)
    return made


@pytest.fixture(scope="module")
def document(folder):
    return answer(folder)


def test_every_tier_is_found_and_nothing_else(folder, document):
    assert document["images"] == 10
    assert grouped(document, folder) == {
        "originals/IMG_1.jpg": {
            "card/IMG_1.jpg": "bytes",
            "tagged.jpg": "pixels",
            "small.webp": "picture",
            "small again.webp": "picture",
            "mirrored.jpg": "near",
            "other colours.jpg": "near",
        },
        HOSTILE: {"framed.jpg": "near"},
    }


def test_members_come_by_tier_and_tell_their_distance(document):
    (members,) = (group["members"] for group in document["groups"] if len(group["members"]) > 1)
    assert [one["tier"] for one in members] == [
        "bytes",
        "pixels",
        "picture",
        "picture",
        *["near"] * 2,
    ]
    assert [one["distance"] for one in members[:2]] == [0, 0]
    assert all(0 <= one["distance"] <= PHASH64_DISTANCE for one in members[2:4])
    assert all(set(one) == {"path", "tier", "distance"} for one in members)


def test_what_is_no_picture_is_listed_with_its_reason(folder, document):
    rejected = document["rejected"]
    assert {os.path.relpath(one["path"], folder): one["reason"] for one in rejected} == {
        "note.jpg": "not_an_image",
        "empty.png": "empty_file",
        "empty too.png": "empty_file",
        "cut.jpg": "truncated",
        "pipe.jpg": "not_an_image",
    }  # fmt: skip


def test_a_table_for_people(folder):
    ended = dedupe(folder)
    text = ended.stdout.decode()
    assert ended.returncode == 0
    assert "10 images, 2 groups of duplicates" in text
    for tier, count in (("bytes", 1), ("pixels", 1), ("picture", 2), ("near", 3)):
        assert re.search(rf"^ +{count} {tier} ", text, re.MULTILINE), tier
    repeated = ("card/IMG_1.jpg", "tagged.jpg", "small.webp", "small again.webp")
    kilobytes = sum((folder / name).stat().st_size for name in repeated) / 1000
    assert re.search(r"near .* mirrored ", text)
    assert re.search(r"near .* framed ", text)
    (found,) = re.findall(r"^(\d+)\u00a0kB are in files that only repeat", text, re.MULTILINE)
    assert float(found) == pytest.approx(kilobytes, abs=0.51)
    # Shown as what they are: nothing for the terminal to obey, every file in one row.
    assert "[red]a[bold]" in text
    assert not {"\x1b", "\u202e", "\r"} & set(text)
    assert "truncated" in text


@pytest.mark.parametrize(
    ("tier", "tiers"),
    [
        ("pixels", {"bytes", "pixels"}),
        ("picture", {"bytes", "pixels", "picture"}),
    ],
)
def test_the_weakest_tier_can_be_chosen(folder, tier, tiers):
    groups = grouped(answer(folder, "--tier", tier), folder)
    assert {found for members in groups.values() for found in members.values()} == tiers
    # Without the tiers that join them, the copies of the small version are a group of their own.
    assert ("small again.webp" in groups or "small.webp" in groups) == (tier != "picture")


def test_files_named_twice_count_once_and_names_may_repeat(folder):
    again = folder / "card" / ".." / "originals" / "IMG_1.jpg"
    document = answer(folder / "originals", folder / "card", again)
    assert document["images"] == 2
    assert grouped(document, folder) == {"originals/IMG_1.jpg": {"card/IMG_1.jpg": "bytes"}}


def test_the_order_of_the_paths_changes_nothing(folder, document):
    paths = sorted(folder.iterdir(), reverse=True)
    turned = answer(*paths)
    assert turned["groups"] == document["groups"]
    assert turned["rejected"] == document["rejected"]


def test_links_that_lead_nowhere_or_in_a_circle_are_no_pictures(tmp_path):
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "c.jpg").symlink_to("missing.jpg")
    found = answer(tmp_path)
    assert found["images"] == 0
    assert {one["path"].rsplit("/", 1)[-1]: one["reason"] for one in found["rejected"]} == {
        "a.jpg": "not_an_image", "b.jpg": "not_an_image", "c.jpg": "not_an_image",
    }  # fmt: skip


def test_an_empty_folder(tmp_path):
    assert answer(tmp_path) == {"images": 0, "groups": [], "rejected": []}
    ended = dedupe(tmp_path)
    assert (ended.returncode, ended.stdout.decode()) == (0, "0 images, 0 groups of duplicates\n")


def test_pictures_without_texture_are_never_merged_by_hash(tmp_path):
    """One white picture in two sizes, a black one, and a sky in two sizes: only bytes count."""
    for name, colour, size in (
        ("white", "white", 300), ("larger white", "white", 400), ("black", "black", 300),
        ("dot", "white", 1),
    ):  # fmt: skip
        Image.new("RGB", (size, size), colour).save(tmp_path / f"{name}.png")
    sky = Image.linear_gradient("L").resize((600, 400)).convert("RGB")
    sky.save(tmp_path / "sky.jpg", quality=95)
    sky.resize((300, 200)).save(tmp_path / "small sky.jpg", quality=60)
    (tmp_path / "white copy.png").write_bytes((tmp_path / "white.png").read_bytes())
    for name in ("white.png", "white copy.png"):
        os.utime(tmp_path / name, (1_000, 1_000))
    document = answer(tmp_path)
    assert document["images"] == 7
    assert grouped(document, tmp_path) == {"white copy.png": {"white.png": "bytes"}}


def test_different_pictures_are_no_duplicates(tmp_path):
    """Not even if their files have one size: bytes after the end of a JPEG change nothing."""
    files = [encoded(photograph(320, 240, seed), "JPEG") for seed in (11, 12, 13)]
    for number, data in enumerate(files):
        (tmp_path / f"{number}.jpg").write_bytes(data.ljust(max(map(len, files)), b"\0"))
    assert answer(tmp_path) == {"images": 3, "groups": [], "rejected": []}


def test_files_may_have_dates_that_no_calendar_has():
    assert written_at(86_400.0) == datetime(1970, 1, 2, tzinfo=UTC)
    assert written_at(2.0**40).year == 9999
    assert written_at(-(2.0**62)).year == 1970


def test_a_path_that_is_not_there_is_wrong_usage(tmp_path):
    ended = dedupe(tmp_path / "nothing")
    assert ended.returncode == 2
    assert b"does not exist" in ended.stderr


def test_a_small_logo_that_no_hash_sees_makes_it_near(tmp_path):
    """8 % x 4 % of the picture, in a corner."""
    plain, marked = photograph(640, 480, 0), photograph(640, 480, 0)
    marked.paste("black", (570, 448, 622, 468))
    found = {}
    for name, image in (("plain", plain), ("marked", marked)):
        data = encoded(image, "JPEG", quality=90)
        (tmp_path / f"{name}.jpg").write_bytes(data)
        found[name] = picture_of(name, inspect_image(data, Limits()), datetime.now(UTC))
    assert relation(replace(found["plain"], sketch=None), found["marked"]) is not None
    (members,) = grouped(answer(tmp_path), tmp_path).values()
    assert list(members.values()) == ["near"]


def test_no_near_pair_is_missed_by_the_lookups():
    """What the index finds, comparing everything with everything finds, and nothing more."""
    pictures = []
    for seed in range(5):
        picture = photograph(240, 180, seed)
        forms = {
            "plain": picture,
            "turned": picture.transpose(Image.Transpose.ROTATE_90),
            "framed": ImageOps.expand(picture, 10, "black"),
            "framed and mirrored": ImageOps.expand(ImageOps.mirror(picture), 16, "white"),
            "cut": picture.crop((6, 5, 240, 180)),
        }
        for name, form in forms.items():
            found = inspect_image(encoded(form, "JPEG", quality=85), Limits())
            pictures.append(sketched_of(f"{seed} {name}", found))
    expected = {
        (one.id, other.id): nearness
        for one, other in itertools.combinations(pictures, 2)
        if (nearness := verify(one, other)) is not None
    }
    assert near_pairs(pictures) == expected
    assert len(expected) > 20
    assert near_pairs([]) == {}
    assert near_pairs(pictures[:1]) == {}


def test_help_teaches():
    ended = subprocess.run(
        [sys.executable, "-m", "image_pipeline.cli", "dedupe", "--help"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    for word in ("bytes ", "pixels ", "picture ", "near ", "jq", "Nothing is changed"):
        assert word in ended.stdout


def test_the_page_names_the_thresholds_that_decide(pytestconfig):
    page = (pytestconfig.rootpath / "docs" / "duplicates.md").read_text(encoding="utf-8")
    for words in (
        f"64-bit pHash within {PHASH64_DISTANCE} bits",
        f"256-bit pHash within {PHASH256_DISTANCE} bits",
        f"aspect ratio within {ASPECT_TOLERANCE:.0%}".replace("%", " %"),
        f"Cr of 4 x 4 cells within {CHROMA_TOLERANCE} of 255 levels",
        f"luma of 2 x 2 cells of 32 x 32 within {DETAIL_TOLERANCE} levels and"
        f" {DETAIL_CONTRAST:.0%}".replace("%", " %"),
        f"texture of at least {MIN_TEXTURE:g}",
        f"pHash within {PHASH_CANDIDATE} bits in one of {len(TRANSFORMS)} forms",
        f"dHash within {DHASH_CANDIDATE} bits where the texture is at least {DHASH_TEXTURE:g}",
        f"correlate by at least {MIN_SCORE:g}",
        f"count as {UNKNOWN_QUALITY}",
    ):
        assert words in page
    assert tuple(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == tuple(MEANINGS)
