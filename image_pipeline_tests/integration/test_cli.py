"""The command line as scripts and people use it."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from image_pipeline.catalog import batches, uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.cli import cli
from image_pipeline.samples import photograph
from image_pipeline.settings import CONFIG_VARIABLE, load_settings

pytestmark = pytest.mark.xdist_group("cli")

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

RECIPES = {
    "web": {
        "sizes": {
            "thumb": {"role": "thumbnail", "width": 60, "height": 60, "fit": "cover"},
            "small": {"width": 160, "height": 120},
        },
        "formats": {"avif": {"speed": 10}, "webp": {"method": 0}, "jpeg": {}},
    },
    "one": {"sizes": {"only": {"width": 80, "height": 80}}, "formats": {"webp": {"method": 0}}},
}

#: Markup of the terminal library, of a terminal, and of a page; and text that runs backwards.
HOSTILE = "[red]a[bold] \x1b[31mb\x1b[0m <img src=x> c\u202egpj.txt"


def invoke(*arguments):
    """Run a command; its exit code, stdout and stderr."""
    result = CliRunner().invoke(cli, [str(part) for part in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"recipes": RECIPES, "workers": {"processes": 2}}))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    photograph(300, 200, 1).save(folder / "good one.jpg", quality=90)
    Image.new("RGBA", (100, 50), (200, 30, 40, 128)).save(folder / "below" / "clear.png")
    (folder / "cut.jpg").write_bytes((folder / "good one.jpg").read_bytes()[:3000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / HOSTILE).write_bytes(b"just text")
    (folder / ".hidden.jpg").write_bytes(b"passed over")
    return folder


class Processed:
    def __init__(self, config, pictures, out):
        self.out = out
        self.result = invoke("process", pictures, "--out", out, "--config", config, "--json")
        self.document = json.loads(self.result.stdout)
        self.images = {
            os.path.relpath(one["path"], pictures): one for one in self.document["images"]
        }


@pytest.fixture(scope="module")
def processed(config, pictures, tmp_path_factory):
    return Processed(config, pictures, tmp_path_factory.mktemp("out"))


def test_process_gives_every_file_a_verdict_and_exits_with_0(processed):
    assert processed.result.exit_code == 0
    found = {name: (one["verdict"], one["reason"]) for name, one in processed.images.items()}
    assert found == {
        "good one.jpg": ("accepted", None),
        "below/clear.png": ("accepted", None),
        "cut.jpg": ("rejected", "truncated"),
        "empty.jpg": ("rejected", "empty_file"),
        HOSTILE: ("rejected", "not_an_image"),
    }


def test_process_json_has_the_documented_fields_and_no_other(processed):
    assert set(processed.document) == {"images", "seconds", "workers"}
    assert processed.document["seconds"] > 0
    assert processed.document["workers"] >= 1
    for one in processed.document["images"]:
        assert set(one) == {
            "path", "verdict", "reason", "message", "sha256", "width", "height",
            "dominant_color", "placeholder", "thumbhash", "focal_point", "fingerprint", "variants",
        }  # fmt: skip
        for variant in one["variants"]:
            assert set(variant) == {
                "role", "size", "format", "width", "height", "quality", "bytes", "path",
            }  # fmt: skip
        if one["verdict"] == "accepted":
            assert set(one["fingerprint"]) == {"phash64", "phash256", "dhash64", "texture"}
            assert one["message"] is None
        else:
            assert one["message"]
            assert (one["fingerprint"], one["width"], one["variants"]) == (None, None, [])


def test_process_describes_a_picture(processed, pictures):
    one = processed.images["good one.jpg"]
    assert (one["width"], one["height"]) == (300, 200)
    assert one["sha256"] == hashlib.sha256((pictures / "good one.jpg").read_bytes()).hexdigest()
    assert one["dominant_color"].startswith("#")
    assert one["placeholder"].startswith("data:image/")
    assert [len(one["fingerprint"][name]) for name in ("phash64", "phash256", "dhash64")] == [
        16, 64, 16,
    ]  # fmt: skip


def test_process_writes_what_it_lists_and_nothing_else(processed):
    listed = {}
    for one in processed.document["images"]:
        for variant in one["variants"]:
            listed[variant["path"]] = variant
    written = {str(path) for path in processed.out.rglob("*") if path.is_file()}
    assert written == set(listed)
    for path, variant in listed.items():
        assert Path(path).stat().st_size == variant["bytes"]
        with Image.open(path) as picture:
            assert picture.format.lower() == variant["format"]
            assert picture.size == (variant["width"], variant["height"])
    sizes = {(one["role"], one["size"], one["width"], one["height"]) for one in listed.values()}
    assert sizes == {
        ("thumbnail", "thumb", 60, 60), ("responsive", "small", 160, 107),
        ("thumbnail", "thumb", 50, 50), ("responsive", "small", 100, 50),
    }  # fmt: skip


def test_process_shows_progress_on_stderr_only(config, pictures, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "image_pipeline.cli", "process", str(pictures / "good one.jpg"),
         "--out", str(tmp_path / "out"), "--recipe", "one", "--workers", "1", "--json"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, CONFIG_VARIABLE: str(config)},
    )  # fmt: skip
    assert ended.returncode == 0
    document = json.loads(ended.stdout)
    assert document["workers"] == 1
    assert [one["size"] for one in document["images"][0]["variants"]] == ["only"]
    assert "rendering" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_names_from_outside_are_printed_as_they_are_and_harmless(config, pictures, tmp_path):
    result = invoke("process", pictures / HOSTILE, "--out", tmp_path / "out", "--config", config)
    assert result.exit_code == 0
    assert "[red]a[bold]" in result.stdout.replace("\n", "")
    assert not {"\x1b", "\u202e"} & set(result.stdout)
    assert "1 files in" in result.stdout
    assert not (tmp_path / "out").exists(), "nothing rendered, nothing written"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_name_that_is_not_utf8_stops_nothing(config, tmp_path, more):
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))
    photo.write_bytes(b"text")
    ended = subprocess.run(
        [sys.executable, "-m", "image_pipeline.cli", "process", str(folder), "--out",
         str(tmp_path / "out"), "--workers", "1", "--config", str(config), *more],
        capture_output=True, timeout=60, check=False,
        # As in any locale but C, where Python itself is lenient.
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False), ended.stderr
    assert b"not_an_image" in ended.stdout
    if more:
        (one,) = json.loads(ended.stdout)["images"]
        assert Path(one["path"]) == photo


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["process", "PICTURES"], "Missing option '--out'"),
        (["process", "--out", "OUT"], "Missing argument"),
        (["process", "PICTURES/none.jpg", "--out", "OUT"], "does not exist"),
        (["process", "PICTURES", "--out", "OUT", "--recipe", "nothing"],
         "there is no recipe 'nothing' in the settings; there is: one, web"),
        (["process", "PICTURES", "--out", "OUT", "--workers", "0"], "--workers"),
        (["upload", "PICTURES"], "Missing option '--source'"),
        (["upload", "PICTURES", "--source", "nobody"],
         "there is no source 'nobody' in the settings; there is: photos"),
        (["status", "--verbose"], "No such option"),
        (["nonsense"], "No such command"),
    ],
)  # fmt: skip
def test_wrong_usage_exits_with_2_and_says_why(
    config, pictures, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    words = [
        word.replace("PICTURES", str(pictures)).replace("OUT", str(tmp_path / "out"))
        for word in arguments
    ]
    result = invoke(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipes: {web: {sizes: {small: {width: -1, height: 2}}}}",
         "recipes.web.sizes.small.width"),
        ("sources: {Photos: {prefix: a/}}", "sources.Photos"),
        ("batches: {max_imagse: 3}", "batches.max_imagse: unknown field"),
        ("{{{", "is not YAML"),
        ("[1, 2]", "must hold named parts"),
    ],
)  # fmt: skip
def test_a_bad_config_exits_with_2_and_names_the_field(tmp_path, text, message):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    for command in (["status"], ["process", tmp_path, "--out", tmp_path / "out"]):
        result = invoke(*command, "--config", path)
        assert result.exit_code == 2
        assert f"{path}: " in result.stderr
        assert message in result.stderr


def commands_below(group, path=()):
    """The path of every command, groups included."""
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands_below(command, (*path, name))


@pytest.mark.parametrize("command", list(commands_below(cli)), ids=" ".join)
def test_help_of_every_command(command):
    result = invoke(*command, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Usage:" in result.stdout
    assert invoke(*command, "-h").stdout == result.stdout


def test_names_of_commands_do_not_change_by_accident():
    assert set(cli.commands) == {
        "process", "dedupe", "upload", "presign", "status", "duplicates", "sign", "cookies",
        "cache", "maintenance", "forget", "demo", "dev", "retry", "init", "catalog",
        "intake", "mockup", "mirror", "report",
    }  # fmt: skip
    assert set(cli.commands["intake"].commands) == {"serve", "key", "cors"}
    assert set(cli.commands["mockup"].commands) == {"preview", "list", "check"}
    assert set(cli.commands["mirror"].commands) == {"run", "status"}
    assert set(cli.commands["cache"].commands) == {"warm", "stats", "invalidate"}
    assert set(cli.commands["maintenance"].commands) == {
        "inventory", "plan", "apply", "restore", "purge", "list", "show", "classes", "lifecycle",
        "refresh", "history",
    }  # fmt: skip
    assert set(cli.commands["duplicates"].commands) == {"list", "split", "rejoin"}


# ------------------------------------------------------------------------------------- upload


@pytest.fixture
def shop(bucket, tmp_path, monkeypatch):
    """Settings with the test's bucket and a source that takes up to 20 kB."""
    path = tmp_path / "shop" / "pipeline.yaml"
    path.parent.mkdir()
    document = {
        "bucket": {"name": bucket.name, "endpoint_url": bucket.endpoint_url},
        "sources": {"photos": {"prefix": "uploads/photos/", "limits": {"megabytes": 0.02}}},
    }
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "to send"
    (made / "below").mkdir(parents=True)
    photograph(120, 80, 2).save(made / "a b+c.jpg", quality=80)
    photograph(80, 120, 3).save(made / "below" / "ü.png")
    return made


