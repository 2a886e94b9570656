"""Which files an image should have, by name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.imaging.recipe import SMALLEST_AVIF
from image_pipeline.settings import Avif, Formats, Jpeg, Recipe, Size, Webp
from image_pipeline.stages.rendering import expected_keys

IMAGE = "ab" * 32

RECIPE = Recipe(
    sizes={
        "thumb": Size(role="thumbnail", width=100, height=100, fit="cover"),
        "small": Size(width=320, height=240),
        "large": Size(width=1200, height=900),
    },
    formats=Formats(avif=Avif(), webp=Webp(), jpeg=Jpeg()),
)

NAME = re.compile(r"variants/(\w+)/(\w+)-(\d+)x(\d+)\.([0-9a-f]{12})\.(\w+)")


def names(keys):
    return {NAME.fullmatch(key).group(2, 3, 4, 6) for key in keys}


def test_a_large_picture_gets_every_size_in_every_format():
    keys = expected_keys(IMAGE, 3000, 2000, RECIPE)
    # 3000x2000 inside 320x240 is 320x213, inside 1200x900 it is 1200x800.
    assert names(keys) == {
        (size, width, height, kind)
        for size, width, height in [
            ("thumb", "100", "100"), ("small", "320", "213"), ("large", "1200", "800"),
        ]
        for kind in ("avif", "webp", "jpg")
    }  # fmt: skip
    assert {NAME.fullmatch(key)[1] for key in keys} == {IMAGE}


def test_a_small_picture_is_never_enlarged():
    keys = expected_keys(IMAGE, 200, 90, RECIPE)
    assert names(keys) == {
        (size, width, height, kind)
        for size, width, height in [("thumb", "90", "90"), ("small", "200", "90")]
        for kind in ("avif", "webp", "jpg")
    }


def test_either_role_alone_names_the_same_files():
    both = expected_keys(IMAGE, 900, 600, RECIPE)
    thumbnails = expected_keys(IMAGE, 900, 600, RECIPE, ["thumbnail"])
    responsive = expected_keys(IMAGE, 900, 600, RECIPE, ["responsive"])
    assert {**thumbnails, **responsive} == both
    assert not set(thumbnails) & set(responsive)
    assert {plan.role for plan in thumbnails.values()} == {"thumbnail"}


@pytest.mark.parametrize(
    "other",
    [
        RECIPE.model_copy(update={"background": "#000000"}),
        RECIPE.model_copy(update={"formats": Formats(avif=Avif(quality=61), webp=Webp())}),
        RECIPE.model_copy(update={"sizes": {**RECIPE.sizes, "xl": Size(width=2000, height=2000)}}),
    ],
)
def test_another_recipe_never_reuses_a_name(other):
    """Names are served as immutable: bytes that may differ need another one."""
    assert not set(expected_keys(IMAGE, 900, 600, RECIPE)) & set(
        expected_keys(IMAGE, 900, 600, other)
    )


def test_another_image_never_reuses_a_name():
    one, two = (expected_keys(name * 32, 900, 600, RECIPE) for name in ("ab", "cd"))
    assert not set(one) & set(two)
    # Also without the folder: a copy that lost it still cannot be mistaken.
    assert not {key.rsplit("/")[-1] for key in one} & {key.rsplit("/")[-1] for key in two}


@given(st.integers(1, 12_000), st.integers(1, 12_000))
def test_any_picture_gets_every_format_and_no_two_files_of_one_name(width, height):
    keys = expected_keys(IMAGE, width, height, RECIPE)
    plans = list(keys.values())
    # The smallest pictures are not worth an AVIF.
    tiny = {"avif"} if min(width, height) < SMALLEST_AVIF else set()
    assert {plan.format for plan in plans} == {"avif", "webp", "jpeg"} - tiny
    assert {plan.role for plan in plans} == {"thumbnail", "responsive"}
    for plan in plans:
        assert 1 <= plan.width <= max(1, min(width, RECIPE.sizes[plan.size].width))
        assert 1 <= plan.height <= max(1, min(height, RECIPE.sizes[plan.size].height))
