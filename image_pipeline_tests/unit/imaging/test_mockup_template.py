"""What may stand in a template.yaml, and that nothing in it can do harm."""

from __future__ import annotations

import math
import pickle
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.imaging.mockup_template import (
    Template,
    TemplateError,
    check_files,
    quad_fault,
    read_template,
    template_fingerprint,
)
from image_pipeline.imaging.perspective import Quad
from image_pipeline.settings import Formats, Size, Webp

SQUARE = [[10, 10], [110, 12], [112, 108], [9, 110]]
LEAST = {"base": "base.jpg", "place": {"quad": SQUARE}}


def described(**changes: Any) -> bytes:
    return yaml.safe_dump({**LEAST, **changes}).encode()


def read(**changes: Any) -> Template:
    return read_template("poster", described(**changes))


def refusal(description: bytes) -> str:
    with pytest.raises(TemplateError) as refused:
        read_template("poster", description)
    assert str(refused.value).startswith("template poster")
    assert len(str(refused.value)) < 1000
    return str(refused.value)


def test_a_description_with_everything() -> None:
    template = read(
        size=[2000, 1500],
        place={"box": [10, 20, 300, 400], "fit": "contain", "crop": [0.5, 0.25],
               "background": "#ffeedd", "aspect": 0.7},
        mask="mask.png",
        layers=[{"file": "shade.png", "mode": "multiply", "opacity": 0.8},
                {"file": "light.png", "mode": "screen"}],
        output={"sizes": {"only": {"width": 300, "height": 200}}, "formats": {"webp": None}},
    )  # fmt: skip
    about = template.description
    assert about.place.corners == ((10, 20), (310, 20), (310, 420), (10, 420))
    assert about.place.ratio == 0.7
    assert [(one.mode, one.opacity) for one in about.layers] == [("multiply", 0.8), ("screen", 1.0)]
    assert template.files == ("base.jpg", "mask.png", "shade.png", "light.png")
    assert template.recipe.sizes == {"only": Size(width=300, height=200)}
    assert template.recipe.formats == Formats(webp=Webp())
    assert pickle.loads(pickle.dumps(template)) == template


def test_what_is_left_out() -> None:
    template = read()
    assert (template.name, template.files) == ("poster", ("base.jpg",))
    roles = {size.role: (size.width, size.height) for size in template.recipe.sizes.values()}
    assert roles == {"thumbnail": (400, 400), "responsive": (1024, 1024)}
    assert {size.fit for size in template.recipe.sizes.values()} == {"inside"}
    assert template.recipe.formats.names == ("avif", "webp", "jpeg")
    # Upper and lower side: 100.02 and 103.02; right and left: 96.02 and 100.005.
    upper, right = math.hypot(100, 2), math.hypot(2, 96)
    lower, left = math.hypot(103, 2), math.hypot(1, 100)
    assert template.description.place.ratio == pytest.approx((upper + lower) / (left + right))


def test_a_file_that_is_used_twice_is_needed_once() -> None:
    layers = [{"file": "base.jpg", "mode": "multiply"}, {"file": "base.jpg", "mode": "screen"}]
    assert read(layers=layers).files == ("base.jpg",)


@pytest.mark.parametrize(
    ("quad", "words"),
    [
        ([[0, 0], [100, 100], [100, 0], [0, 100]], "crosses itself"),
        ([[0, 0], [100, 0], [0, 100], [100, 100]], "crosses itself"),
        ([[0, 0], [100, 0], [30, 30], [0, 100]], "points inwards"),
        ([[0, 0], [0, 100], [100, 100], [100, 0]], "counterclockwise"),
        ([[0, 0], [100, 0], [200, 0], [0, 100]], "almost) on a line"),
        ([[0, 0], [100, 0], [100.5, 50], [100, 100]], "almost) on a line"),
        ([[0, 0], [100, 0], [100, 2], [0, 2]], "has a side of 2.0 pixels"),
        ([[5, 5], [5, 5], [5, 5], [5, 5]], "has a side of 0.0 pixels"),
        ([[0, 0], [100, 0], [100, 100]], "place.quad.3: is missing"),
        ([[0, 0], [100, 0], [100, 100], [0, float("nan")]], "finite"),
        ([[0, 0], [100, 0], [100, 1e9], [0, 100]], "less than or equal to 16384"),
        ([[0, 0], [100, 0], [100, 100], ["a", 100]], "valid number"),
    ],
)
def test_a_place_that_no_plane_can_have(quad: Any, words: str) -> None:
    assert words in refusal(described(place={"quad": quad}))


