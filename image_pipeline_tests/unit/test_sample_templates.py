"""The sample templates: each can be used, and shows a design where and as it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_pipeline.imaging.mockup_template import DESCRIPTION, read_template
from image_pipeline.imaging.mockups import Scene, compose, prepare
from image_pipeline.samples.templates import TEMPLATES, template_files, write_templates

SCALE = 0.1


def a_scene(name: str) -> Scene:
    files = template_files(name, SCALE)
    return prepare(read_template(name, files[DESCRIPTION]), files)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_design_is_seen_in_the_light_of_the_product(name: str) -> None:
    scene = a_scene(name)
    white = compose(scene, Image.new("RGB", (300, 300), "white"))
    black = compose(scene, Image.new("RGB", (300, 300), "black"))
    difference = np.asarray(white, float).mean(axis=2) - np.asarray(black, float).mean(axis=2)
    printed = difference > 60
    assert 0.1 < printed.mean() < 0.6
    # White print is no lighter than white light, and has the shadows of the product in it.
    levels = np.asarray(white, float)[printed].mean(axis=1)
    assert levels.std() > 3
    base = np.asarray(scene.base, float)[printed].mean(axis=1)
    assert np.corrcoef(levels, base)[0, 1] > 0.5
    # Nothing outside of the print has changed.
    untouched = np.asarray(white) == np.asarray(scene.base)
    assert untouched.all(axis=2).mean() > 0.3


@pytest.mark.parametrize("name", TEMPLATES)
def test_they_look_the_same_at_any_scale(name: str) -> None:
    small, large = a_scene(name), template_files(name, 2 * SCALE)
    other = prepare(read_template(name, large[DESCRIPTION]), large)
    assert other.base.size == tuple(2 * side for side in small.base.size)
    shares = [
        [(x / scene.base.width, y / scene.base.height) for x, y in corners]
        for scene in (small, other)
        for corners in (scene.template.description.place.corners,)
    ]
    assert np.abs(np.array(shares[0]) - np.array(shares[1])).max() < 0.01


def test_they_are_written_as_folders_and_always_the_same(tmp_path: Path) -> None:
    folders = write_templates(tmp_path, 0.05)
    assert [folder.name for folder in folders] == list(TEMPLATES)
    for folder in folders:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert files == template_files(folder.name, 0.05)
        assert set(files) == {DESCRIPTION, *read_template(folder.name, files[DESCRIPTION]).files}