def bad_files(folder):
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "large.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(20_000))
    (folder / "notes.jpg").write_bytes(b"not a picture")


def keys(bucket):
    return sorted(one.key for one in bucket.list(""))


def outcomes(result):
    files = json.loads(result.stdout)["files"]
    return {one["key"].removeprefix("uploads/photos/"): one["outcome"] for one in files}


def test_upload_sends_a_folder_under_the_names_in_it(shop, bucket, folder):
    (folder / "below" / "ü.png").write_bytes((folder / "a b+c.jpg").read_bytes())
    result = invoke("upload", folder, "--source", "photos", "--json")
    assert result.exit_code == 0
    assert outcomes(result) == {"a b+c.jpg": "sent", "below/ü.png": "sent"}
    assert keys(bucket) == ["uploads/photos/a b+c.jpg", "uploads/photos/below/ü.png"]
    assert bucket.get(keys(bucket)[0]) == (folder / "a b+c.jpg").read_bytes()
    assert bucket.head(keys(bucket)[1]).content_type == "image/jpeg", "by its bytes, not its name"


def test_upload_leaves_out_what_is_sure_to_be_rejected(shop, bucket, folder):
    (folder / "below" / "ü.png").unlink()
    bad_files(folder)
    result = invoke("upload", folder, "--source", "photos", "--json")
    assert result.exit_code == 1
    assert outcomes(result) == {
        "a b+c.jpg": "sent", "empty.jpg": "refused", "large.jpg": "refused", "notes.jpg": "refused",
    }  # fmt: skip
    why = {
        one["path"].rsplit("/", 1)[1]: one["message"] for one in json.loads(result.stdout)["files"]
    }
    assert "empty" in why["empty.jpg"]
    assert "0.02 MB" in why["large.jpg"]
    assert why["notes.jpg"]
    assert why["a b+c.jpg"] is None
    assert keys(bucket) == ["uploads/photos/a b+c.jpg"]