@given(
    angles=st.tuples(*[st.floats(0.02, 0.98)] * 4), turn=st.floats(0, 7),
    stretch=st.floats(0.5, 2), start=st.integers(0, 3),
)  # fmt: skip
def test_corners_on_an_ellipse_are_convex_in_order_and_in_no_other(
    angles: tuple[float, ...], turn: float, stretch: float, start: int
) -> None:
    """Points of an ellipse in order make a convex outline, whichever they are (y points down)."""
    steps = [turn + math.pi / 2 * (quarter + share) for quarter, share in enumerate(angles)]
    corners = [(500 * stretch * math.cos(step), 500 * math.sin(step)) for step in steps]
    a, b, c, d = corners[start:] + corners[:start]
    fault = quad_fault((a, b, c, d))
    assert fault is None or "line" in fault or "side of" in fault
    for wrong in ((a, c, b, d), (a, b, d, c), (d, c, b, a)):
        assert quad_fault(wrong) is not None


@pytest.mark.parametrize(
    "name",
    ["../base.jpg", "/etc/passwd.png", "a/b.jpg", "..", ".hidden.jpg", "base", "base.svg",
     "a\\b.png", "a b.jpg", "base.jpg\n", "s3://x/y.jpg", "", "x" * 200 + ".jpg", "template.yaml",
     "\u202egpj.png"],
)  # fmt: skip
def test_file_names_stay_in_the_folder(name: str) -> None:
    for changes in ({"base": name}, {"mask": name}, {"layers": [{"file": name, "mode": "screen"}]}):
        message = refusal(described(**changes))
        assert "no path" in message
        assert next(iter(changes)) in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"place": {}}, "place: give either 'quad' or 'box'"),
        ({"place": {"quad": SQUARE, "box": [0, 0, 9, 9]}}, "either 'quad' or 'box'"),
        ({"place": {"box": [0, 0, 0, 9]}}, "place.box.2: Input should be greater than 0"),
        ({"place": {"box": [-1, 0, 9, 9]}}, "place.box.0: Input should be greater than or equal"),
        ({"place": {"box": [0, 0, 9, 99999]}}, "place.box.3: Input should be less than or equal"),
        ({"place": {"quad": SQUARE, "fit": "fill"}}, "'cover', 'contain' or 'stretch'"),
        ({"place": {"quad": SQUARE, "background": "red"}}, "place.background"),
        ({"place": {"quad": SQUARE, "crop": [2, 0]}}, "place.crop"),
        ({"base": None}, "base"),
        ({"size": [10**9, 10]}, "size.0: Input should be less than or equal to 8192"),
        ({"layers": [{"file": "a.png", "mode": "burn"}]}, "layers.0.mode"),
        ({"layers": [{"file": "a.png", "mode": "screen", "opacity": 1.1}]}, "layers.0.opacity"),
        ({"layers": [{"file": f"{n}.png", "mode": "screen"} for n in range(5)]}, "at most 4"),
        ({"output": {"sizes": {}}}, "output.sizes"),
        ({"output": {"formats": {}}}, "output: name at least one format"),
        ({"output": {"sizes": {f"s{n}": {"width": 9, "height": 9} for n in range(17)}}}, "most 16"),
        ({"output": {"sizes": {"Big": {"width": 9, "height": 9}}}}, "output.sizes"),
        ({"shadow": 1}, "shadow: unknown field"),
        ({"name": "mug"}, "name: unknown field"),
    ],
)
def test_mistakes_are_told_by_field(changes: Any, words: str) -> None:
    assert words in refusal(described(**changes))


