"""``image-pipeline process`` on a folder of everything that is not a plain picture.

Run as people run it, in a process of its own: it must come to its end, with a verdict for
every file, whatever lies in the folder.
"""

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from image_pipeline.samples import photograph
from image_pipeline_tests.unit.imaging import hostile
from image_pipeline_tests.unit.imaging.builders import gif

pytestmark = pytest.mark.xdist_group("cli")

#: Seconds after which the command hangs: it takes about 20 on one busy core.
PATIENCE = 240

RECIPES = {"web": {"sizes": {"only": {"width": 40, "height": 40}}, "formats": {"webp": {}}}}

#: A name of 255 bytes, which is as long as names may be.
LONG = "n" * 251 + ".jpg"

NAMES = [
    "line\nbreak.jpg",
    "quote\"and'quote.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "[red]markup[bold].jpg",
    "-rf.jpg",
    "--out",
    "$(touch x);`y` & z.jpg",
    "c\u202egpj.txt",
    "\x1b[31mred.jpg",
    " ",
    "日本語 \U0001f600.jpg",
    LONG,
]


def made(folder):
    """Fill a folder; what each file in it must be told, by its path below."""
    photograph(160, 120, 3).save(folder / "good.jpg")
    good = (folder / "good.jpg").read_bytes()
    expected = {"good.jpg": "accepted"}
    for name in NAMES:
        (folder / name).write_bytes(good)
        expected[name] = "accepted"
    odd = os.fsdecode(b"caf\xe9 \xff.jpg")
    Path(folder, odd).write_bytes(good)
    expected[odd] = "accepted"
    return expected | special(folder) | cut(folder, good) | bombs(folder)


def special(folder):
    """What a directory may list that is no file, or cannot be read."""
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        # The path of a socket may have 107 bytes only: bound from inside, under a short name.
        before = Path.cwd()
        os.chdir(folder)
        listening.bind("socket.jpg")
        os.chdir(before)
    (folder / "directory.jpg").mkdir()
    (folder / "directory.jpg" / "inside.txt").write_text("no picture")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "parent").symlink_to(folder.parent)
    (folder / "endless.jpg").symlink_to("/dev/zero")
    expected = {
        "pipe.jpg": "not_an_image",
        "socket.jpg": "not_an_image",
        "directory.jpg/inside.txt": "not_an_image",
        "dangling.jpg": "not_an_image",
        "loop.jpg": "not_an_image",
        "endless.jpg": "not_an_image",
    }
    if os.geteuid() != 0:  # who may read everything
        (folder / "secret.jpg").write_bytes(b"x")
        (folder / "secret.jpg").chmod(0)
        expected["secret.jpg"] = "storage_error"
    return expected