def test_upload_all_sends_everything(shop, bucket, folder):
    bad_files(folder)
    result = invoke("upload", folder, "--source", "photos", "--all", "--json")
    assert result.exit_code == 0
    assert set(outcomes(result).values()) == {"sent"}
    assert len(keys(bucket)) == 5
    assert bucket.head("uploads/photos/notes.jpg").content_type == "application/octet-stream"


def test_upload_sends_a_file_once_and_again_when_it_has_changed(shop, bucket, folder):
    picture = folder / "a b+c.jpg"
    assert outcomes(invoke("upload", picture, "--source", "photos", "--json")) == {
        "a b+c.jpg": "sent"
    }
    (first,) = bucket.list("")
    again = invoke("upload", picture, "--source", "photos", "--json")
    assert (again.exit_code, outcomes(again)) == (0, {"a b+c.jpg": "unchanged"})
    assert next(bucket.list("")).last_modified == first.last_modified
    photograph(100, 100, 7).save(picture, quality=80)
    changed = invoke("upload", picture, "--source", "photos", "--json")
    assert outcomes(changed) == {"a b+c.jpg": "sent"}
    assert bucket.get("uploads/photos/a b+c.jpg") == picture.read_bytes()


def test_upload_tells_people_what_happened(shop, folder):
    (folder / HOSTILE).write_bytes(b"just text")
    (folder / "below" / "ü.png").unlink()
    result = invoke("upload", folder, "--source", "photos")
    assert result.exit_code == 1
    assert "refused" in result.stdout
    assert "[red]a[bold]" in result.stdout
    assert not {"\x1b", "\u202e"} & set(result.stdout)
    assert "1 files (" in result.stdout
    assert "0 were there already, 1 not sent" in result.stdout


