"""What a recipe makes of a size, by the rules as people read them."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.imaging import recipe as module
from image_pipeline.imaging.recipe import (
    encoder_versions,
    extension,
    mime_type,
    plan_variants,
    planned_sizes,
    recipe_fingerprint,
    variant_fingerprint,
)
from image_pipeline.settings import Avif, Formats, Jpeg, Recipe, Size, Webp

DEFAULT = Recipe()
SIDES = st.integers(1, 20_000)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    fits: st.SearchStrategy[Literal["inside", "cover"]] = st.sampled_from(["inside", "cover"])
    sizes = st.builds(
        Size,
        role=st.sampled_from(["responsive", "thumbnail"]),
        width=st.integers(1, 4000),
        height=st.integers(1, 4000),
        fit=fits,
        quality_offset=st.none() | st.integers(-50, 50),
    )
    names = st.sampled_from(["a", "b", "c", "d", "e"])
    chosen = draw(st.sets(st.sampled_from(["avif", "webp", "jpeg"]), min_size=1))
    return Recipe(
        sizes=draw(st.dictionaries(names, sizes, min_size=1)),
        formats=Formats.model_validate(dict.fromkeys(chosen)),
    )


def test_a_large_photograph_gets_every_size() -> None:
    """6,000 x 4,000 into boxes: the height decides for all but the square."""
    assert planned_sizes(DEFAULT, 6000, 4000) == {
        "xlarge": (2160, 1440),
        "large": (1620, 1080),
        "medium": (1024, 683),
        "small": (640, 427),
        "thumbnail": (400, 400),
    }


def test_a_small_picture_is_not_enlarged_and_not_repeated() -> None:
    """800 x 600: medium, large and xlarge would all be the picture itself; one is kept."""
    assert planned_sizes(DEFAULT, 800, 600) == {
        "medium": (800, 600),
        "small": (640, 480),
        "thumbnail": (400, 400),
    }
    assert planned_sizes(DEFAULT, 300, 200) == {"small": (300, 200), "thumbnail": (200, 200)}


def test_quality_table() -> None:
    """78 / 83 / 60; thumbnails 4 more, from 1,920 px on 3 less."""
    plans = plan_variants(DEFAULT, 6000, 4000)
    found = {(plan.size, plan.format): plan.quality for plan in plans}
    assert found == {
        (size, kind): base + offset
        for size, offset in {
            "thumbnail": 4, "small": 0, "medium": 0, "large": -3, "xlarge": -3
        }.items()
        for kind, base in {"jpeg": 78, "webp": 83, "avif": 60}.items()
    }  # fmt: skip


def test_quality_stays_in_the_encoders_range() -> None:
    sizes = {"most": Size(width=9, height=9, quality_offset=50)}
    sizes["least"] = Size(width=5, height=5, quality_offset=-50)
    formats = Formats(jpeg=Jpeg(quality=60), webp=Webp(quality=60), avif=Avif(quality=40))
    plans = plan_variants(Recipe(sizes=sizes, formats=formats), 100, 100)
    found = {(plan.size, plan.format): plan.quality for plan in plans}
    assert found["most", "jpeg"] == 95
    assert found["most", "webp"] == 100
    assert found["most", "avif"] == 90
    assert found["least", "avif"] == 1
    assert found["least", "jpeg"] == 10


@given(recipe=recipes(), width=SIDES, height=SIDES)
def test_plans_hold_to_the_boxes_and_the_picture(recipe: Recipe, width: int, height: int) -> None:
    for plan in plan_variants(recipe, width, height):
        size = recipe.sizes[plan.size]
        assert 1 <= plan.width <= min(width, size.width)
        assert 1 <= plan.height <= min(height, size.height)
        wanted = width / height if size.fit == "inside" else size.width / size.height
        # Both sides are rounded to whole pixels, at least one.
        assert (plan.width - 0.5001) / (plan.height + 0.5001) <= wanted or plan.width == 1
        assert (plan.width + 0.5001) / (plan.height - 0.5001) >= wanted or plan.height == 1
        assert plan.quality in range(1, 96 if plan.format == "jpeg" else 101)


@given(recipe=recipes(), width=SIDES, height=SIDES)
def test_plans_are_complete_unique_and_sorted(recipe: Recipe, width: int, height: int) -> None:
    plans = plan_variants(recipe, width, height)
    keys = [(plan.size, plan.format) for plan in plans]
    assert len(set(keys)) == len(keys)
    sizes = list(dict.fromkeys(plan.size for plan in plans))
    assert keys == [(size, kind) for size in sizes for kind in recipe.formats.names]
    areas = [plan.width * plan.height for plan in plans]
    assert areas == sorted(areas, reverse=True)
    for role in ("responsive", "thumbnail"):
        own = [plan for plan in plans if plan.role == role]
        assert plan_variants(recipe, width, height, [role]) == own
        made = [(recipe.sizes[plan.size].fit, plan.width, plan.height, plan.format) for plan in own]
        assert len(set(made)) == len(made)  # equal pixels are made once
        assert bool(own) == any(size.role == role for size in recipe.sizes.values())


@given(recipe=recipes(), width=SIDES, height=SIDES)
def test_no_more_pixels_than_needed_are_dropped(recipe: Recipe, width: int, height: int) -> None:
    """Whoever asks for a box gets a variant at least as good as that box allows."""
    planned = planned_sizes(recipe, width, height)
    for size in recipe.sizes.values():
        alike = [
            planned[name]
            for name, other in recipe.sizes.items()
            if name in planned and (other.role, other.fit) == (size.role, size.fit)
        ]
        assert module.fitted(size, width, height) in alike


def test_fingerprints_change_with_what_decides_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Recipe(background="#000000")
    prints = [recipe_fingerprint(DEFAULT), recipe_fingerprint(other)]
    monkeypatch.setattr(module, "RENDER_VERSION", module.RENDER_VERSION + 1)
    prints.append(recipe_fingerprint(DEFAULT))
    monkeypatch.setattr(module, "encoder_versions", lambda: {"pillow": "0"})
    prints.append(recipe_fingerprint(DEFAULT))
    prints += [variant_fingerprint("a", prints[0]), variant_fingerprint("b", prints[0])]
    assert len(set(prints)) == len(prints)
    assert all(len(one) == 12 and int(one, 16) >= 0 for one in prints)


def test_equal_recipes_have_equal_fingerprints() -> None:
    rebuilt = Recipe.model_validate(DEFAULT.model_dump())
    assert recipe_fingerprint(rebuilt) == recipe_fingerprint(DEFAULT)
    turned = Recipe(sizes=dict(reversed(DEFAULT.sizes.items())))
    assert recipe_fingerprint(turned) == recipe_fingerprint(DEFAULT)


def test_names() -> None:
    assert [mime_type(kind) for kind in ("avif", "webp", "jpeg")] == [
        "image/avif", "image/webp", "image/jpeg"
    ]  # fmt: skip
    assert [extension(kind) for kind in ("avif", "webp", "jpeg")] == ["avif", "webp", "jpg"]
    assert set(encoder_versions()) == {"pillow", "libjpeg-turbo", "webp", "avif"}
    assert "None" not in encoder_versions().values()
