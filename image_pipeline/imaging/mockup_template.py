"""Templates of mockups: what a folder with a ``template.yaml`` says, read and checked.

A template is a photograph of a product (``base``), the place on it where a design goes, and
what falls on the design there: a mask and layers of shading. Nothing here opens a picture; see
:mod:`~image_pipeline.imaging.mockups` for that.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from image_pipeline.imaging.perspective import Quad
from image_pipeline.imaging.recipe import RENDER_VERSION
from image_pipeline.settings import (
    Avif,
    Crop,
    Formats,
    Jpeg,
    Recipe,
    Size,
    SizeName,
    TemplateName,
    Webp,
)

#: The file of a template's folder that describes it.
DESCRIPTION = "template.yaml"

#: Raised whenever the same template and design would give other pixels: names must change with
#: them.
COMPOSITION_VERSION = 1

#: Bytes of a description: a long one with eight layers has 2,000.
_MOST_BYTES = 64_000

#: Pixels a side, and pixels in all, of what a template is made of. Base, mask and layers are held
#: as pixels at the same time, beside the design, within the memory of one worker.
LARGEST_SIDE, MEGAPIXELS = 8192, 16.0

#: The least sine of a corner's angle (about 1 degree). Below it, three corners lie on a line, and
#: the scale of the design goes to nothing or to infinity along it.
_LEAST_SINE = 0.02

#: The shortest side of a placement in pixels; a design cannot be seen on less.
_SHORTEST = 4.0


class TemplateError(Exception):
    """A template cannot be used. The message names it and the field, and says what to do."""

    def __init__(self, template: str, field: str, message: str) -> None:
        super().__init__(template, field, message)  # all, so that it survives a pipe
        self.template = template
        self.field = field
        self.message = message

    def __str__(self) -> str:
        where = f"{self.template}: {self.field}" if self.field else self.template
        return f"template {where}: {self.message}"


def quad_fault(quad: Quad) -> str | None:
    """What is wrong with a quadrilateral, said of it in words, or None.

    Sound is what a plane seen by a camera can look like: convex, clockwise (y points down), and
    with no corner so flat or so pointed that scale has no bounds on it.
    """
    lengths = _side_lengths(quad)
    if min(lengths) < _SHORTEST:
        return f"has a side of {min(lengths):.1f} pixels; {_SHORTEST:g} are the least"
    # The sine of the angle by which the outline turns at each corner, positive for clockwise.
    sines = [
        ((bx - ax) * (cy - by) - (by - ay) * (cx - bx)) / (lengths[at] * lengths[(at + 1) % 4])
        for at, ((ax, ay), (bx, by), (cx, cy)) in enumerate(
            zip(quad, quad[1:] + quad[:1], quad[2:] + quad[:2], strict=True)
        )
    ]
    if any(abs(sine) < _LEAST_SINE for sine in sines):
        return "has three corners (almost) on a line; move one of them"
    right_turns = sum(sine > 0 for sine in sines)
    if right_turns == 2:
        return "crosses itself; list its corners in order around it, clockwise"
    if right_turns in (1, 3):
        return "has a corner that points inwards; it has to be convex"
    if right_turns == 0:
        return (
            "goes counterclockwise, which would mirror the design; begin with the corner where"
            " its upper left one goes, then upper right, lower right, lower left"
        )
    return None


def _side_lengths(quad: Quad) -> list[float]:
    """Lengths of the upper, right, lower and left side."""
    return [math.dist(one, other) for one, other in zip(quad, quad[1:] + quad[:1], strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _in_the_folder(name: str) -> str:
    if not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(jpe?g|png|webp|avif|tiff?)", name, re.I
    ):
        raise ValueError(
            "must be the name of a JPEG, PNG, WebP, AVIF or TIFF file in the template's folder:"
            " letters, digits, '.', '-' and '_', no path"
        )
    return name


#: A picture in the template's own folder: never a path.
FileName = Annotated[str, AfterValidator(_in_the_folder)]

_Coordinate = Annotated[float, Field(ge=-LARGEST_SIDE, le=2 * LARGEST_SIDE)]
_Corner = tuple[_Coordinate, _Coordinate]
_Length = Annotated[int, Field(gt=0, le=LARGEST_SIDE)]
_Edge = Annotated[int, Field(ge=0, le=LARGEST_SIDE)]


class Place(_Part):
    """Where the design goes, and how it meets that place.

    Either ``quad``, four corners in pixels of the base, clockwise from where the design's upper
    left corner goes, or ``box`` (left, top, width, height), a rectangle at whole pixels.
    ``cover`` fills the place and cuts the design where ``crop`` says, ``contain`` shows all of
    it and fills the rest with ``background`` (or leaves the product as it is), ``stretch``
    distorts it. ``aspect`` is the width of the real place over its height, which a quad in
    perspective does not show; without it, the mean lengths of opposite sides are taken.
    """

    quad: tuple[_Corner, _Corner, _Corner, _Corner] | None = None
    box: tuple[_Edge, _Edge, _Length, _Length] | None = None
    fit: Literal["cover", "contain", "stretch"] = "cover"
    crop: Crop = "attention"
    background: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$")
    aspect: float | None = Field(default=None, ge=0.01, le=100)

    @model_validator(mode="after")
    def _is_one_sound_place(self) -> Self:
        if (self.quad is None) == (self.box is None):
            raise ValueError("give either 'quad' or 'box'")
        fault = quad_fault(self.corners)
        if fault:
            raise ValueError(f"the {'quad' if self.quad else 'box'} {fault}")
        return self

    @property
    def corners(self) -> Quad:
        """The corners of the place, whichever way it is given."""
        if self.quad is not None:
            return self.quad
        assert self.box is not None
        left, top, width, height = self.box
        right, bottom = left + width, top + height
        return (left, top), (right, top), (right, bottom), (left, bottom)

    @property
    def ratio(self) -> float:
        """Width over height of the real place: ``aspect``, or what the sides make likely."""
        if self.aspect is not None:
            return self.aspect
        upper, right, lower, left = _side_lengths(self.corners)
        return (upper + lower) / (left + right)


class Layer(_Part):
    """Light or shadow on the design: a picture of the base's size, grey or coloured.

    ``multiply`` darkens by it (white changes nothing), ``screen`` lightens (black changes
    nothing); ``opacity`` 0-1 is how much of that, where the picture itself is not transparent.
    """

    file: FileName
    mode: Literal["multiply", "screen"]
    opacity: float = Field(default=1.0, ge=0, le=1)


DEFAULT_OUTPUT: dict[str, Size] = {
    # Not cut, unlike a photograph's: what would be cut is the product.
    "thumbnail": Size(role="thumbnail", width=400, height=400),
    "medium": Size(width=1024, height=1024),
}


class Output(_Part):
    """Sizes and formats of the mockups, as in a recipe."""

    sizes: dict[SizeName, Size] = Field(default=DEFAULT_OUTPUT, min_length=1, max_length=16)
    formats: Formats = Formats(avif=Avif(), webp=Webp(), jpeg=Jpeg())

    @model_validator(mode="after")
    def _renders_something(self) -> Self:
        if not self.formats.names:
            raise ValueError("name at least one format of avif, webp and jpeg")
        return self


class Description(_Part):
    """What ``template.yaml`` holds. ``size`` is that of the base, if it has to be exactly so."""

    base: FileName
    size: tuple[_Length, _Length] | None = None
    place: Place
    mask: FileName | None = None
    layers: tuple[Layer, ...] = Field(default=(), max_length=4)
    output: Output = Output()


@dataclass(frozen=True, slots=True)
class Template:
    """A template by its name, which is also its folder's."""

    name: str
    description: Description

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the pictures it needs beside its description, each once, base first."""
        about = self.description
        masks = [about.mask] if about.mask else []
        return tuple(dict.fromkeys([about.base, *masks, *(one.file for one in about.layers)]))

    @property
    def recipe(self) -> Recipe:
        """What a composed picture is rendered to."""
        output = self.description.output
        return Recipe(sizes=output.sizes, formats=output.formats)


def read_template(name: str, description: bytes) -> Template:
    """A template from the bytes of its ``template.yaml``. Raises :class:`TemplateError`."""
    try:
        TypeAdapter(TemplateName).validate_python(name)
    except ValidationError:
        raise TemplateError(
            name[:60], "", "its folder needs a name of up to 31 small letters, digits, '-' and '_'"
        ) from None
    raw = _parsed(name, description)
    try:
        return Template(name, Description.model_validate(raw))
    except ValidationError as error:
        raise _explained(name, error) from None


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them unfold to gigabytes, and no template needs any."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases ('*name') are not read; write the value out")
        return super().compose_node(parent, index)


def _parsed(name: str, description: bytes) -> dict[str, Any]:
    if len(description) > _MOST_BYTES:
        message = f"has {len(description):,} bytes; {_MOST_BYTES:,} are the most that is read"
        raise TemplateError(name, DESCRIPTION, message)
    try:
        raw = yaml.load(description.decode("utf-8-sig"), _PlainLoader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise TemplateError(name, DESCRIPTION, "is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: no UTF-8, an integer of thousands of digits, the 31st of February.
        raise TemplateError(
            name, DESCRIPTION, f"is not YAML: {' '.join(str(error).split())}"[:300]
        ) from None
    if not isinstance(raw, dict):
        raise TemplateError(name, DESCRIPTION, "must hold named parts such as 'base:' and 'place:'")
    return raw


def _explained(name: str, error: ValidationError) -> TemplateError:
    mistakes = []
    for mistake in error.errors(include_url=False):
        field = ".".join(str(part) for part in mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        known = {"extra_forbidden": "unknown field", "missing": "is missing"}
        mistakes.append((field, known.get(mistake["type"], message)))
    (field, message), *others = mistakes
    # Whoever mends a template wants to know all of it at once, and not a screen of it.
    also = "".join(f"; {where}: {what}" for where, what in others[:5])
    return TemplateError(name, field, message + also)


def check_files(template: Template, files: Mapping[str, bytes]) -> None:
    """Raise :class:`TemplateError` unless every picture that a template names is there."""
    for name in template.files:
        if name not in files:
            message = f"{name} is not in the template's folder; put it there, or correct the name"
            raise TemplateError(template.name, DESCRIPTION, message)


def template_fingerprint(template: Template, files: Mapping[str, bytes]) -> str:
    """16 hex digits that change with the description, its pictures and the code that composes.

    Comments, order and defaults written out do not change it, nor do files it does not name.
    """
    check_files(template, files)
    document = {
        "description": template.description.model_dump(mode="json"),
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in template.files},
        "versions": [COMPOSITION_VERSION, RENDER_VERSION],
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
