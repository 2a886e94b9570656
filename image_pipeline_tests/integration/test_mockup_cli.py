"""``image-pipeline mockup`` on local folders and on a bucket."""

import io
import json

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from image_pipeline.catalog import mockups as catalog_mockups
from image_pipeline.cli.mockups import mockup
from image_pipeline.commands.mockups import rehearse
from image_pipeline.samples import photograph
from image_pipeline.samples.templates import TEMPLATES, template_files, write_templates
from image_pipeline.settings import CatalogSettings, Source
from image_pipeline_tests.shop import Shop

pytestmark = pytest.mark.xdist_group("cli")

SCALE = 0.08


def invoke(*arguments):
    """Run a command; its exit code, stdout and stderr."""
    result = CliRunner().invoke(mockup, [str(part) for part in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Local templates, a good one and one with a mistake, and a design."""
    folder = tmp_path_factory.mktemp("templates")
    write_templates(folder, SCALE)
    bent = yaml.safe_load((folder / "poster" / "template.yaml").read_text())
    bent["place"]["quad"].reverse()
    (folder / "bent").mkdir()
    (folder / "bent" / "template.yaml").write_text(yaml.safe_dump(bent))
    photograph(300, 200, 1).save(folder / "design.jpg")
    return folder


@pytest.fixture
def config(tmp_path, bucket):
    """Settings of a bucket with the sample templates, a broken one, and one that is only named."""
    for name in TEMPLATES:
        for file, data in template_files(name, SCALE).items():
            bucket.put(f"mock/{name}/{file}", data, "application/octet-stream")
    bucket.put("mock/old/template.yaml", b"base: gone.jpg\nplace: {box: [0, 0, 9, 9]}", "text/yaml")
    bucket.put("mock/no-description/base.jpg", b"x", "image/jpeg")
    path = tmp_path / "pipeline.yaml"
    sources = {
        "photos": {"prefix": "uploads/photos/", "mockups": ["poster", "lost"]},
        "shop": {"prefix": "uploads/shop/", "mockups": "all"},
    }
    where = {"name": bucket.name, "endpoint_url": bucket.endpoint_url}
    described = {"bucket": where, "sources": sources, "mockups": {"templates": "mock/"}}
    path.write_text(yaml.safe_dump({**described, "workers": {"processes": 1}}))
    return path


@pytest.mark.parametrize("end", ["png", "jpg", "webp", "AVIF"])
def test_a_preview_of_a_local_folder(folder, tmp_path, end):
    out = tmp_path / f"out.{end}"
    result = invoke("preview", folder / "poster", folder / "design.jpg", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{out}: design.jpg on poster, ")
    with Image.open(out) as made, Image.open(folder / "poster" / "base.jpg") as base:
        assert made.size == base.size
        assert made.format == {"jpg": "JPEG"}.get(end, end.upper())
        # The sheet, in the middle, is no longer blank.
        middle = (made.width // 2, made.height // 2)
        assert min(base.getpixel(middle)) > 200
        assert made.getpixel(middle) != base.getpixel(middle)


def test_a_preview_from_the_bucket(config, folder, tmp_path):
    out = tmp_path / "out.png"
    arguments = ("preview", "shirt", folder / "design.jpg", "--out", out, "--config", config)
    assert invoke(*arguments).exit_code == 0
    local = tmp_path / "local.png"
    invoke("preview", folder / "shirt", folder / "design.jpg", "--out", local)
    assert out.read_bytes() == local.read_bytes()


def test_what_is_wrong_is_one_line_and_nothing_is_written(config, folder, tmp_path):
    out, design = tmp_path / "out.png", folder / "design.jpg"
    (tmp_path / "text.jpg").write_text("no picture")
    cases = [
        ((folder / "bent", design), "template bent: place: the quad goes counterclockwise"),
        ((folder / "poster", tmp_path / "text.jpg"), "text.jpg: the first bytes are those of no"),
        (("old", design, "--config", config), "gone.jpg is not in the template's folder"),
        (("no-description", design, "--config", config), "has no template.yaml"),
        (
            ("nowhere", design, "--config", config),
            "there is no folder 'nowhere' here, and no mock/",
        ),
    ]
    for arguments, words in cases:
        result = invoke("preview", *arguments, "--out", out)
        assert result.exit_code == 1
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert not out.exists()
    result = invoke("preview", folder / "poster", design, "--out", tmp_path / "out.gif")
    assert result.exit_code == 2
    assert ".png, .jpg" in result.stderr
    result = invoke("preview", folder / "poster", design, "--out", tmp_path / "no" / "out.png")
    assert result.exit_code == 1
    assert "No such file" in result.stderr


def test_check_says_what_a_template_is(folder):
    found = invoke("check", folder / "shirt", "--json")
    assert found.exit_code == 0
    entry = json.loads(found.stdout)
    assert entry["problem"] is None
    assert entry["base"] == {"width": 160, "height": 160}
    assert (entry["place"], entry["fit"], entry["mask"]) == ("box", "cover", "mask.png")
    assert entry["layers"] == [{"file": "folds.png", "mode": "multiply", "opacity": 1.0}]
    assert set(entry["files"]) == {"base.jpg", "mask.png", "folds.png"}
    shown = invoke("check", folder / "shirt")
    assert shown.exit_code == 0
    assert "160 x 160" in shown.stdout

    bad = invoke("check", folder / "bent")
    assert bad.exit_code == 1
    assert bad.stdout == ""
    assert "counterclockwise" in bad.stderr


def test_check_looks_at_the_pictures_too(folder, tmp_path):
    files = template_files("shirt", SCALE)
    files["mask.png"] = _png(Image.new("L", (50, 50)))
    (tmp_path / "shirt").mkdir()
    for name, data in files.items():
        (tmp_path / "shirt" / name).write_bytes(data)
    found = invoke("check", tmp_path / "shirt", "--json")
    assert found.exit_code == 1
    assert "mask: the picture is 50 x 50 pixels" in json.loads(found.stdout)["problem"]


def test_list_shows_every_template_and_who_uses_it(config):
    found = invoke("list", "--config", config, "--json")
    assert found.exit_code == 1
    entries = {one["template"]: one for one in json.loads(found.stdout)["templates"]}
    assert set(entries) == {*TEMPLATES, "old", "no-description", "lost"}
    assert entries["poster"]["sources"] == ["photos", "shop"]
    assert entries["bag"]["sources"] == ["shop"]
    assert entries["lost"]["sources"] == ["photos"]
    assert entries["no-description"]["sources"] == []
    assert [entries[name]["problem"] for name in TEMPLATES] == [None] * len(TEMPLATES)
    assert "gone.jpg" in entries["old"]["problem"]
    for name in ("lost", "no-description"):
        assert "has no template.yaml" in entries[name]["problem"]
    shown = invoke("list", "--config", config)
    assert shown.exit_code == 1
    assert all(name in shown.stdout for name in entries)


def test_list_of_a_bucket_without_templates(tmp_path, bucket):
    path = tmp_path / "pipeline.yaml"
    where = {"name": bucket.name, "endpoint_url": bucket.endpoint_url}
    path.write_text(yaml.safe_dump({"bucket": where}))
    found = invoke("list", "--config", path)
    assert found.exit_code == 0
    assert "There are no templates below 'templates/'" in found.stdout


def _png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def test_the_rehearsal_shows_mockups_and_leaves_none(tmp_path, catalog, bucket, capsys):
    shop = Shop(catalog, tmp_path, bucket, sources={"photos": Source(prefix="uploads/photos/")})
    shop.parts["catalog"] = CatalogSettings(url=f"sqlite:///{tmp_path / 'catalog.db'}")
    for name in ("red", "green"):
        shop.design(name, name)
    config = tmp_path / "pipeline.yaml"
    config.write_text("{}")
    assert rehearse(shop.settings, config, bucket) == 0
    said = capsys.readouterr().out
    rows = [line.split("│") for line in said.splitlines() if "│" in line]
    assert [(row[0].strip(), int(row[1]), int(row[4])) for row in rows] == [
        ("on three templates", 6, 0),
        ("one of them has changed", 2, 0),
        ("switched off", 0, 6),
    ]
    for name in TEMPLATES:
        path = tmp_path / ".data" / "mockups" / f"{name}.webp"
        assert str(path) in said
        with Image.open(path) as image:
            assert image.size == {"poster": (800, 600), "bag": (640, 800)}.get(name, (800, 800))
    assert list(bucket.list("templates-rehearsal/")) == []
    with catalog.read() as connection:
        assert catalog_mockups.totals(connection) == []


def test_the_rehearsal_leaves_real_mockups_alone(tmp_path, catalog, bucket, capsys):
    shop = Shop(catalog, tmp_path, bucket)
    assert rehearse(shop.settings, None, bucket) == 0
    assert "not rehearsed" in capsys.readouterr().out
    assert list(bucket.list("")) == []