def test_a_bucket_that_cannot_be_reached_is_one_line_and_exit_code_1(tmp_path, folder):
    path = tmp_path / "pipeline.yaml"
    path.write_text("bucket: {endpoint_url: embedded}")
    ended = subprocess.run(
        [sys.executable, "-m", "image_pipeline.cli", "upload", str(folder), "--source", "photos",
         "--config", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "image-pipeline: the bucket: the embedded S3 server has never been started here:"
        " run 'make dev' or 'make demo'\n"
    )


# ------------------------------------------------------------------------------------- status


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """A catalog with one batch of two uploads, one of them hostile, and one waiting upload."""
    path = tmp_path / "pipeline.yaml"
    path.write_text("{}")
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    catalog = Catalog(load_settings().catalog.url)
    names = ["good.jpg", HOSTILE, "later.jpg"]
    rows = [
        {
            "source": "photos", "key": f"uploads/photos/{name}", "etag": "e", "size": 1500,
            "last_modified": NOW, "discovered_at": NOW,
        }
        for name in names
    ]  # fmt: skip
    with catalog.write() as connection:
        uploads.add(connection, rows)
        (batch,) = batches.form(connection, "photos", NOW, 2, lambda waiting: [list(waiting)])
        bad = uploads.Decision(2, "rejected", "not_an_image", "text: \x1b[2Jboo")
        uploads.decide(connection, [bad], NOW)
    catalog.close()
    return batch


def test_status_counts_and_lists(ledger):
    result = invoke("status")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["photos", "│", "waiting", "│", "1", "│", "1.5", "kB"] in lines
    assert ["photos", "│", "rejected", "│", "1", "│", "1.5", "kB"] in lines
    assert ledger in result.stdout
    assert "0 distinct images, 0 variants" in result.stdout


def test_status_as_json(ledger):
    result = invoke("status", "--json")
    document = json.loads(result.stdout)
    assert {row["state"]: row["uploads"] for row in document["uploads"]} == {
        "processing": 1, "rejected": 1, "waiting": 1,
    }  # fmt: skip
    (batch,) = document["batches"]
    assert (batch["id"], batch["state"], batch["uploads"]) == (ledger, "waiting", 2)
    assert batch["created_at"] == "2026-03-01T12:00:00+00:00"
    assert document["totals"]["upload_bytes"] == 4500


def test_status_of_one_batch(ledger):
    result = invoke("status", "--batch", ledger)
    assert result.exit_code == 0
    assert "uploads/photos/good.jpg" in result.stdout
    assert "[red]a[bold]" in result.stdout
    assert not {"\x1b", "\u202e"} & set(result.stdout)
    document = json.loads(invoke("status", "--batch", ledger, "--json").stdout)
    assert document["batch"]["id"] == ledger
    assert [(row["key"], row["verdict"]) for row in document["uploads"]] == [
        ("uploads/photos/good.jpg", None), (f"uploads/photos/{HOSTILE}", "rejected"),
    ]  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_status_of_an_unknown_batch(ledger, more):
    result = invoke("status", "--batch", "\x1b[2Jnobody", *more)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no batch" in result.stderr
    assert "\x1b" not in result.stderr


def test_status_of_an_empty_catalog(tmp_path, monkeypatch):
    (tmp_path / "pipeline.yaml").write_text("{}")
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "pipeline.yaml"))
    result = invoke("status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "The catalog is empty" in result.stdout
    assert json.loads(invoke("status", "--json").stdout)["uploads"] == []