def cut(folder, good):
    (folder / "empty.jpg").write_bytes(b"")
    for tenth in range(1, 10):
        (folder / f"cut-{tenth}.jpg").write_bytes(good[: len(good) * tenth // 10])
    flipped = bytearray(good)
    flipped[len(good) // 2 :: 7] = bytes(len(flipped[len(good) // 2 :: 7]))
    (folder / "scratched.jpg").write_bytes(flipped)
    return {
        "empty.jpg": "empty_file",
        **{f"cut-{tenth}.jpg": "truncated" for tenth in range(1, 10)},
        "scratched.jpg": None,  # a picture with stripes, or a verdict
    }


def bombs(folder):
    expected = {}
    for place, (name, (data, reason)) in enumerate(
        [*hostile.bombs().items(), *hostile.foreign().items()]
    ):
        file = f"{place:03} {name}".replace("/", "-")
        (folder / file).write_bytes(data)
        expected[file] = str(reason)
    with (folder / "large.tif").open("wb") as opened:
        opened.write(b"II*\0")
        opened.truncate(3_000_000_000)  # a hole: it takes no room
    return expected | {"large.tif": "too_many_bytes"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("strange"), tmp_path_factory.mktemp("out")
    config = tmp_path_factory.mktemp("config") / "pipeline.yaml"
    config.write_text(yaml.safe_dump({"recipes": RECIPES, "workers": {"processes": 2}}))
    expected = made(folder)
    command = [sys.executable, "-m", "image_pipeline.cli", "process", str(folder), "--out"]
    finished = subprocess.run(
        [*command, str(out), "--config", str(config), "--json"],
        capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return folder, out, expected, finished


def test_it_ends_well_with_a_verdict_for_every_file(run):
    folder, _, expected, finished = run
    assert finished.returncode == 0, finished.stderr.decode(errors="replace")[-2000:]
    document = json.loads(finished.stdout)
    said = {
        os.path.relpath(one["path"], folder): one["reason"] or one["verdict"]
        for one in document["images"]
    }
    assert len(said) == len(document["images"])
    assert set(said) == set(expected)
    wrong = {
        name: verdict for name, verdict in said.items() if expected[name] not in (verdict, None)
    }
    assert wrong == {}


def test_every_verdict_can_be_shown(run):
    _, _, _, finished = run
    for one in json.loads(finished.stdout)["images"]:
        assert one["verdict"] in ("accepted", "rejected", "failed")
        if one["verdict"] == "accepted":
            assert one["variants"]
            assert (one["reason"], one["message"]) == (None, None)
        else:
            assert one["message"].isprintable()
            assert one["variants"] == []


def test_nothing_is_written_outside_the_folder_for_it(run):
    folder, out, _, finished = run
    written = {str(path) for path in out.rglob("*") if path.is_file()}
    named = {
        variant["path"]
        for one in json.loads(finished.stdout)["images"]
        for variant in one["variants"]
    }
    assert written == named
    assert not (folder / "x").exists()


def test_a_good_file_is_rendered_whatever_its_name(run):
    _, _, expected, finished = run
    accepted = [one for one in json.loads(finished.stdout)["images"] if one["variants"]]
    assert len({one["sha256"] for one in accepted if "scratched" not in one["path"]}) == 1
    assert len(accepted) >= list(expected.values()).count("accepted") == len(NAMES) + 2


def test_people_can_read_it_too(run, tmp_path):
    """The table of the same folder: no traceback, and no control characters of a file's name."""
    folder, out, _, _ = run
    config = next(out.parent.glob("config*/pipeline.yaml"))
    finished = subprocess.run(
        [sys.executable, "-m", "image_pipeline.cli", "process", str(folder / "good.jpg"),
         str(folder / "\x1b[31mred.jpg"), str(folder / "pipe.jpg"), str(folder / "endless.jpg"),
         "--out", str(tmp_path), "--config", str(config)],
        capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert b"Traceback" not in finished.stderr
    assert b"\x1b[31m" not in finished.stdout
    assert finished.stdout.count(b"not_an_image") == 2


def heavy(tmp_path, files, **workers):
    """The reason of each file of a folder, given what an image may take."""
    folder = tmp_path / "heavy"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    config = tmp_path / "pipeline.yaml"
    config.write_text(yaml.safe_dump({"recipes": RECIPES, "workers": {"processes": 2, **workers}}))
    finished = subprocess.run(
        [sys.executable, "-m", "image_pipeline.cli", "process", str(folder),
         "--out", str(tmp_path / "out"), "--config", str(config), "--json"],
        capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return {Path(one["path"]).name: one["reason"] for one in json.loads(finished.stdout)["images"]}


def test_what_takes_too_long_is_given_up(tmp_path):
    """A GIF in 15 million pieces: seconds on any machine, where a fifth of one is allowed."""
    pieces = b",\0\0\0\0\1\0\1\0\0\2" + b"\1\x44" * 15_000_000 + b"\0"
    said = heavy(tmp_path, {"slow.gif": gif(1, 1, pieces)}, seconds_per_image=0.2)
    assert said == {"slow.gif": "timeout"}


def test_what_takes_too_much_memory_costs_only_itself(tmp_path):
    """100 megapixels of one colour in 13 kB."""
    good = io.BytesIO()
    photograph(160, 120, 3).save(good, "JPEG")
    files = {"good.jpg": good.getvalue(), "wide.png": hostile.flat_png(9_999)}
    said = heavy(tmp_path, files, memory_megabytes=256)
    assert said == {"good.jpg": None, "wide.png": "out_of_memory"}
