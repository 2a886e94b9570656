"""``image-pipeline demo`` in a project folder of its own, twice, as a user runs it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus

from image_pipeline.samples import photograph
from image_pipeline.settings import CONFIG_VARIABLE

pytestmark = pytest.mark.xdist_group("demo")

ROOT = Path(__file__).parents[2]

RECIPE = {
    "sizes": {
        "thumb": {"role": "thumbnail", "width": 80, "height": 80, "fit": "cover"},
        "small": {"width": 200, "height": 150},
    },
    "formats": {"webp": {"method": 0}, "jpeg": {}},
}


def make_project(folder):
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder)
    document = yaml.safe_load((ROOT / "pipeline.yaml").read_text())
    document["recipes"] = {"web": RECIPE}
    document["batches"] = {"quiet_seconds": 0}
    document["workers"] = {"processes": 2}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(document))
    photos = folder / "my photos"
    photos.mkdir()
    photograph(300, 200, 1).save(photos / "first one.jpg", quality=90)
    photograph(200, 300, 2).save(photos / "other.png")
    shutil.copy(photos / "first one.jpg", photos / "same.jpg")
    (photos / "notes.jpg").write_bytes(b"a text")
    return photos


def demo(folder, photos):
    variables = {name: value for name, value in os.environ.items() if name != CONFIG_VARIABLE}
    return subprocess.run(
        [sys.executable, "-m", "image_pipeline.cli", "demo", "--photos", str(photos)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=variables,
    )  # fmt: skip


def left_in(folder):
    """Processes started in a folder, or for it, that do not end by themselves at once.

    Python's own helper of multiprocessing ends an instant after its parent.
    """
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        told = [process.info["cwd"] or "", *(process.info["cmdline"] or ())]
        if any(str(folder) in part for part in told):
            found.append(process)
    return psutil.wait_procs(found, timeout=5)[1]


def files_of(folder):
    """Everything in the bucket but tables and the like: name on disk -> when it was written."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.joinpath(".data", "s3").rglob("*")
        if path.is_file() and "variants" in str(path)
    }


class Twice:
    def __init__(self, folder):
        self.folder = folder
        photos = make_project(folder)
        self.first = demo(folder, photos)
        self.left_by_first = left_in(folder)
        self.files = files_of(folder)
        self.second = demo(folder, photos)
        self.left_by_second = left_in(folder)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    return Twice(tmp_path_factory.mktemp("project"))


def rows(output):
    """The cells of the result table: name -> verdict, reason."""
    cells = [[cell.strip() for cell in line.split("│")] for line in output.splitlines()]
    return {row[0]: (row[1], row[2]) for row in cells if len(row) == 9 and row[0] != "upload"}


def test_the_first_run_processes_everything(twice):
    assert twice.first.returncode == 0, twice.first.stderr
    assert rows(twice.first.stdout) == {
        "first one.jpg": ("accepted", ""),
        "other.png": ("accepted", ""),
        "same.jpg": ("duplicate", "bytes"),
        "notes.jpg": ("rejected", "not_an_image"),
    }
    assert "4 uploads: 2 accepted, 1 duplicate, 1 rejected, 0 failed" in twice.first.stdout
    assert re.search(r"in 1 new batch$", twice.first.stdout, re.MULTILINE)
    assert "Traceback" not in twice.first.stderr
    assert "Warning" not in twice.first.stderr


def test_the_gallery_is_there_to_be_opened(twice):
    (link,) = re.findall(r"file://(\S+)", twice.first.stdout)
    page = Path(link.replace("%20", " ")).read_text(encoding="utf-8")
    assert "first one.jpg" in page
    assert "data:image/webp;base64," in page


def test_the_second_run_finds_everything_done(twice):
    assert twice.second.returncode == 0, twice.second.stderr
    assert "Everything was done already: nothing new" in twice.second.stdout
    assert "in 0 new batches" in twice.second.stdout
    assert rows(twice.second.stdout) == rows(twice.first.stdout)
    assert len(twice.files) >= 8
    assert files_of(twice.folder) == twice.files, "no variant was written again"


def test_runs_are_kept_where_the_ui_finds_them(twice, monkeypatch):
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")
    home = twice.folder / ".data" / "dagster"
    with DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        partitions = instance.get_dynamic_partitions("batches")
    assert (run.job_name, run.status) == ("process_batch", DagsterRunStatus.SUCCESS)
    assert run.tags["dagster/partition"] in partitions
    assert run.tags["image_pipeline/source"] == "photos"
    assert (home / "dagster.yaml").resolve() == (twice.folder / "dagster.yaml").resolve()


def test_no_process_is_left(twice):
    assert (twice.left_by_first, twice.left_by_second) == ([], [])


def test_everything_it_made_is_under_one_folder(twice):
    assert {path.name for path in twice.folder.iterdir()} == {
        ".data", "dagster.yaml", "workspace.yaml", "pipeline.yaml", "my photos",
    }  # fmt: skip


def test_outside_a_project_it_says_so(tmp_path):
    ended = demo(tmp_path, tmp_path)
    assert ended.returncode == 1
    assert "there is no dagster.yaml in" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_files_is_said_to_be_empty(tmp_path):
    make_project(tmp_path)
    (tmp_path / "nothing").mkdir()
    ended = demo(tmp_path, tmp_path / "nothing")
    assert ended.returncode == 1
    assert "there are no files in" in ended.stderr
    assert left_in(tmp_path) == []