def test_all_mistakes_are_told_at_once() -> None:
    message = refusal(described(base="x", mask="y", place={}))
    assert "base: " in message
    assert "mask: " in message
    assert "place: " in message


BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (97 + n, 97 + n, b", ".join([b"*%c" % (96 + n)] * 9)) for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (BOMB, "aliases"),
        (b"base: &name base.jpg\nmask: *name\n", "aliases"),
        (b"base: b.jpg\nplace: &p {quad: [[0,0],[9,0],[9,9],[0,9]]}\n<<: *p\n", "aliases"),
        (b"[" * 30_000, "nested too deeply"),
        (b"{a: " * 12_000, "nested too deeply"),
        (b"a: !!python/object/apply:os.system [echo]", "is not YAML"),
        (b"a: !!python/name:os.system", "is not YAML"),
        (b"base: " + b"x" * 64_000, "are the most that is read"),
        (b"size: [" + b"9" * 5000 + b", 1]", "is not YAML"),
        (b"base: 2021-02-31", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"base: \x00", "is not YAML"),
        (b"base: [", "is not YAML"),
        (b"a: 1\n---\nb: 2\n", "is not YAML"),
        (b"", "must hold named parts"),
        (b"- base.jpg", "must hold named parts"),
        (b"just text", "must hold named parts"),
        (b"1: 2", "Keys should be strings"),
    ],
)
def test_hostile_descriptions_are_refused_at_once(description: bytes, words: str) -> None:
    started = time.process_time()
    assert words in refusal(description)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", ["", "../up", "Poster", "a/b", "x" * 32, "_x", "a b", "a\n"])
def test_names_of_templates(name: str) -> None:
    with pytest.raises(TemplateError, match="its folder needs a name"):
        read_template(name, yaml.safe_dump(LEAST).encode())


FILES = {"base.jpg": b"one", "shade.png": b"two"}


def test_the_fingerprint_is_of_what_matters() -> None:
    layers = [{"file": "shade.png", "mode": "multiply"}]
    plain = template_fingerprint(read(layers=layers), FILES)
    assert len(plain) == 16
    assert int(plain, 16) >= 0
    written = (
        b"# a comment\nlayers: [{mode: multiply, opacity: 1.0, file: shade.png}]\n"
        b"place: {fit: cover, quad: [[10.0, 10], [110, 12], [112, 108], [9, 110]]}\n"
        b"base: base.jpg\n"
    )
    assert template_fingerprint(read_template("poster", written), FILES) == plain
    assert template_fingerprint(read(layers=layers), {**FILES, "notes.png": b"x"}) == plain
    changed = [
        template_fingerprint(read(layers=[{**layers[0], "opacity": 0.5}]), FILES),
        template_fingerprint(read(layers=layers, size=[10, 10]), FILES),
        template_fingerprint(read(layers=layers), {**FILES, "shade.png": b"three"}),
        template_fingerprint(read(), FILES),
    ]
    assert len({plain, *changed}) == 5


def test_the_fingerprint_changes_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "image_pipeline.imaging.mockup_template"
    plain = template_fingerprint(read(), FILES)
    for version in ("COMPOSITION_VERSION", "RENDER_VERSION"):
        with monkeypatch.context() as changed:
            changed.setattr(f"{module}.{version}", 99)
            assert template_fingerprint(read(), FILES) != plain


def test_a_missing_file_is_named() -> None:
    template = read(mask="mask.png")
    for use in (check_files, template_fingerprint):
        with pytest.raises(TemplateError, match=r"mask\.png is not in the template's folder"):
            use(template, FILES)


def test_an_error_survives_a_pipe_between_processes() -> None:
    error = pickle.loads(pickle.dumps(TemplateError("mug", "base", "is gone")))
    assert str(error) == "template mug: base: is gone"
    assert (error.template, error.field, error.message) == ("mug", "base", "is gone")


def test_the_quad_type_is_what_is_read() -> None:
    quad: Quad = ((10, 10), (110, 12), (112, 108), (9, 110))
    assert read().description.place.corners == quad
