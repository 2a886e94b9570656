"""What a recipe makes of a size, by the rules as people read them."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.imaging import recipe as module
from image_pipeline.imaging.recipe import (
    encoder_versions,
    extension,
    keeps_animation,
    mime_type,
    plan_variants,
    planned_sizes,
    recipe_fingerprint,
    variant_fingerprint,
)
from image_pipeline.settings import Avif, Formats, Jpeg, LargeSources, Recipe, Size, Webp

DEFAULT = Recipe()
MOVING = Recipe(animation="keep")
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
        quality=st.dictionaries(st.sampled_from(["avif", "webp", "jpeg"]), st.integers(1, 100)),
        quality_offset=st.none() | st.integers(-50, 50),
    )
    names = st.sampled_from(["a", "b", "c", "d", "e"])
    chosen = draw(st.sets(st.sampled_from(["avif", "webp", "jpeg"]), min_size=1))
    return Recipe(
        sizes=draw(st.dictionaries(names, sizes, min_size=1)),
        formats=Formats.model_validate(dict.fromkeys(chosen)),
        large_sources=draw(st.none() | st.builds(LargeSources, quality_offset=st.integers(-50, 0))),
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
    """Numbers of one size look alike, as measured; see the settings for what they score."""
    plans = plan_variants(DEFAULT, 6000, 4000)
    found = {(plan.size, plan.format): plan.quality for plan in plans}
    table = {
        "thumbnail": (82, 86, 68), "small": (78, 82, 64), "medium": (78, 82, 64),
        "large": (71, 80, 59), "xlarge": (71, 80, 59),
    }  # fmt: skip
    assert found == {
        (size, kind): level
        for size, levels in table.items()
        for kind, level in zip(("jpeg", "webp", "avif"), levels, strict=True)
    }


def test_the_page_shows_the_quality_table(pytestconfig: pytest.Config) -> None:
    page = (pytestconfig.rootpath / "docs" / "imaging.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?): ?.*px \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    rows += re.findall(r"^\| (thumbnail), .*\| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    shown = {
        (size.strip(), kind): int(level)
        for names, *levels in rows
        for size in names.split(",")
        for kind, level in zip(("jpeg", "webp", "avif"), levels, strict=True)
    }
    plans = plan_variants(DEFAULT, 6000, 4000)
    assert shown == {(plan.size, plan.format): plan.quality for plan in plans}


def test_quality_stays_in_the_encoders_range() -> None:
    sizes = {"most": Size(width=90, height=90, quality_offset=50)}
    sizes["least"] = Size(width=50, height=50, quality_offset=-50)
    formats = Formats(jpeg=Jpeg(quality=60), webp=Webp(quality=60), avif=Avif(quality=40))
    plans = plan_variants(Recipe(sizes=sizes, formats=formats), 100, 100)
    found = {(plan.size, plan.format): plan.quality for plan in plans}
    assert found["most", "jpeg"] == 95
    assert found["most", "webp"] == 100
    assert found["most", "avif"] == 90
    assert found["least", "avif"] == 1
    assert found["least", "jpeg"] == 10


def test_a_size_has_qualities_of_its_own() -> None:
    """One format is named, the others take the format's with the size's offset."""
    sizes = {"one": Size(width=640, height=480, quality={"jpeg": 91}, quality_offset=-5)}
    plans = plan_variants(Recipe(sizes=sizes, formats=DEFAULT.formats), 6000, 4000)
    assert {plan.format: plan.quality for plan in plans} == {"jpeg": 91, "webp": 77, "avif": 59}


@pytest.mark.parametrize(
    ("size", "lower"), [((6000, 4000), 0), ((6001, 4000), 5), ((4000, 6001), 5), ((30, 20), 0)]
)
def test_large_sources_are_those_above_their_megapixels(size: tuple[int, int], lower: int) -> None:
    """24 megapixels are not more than 24."""
    sizes = {"one": Size(width=640, height=480, quality={"jpeg": 91})}
    large = LargeSources(megapixels=24.0, quality_offset=-5)
    plans = plan_variants(Recipe(sizes=sizes, large_sources=large), *size)
    expected = {"jpeg": 91 - lower, "webp": 82 - lower, "avif": 64 - lower}
    assert {plan.format: plan.quality for plan in plans} == expected


# ----------------------------------------------------------------------------------- the formats


@pytest.mark.parametrize(
    ("size", "kinds"),
    [
        ((16, 16), {"avif", "webp", "jpeg"}),
        ((15, 400), {"webp", "jpeg"}),
        ((400, 15), {"webp", "jpeg"}),
        ((1, 1), {"webp", "jpeg"}),
    ],
)
def test_no_avif_below_16_pixels(size: tuple[int, int], kinds: set[str]) -> None:
    assert {plan.format for plan in plan_variants(DEFAULT, *size)} == kinds


def test_avif_alone_is_avif_at_any_size() -> None:
    only = Recipe(formats=Formats(avif=Avif()))
    assert {plan.format for plan in plan_variants(only, 3, 3)} == {"avif"}


def test_an_animation_moves_in_webp_beside_a_still_jpeg() -> None:
    plans = plan_variants(MOVING, 800, 600, frames=12)
    found = {(plan.size, plan.format, plan.animated) for plan in plans}
    assert found == {
        *(("medium", kind, kind == "webp") for kind in ("webp", "jpeg")),
        *(("small", kind, kind == "webp") for kind in ("webp", "jpeg")),
        *(("thumbnail", kind, False) for kind in ("avif", "webp", "jpeg")),
    }


def test_what_does_not_move_is_planned_as_a_still() -> None:
    still = plan_variants(MOVING, 800, 600)
    assert not any(plan.animated for plan in still)
    assert still == plan_variants(DEFAULT, 800, 600)
    assert plan_variants(DEFAULT, 800, 600, frames=12) == still
    # 100 megapixels are allowed, and 209 frames of 0.48 have more.
    assert plan_variants(MOVING, 800, 600, frames=209) == still
    assert plan_variants(MOVING, 800, 600, frames=208) != still


def test_nothing_moves_without_webp() -> None:
    recipe = Recipe(animation="keep", formats=Formats(avif=Avif(), jpeg=Jpeg()))
    assert {plan.format for plan in plan_variants(recipe, 800, 600, frames=9)} == {"avif", "jpeg"}
    assert not keeps_animation(recipe, 800, 600, 9)
    alone = Recipe(animation="keep", formats=Formats(webp=Webp()))
    assert all(plan.animated for plan in plan_variants(alone, 800, 600, ["responsive"], 9))


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
    of_size = {plan.size: (plan.width, plan.height) for plan in plans}
    assert keys == [
        (size, kind)
        for size, pixels in of_size.items()
        for kind in recipe.formats.names
        if kind != "avif" or min(pixels) >= 16 or recipe.formats.names == ("avif",)
    ]
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
