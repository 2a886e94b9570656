"""From one decode to every size and format of a recipe."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from PIL import Image, ImageColor

from image_pipeline.imaging.animation import Film, decode_frames
from image_pipeline.imaging.crop import crop_window
from image_pipeline.imaging.decoding import Decoded, Header, decode
from image_pipeline.imaging.inspection import Inspection, describe, sufficient_size
from image_pipeline.imaging.metadata import EXIF_HEAD, copyright_exif
from image_pipeline.imaging.recipe import PlannedVariant, plan_variants, planned_sizes
from image_pipeline.settings import AutoQuality, FormatName, Limits, Recipe, Role

#: What is planned for a picture, by size, largest first.
Plans: TypeAlias = dict[str, list[PlannedVariant]]

#: Left, top, right, bottom of the crops of one picture, by size.
Windows: TypeAlias = dict[str, tuple[int, int, int, int]]

#: Pixels beside a cutout that take the colours of its edge: the side of an encoder's block.
_AROUND = 8

#: Alpha (0-255) up to which a pixel takes the colours around it: 3 % of them are seen.
_HARDLY_SEEN = 8


@dataclass(frozen=True, slots=True)
class RenderedVariant:
    """An encoded file, the SHA-256 (hex) of its bytes and their number.

    ``dropped``: it was not smaller than the next fallback of its size that stays, so nobody
    should be sent it. ``data`` is then empty; ``sha256`` and ``length`` still tell what came out.
    """

    plan: PlannedVariant
    data: bytes
    sha256: str
    length: int
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class ProcessedImage:
    """What a file is and everything rendered from it."""

    inspection: Inspection
    variants: list[RenderedVariant]


def process_image(data: bytes, recipe: Recipe, limits: Limits) -> ProcessedImage:
    """Inspect and render from one decode. Raises ``Rejected`` for a bad file.

    The inspection of a JPEG then sees the pixels that the recipe needs, which may be more than
    ``inspect_image`` decodes: hashes can differ from its by a few bits. That saves a fifteenth.
    """
    decoded = decode(data, limits, partial(_draft, recipe))
    inspection = describe(decoded)
    prepared = _prepared(decoded, recipe)
    del decoded
    return ProcessedImage(inspection, _rendered(prepared, data, recipe, limits, None))


def render(
    data: bytes, recipe: Recipe, limits: Limits, roles: Collection[Role] | None = None
) -> list[RenderedVariant]:
    """Render every variant of a recipe, or those of some roles, from one decode.

    Each size is made from the next larger one, largest first, and every format of a size is
    encoded while it is at hand. The bytes of a variant do not depend on ``roles``. An animation
    that the recipe keeps is decoded a second time, frame by frame.
    """
    prepared = _prepared(decode(data, limits, partial(_draft, recipe)), recipe)
    return _rendered(prepared, data, recipe, limits, roles)


#: What is planned for a decoded picture, the pictures to encode, and the EXIF block of each.
_Prepared: TypeAlias = tuple[Plans, Iterator[tuple[str, Image.Image]], bytes]


def _prepared(decoded: Decoded, recipe: Recipe) -> _Prepared:
    """Nothing but the iterator holds the decoded pixels, so that they go when they are used."""
    header = decoded.header
    exif = copyright_exif(header.copyright) if recipe.keep_copyright else b""
    plans = _by_size(plan_variants(recipe, *decoded.full_size, frames=header.frames))
    return plans, _pictures(_premultiplied(decoded.image), recipe, plans, {}), exif


def _rendered(
    prepared: _Prepared,
    data: bytes,
    recipe: Recipe,
    limits: Limits,
    roles: Collection[Role] | None,
) -> list[RenderedVariant]:
    plans, pictures, exif = prepared
    if isinstance(recipe.quality, AutoQuality):
        pictures, plans = _with_chosen_qualities(pictures, recipe, recipe.quality, plans)
    wanted = {
        name: [plan for plan in planned if roles is None or plan.role in roles]
        for name, planned in plans.items()
    }
    encoded = dict(_stills(pictures, recipe, wanted, exif))
    encoded.update(_films(data, limits, recipe, wanted, exif))
    return [
        variant
        for planned in wanted.values()
        for variant in _smaller_than_fallbacks(planned, encoded)
    ]


def _by_size(planned: list[PlannedVariant]) -> Plans:
    plans: Plans = {}
    for plan in planned:
        plans.setdefault(plan.size, []).append(plan)
    return plans


def _draft(recipe: Recipe, header: Header) -> tuple[int, int]:
    """The stored size that is enough for every variant of a recipe, crops as well.

    A crop takes one side of the picture whole, so that a picture no smaller than the crop on
    either side need not be enlarged for it. It is also enough for an inspection: files are then
    the same bytes whether the picture is inspected along with them or not.
    """
    sizes = planned_sizes(recipe, *header.upright).values()
    widest, highest = max(wide for wide, _ in sizes), max(high for _, high in sizes)
    wide, high = (highest, widest) if header.orientation >= 5 else (widest, highest)
    least = sufficient_size(header)
    return max(wide, least[0]), max(high, least[1])


def _donors(recipe: Recipe, plans: dict[str, list[PlannedVariant]]) -> dict[str, list[str]]:
    """Pictures in the order they are made, each with the crops that are cut from it.

    The first is the original, named ``""``. A crop is cut from the smallest picture that has
    at least the crop's pixels.
    """
    donors: dict[str, list[str]] = {"": []}
    donors.update({name: [] for name in plans if recipe.sizes[name].fit == "inside"})
    for cover in plans:
        if recipe.sizes[cover].fit == "cover":
            crop = plans[cover][0]
            enough = [
                name
                for name in donors
                if name
                and plans[name][0].width >= crop.width
                and plans[name][0].height >= crop.height
            ]
            donors[enough[-1] if enough else ""].append(cover)
    return donors


def _pictures(
    picture: Image.Image, recipe: Recipe, plans: Plans, windows: Windows
) -> Iterator[tuple[str, Image.Image]]:
    """Every planned size of a picture by name, one at a time, each from the next larger one.

    Crops are cut where ``windows`` say; a window that is missing is found and put there.
    """
    for name, crops in _donors(recipe, plans).items():
        if name:
            picture = _resized(picture, plans[name][0])
            yield name, picture
        for crop in crops:
            plan = plans[crop][0]
            if crop not in windows:
                rule = recipe.sizes[crop].crop
                windows[crop] = crop_window(picture, plan.width, plan.height, rule)
            yield crop, _resized(picture, plan, windows[crop])


def _premultiplied(image: Image.Image) -> Image.Image:
    """Colour weighted by alpha: a resize then mixes no hidden colour into the edges."""
    return image.convert("RGBa") if image.mode == "RGBA" else image


def _straight(image: Image.Image) -> Image.Image:
    """Colour no longer weighted by alpha, for encoders; what cannot be seen is like what can.

    Division leaves black where nothing is, and noise where next to nothing is. Lossy encoders
    would let it bleed into the edges, and spend bytes on it: those of cutouts are 5 to 60 %
    smaller in AVIF for the colours of their surroundings.
    """
    if image.mode != "RGBa":
        return image
    straight = image.convert("RGBA")
    ground = image.resize((1, 1), Image.Resampling.BOX).convert("RGBA")
    ground = ground.resize(image.size, Image.Resampling.NEAREST)
    around = image.reduce(_AROUND).convert("RGBA")
    larger = (around.width * _AROUND, around.height * _AROUND)
    around = around.resize(larger, Image.Resampling.NEAREST).crop((0, 0, *image.size))
    for colours in (around, straight):
        alpha = colours.getchannel("A")
        ground.paste(colours, mask=alpha.point(lambda level: 255 if level > _HARDLY_SEEN else 0))
    ground.putalpha(straight.getchannel("A"))
    return ground


def _resized(
    image: Image.Image, plan: PlannedVariant, window: tuple[int, int, int, int] | None = None
) -> Image.Image:
    size = (plan.width, plan.height)
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, box=window)


def _stills(
    pictures: Iterator[tuple[str, Image.Image]], recipe: Recipe, wanted: Plans, exif: bytes
) -> Iterator[tuple[PlannedVariant, bytes]]:
    for name, picture in pictures:
        still = [plan for plan in wanted[name] if not plan.animated]
        straight = _straight(picture) if still else picture
        for plan in still:
            yield plan, encode(straight, recipe, plan.format, plan.quality, exif)


def _films(
    data: bytes, limits: Limits, recipe: Recipe, wanted: Plans, exif: bytes
) -> Iterator[tuple[PlannedVariant, bytes]]:
    """The variants that move, all from one walk through the frames."""
    moving = {name: [plan] for name in wanted for plan in wanted[name] if plan.animated}
    webp = recipe.formats.webp
    if not moving or webp is None:
        return
    films: dict[str, Film] = {}
    # Found on the first frame: crops that followed every frame would tremble.
    windows: Windows = {}
    for frame in decode_frames(data, limits):
        for name, picture in _pictures(_premultiplied(frame.image), recipe, moving, windows):
            if name not in films:
                films[name] = Film(picture.size, moving[name][0].quality, webp, frame.loops)
            films[name].add(_straight(picture), frame.milliseconds)
    for name, film in films.items():
        yield moving[name][0], film.finish(exif)


def _smaller_than_fallbacks(
    plans: list[PlannedVariant], encoded: dict[PlannedVariant, bytes]
) -> list[RenderedVariant]:
    """The variants of one size, best first; the last is what everybody can show, and stays.

    What is not smaller than the next one that stays has no reason to be sent. Something that
    moves is no larger version of something that does not.
    """
    found: list[RenderedVariant] = []
    fallback: RenderedVariant | None = None
    for plan in reversed(plans):
        data = encoded[plan]
        variant = RenderedVariant(plan, data, hashlib.sha256(data).hexdigest(), len(data))
        alike = fallback is not None and fallback.plan.animated == plan.animated
        if fallback is not None and alike and variant.length >= fallback.length:
            variant = replace(variant, data=b"", dropped=True)
        else:
            fallback = variant
        found.insert(0, variant)
    return found


def _with_chosen_qualities(
    pictures: Iterator[tuple[str, Image.Image]], recipe: Recipe, auto: AutoQuality, plans: Plans
) -> tuple[Iterator[tuple[str, Image.Image]], Plans]:
    """The same pictures, and plans with qualities that reach the recipe's target on them.

    They are tried on the largest picture that is no crop, which is made before all that are
    smaller: nothing else waits for it but crops that only the original was large enough for.
    """
    from image_pipeline.imaging.autoquality import choose_qualities

    made: list[tuple[str, Image.Image]] = []
    for name, picture in pictures:
        made.append((name, picture))
        if recipe.sizes[name].fit == "inside":
            break
    whole = [picture for name, picture in made if recipe.sizes[name].fit == "inside"]
    seen = whole[0] if whole else max((picture for _, picture in made), key=_area)
    chosen = choose_qualities(
        _flattened(_straight(seen), recipe.background),
        [plan for planned in plans.values() for plan in planned],
        auto.target,
        lambda image, kind, quality: encode(image, recipe, kind, quality),
    )
    return chain(made, pictures), _by_size(chosen)


def _area(image: Image.Image) -> int:
    return image.width * image.height


def encode(
    image: Image.Image, recipe: Recipe, kind: FormatName, quality: int, exif: bytes = b""
) -> bytes:
    """Encode an RGB or RGBA picture. The same pixels give the same bytes.

    No metadata but ``exif`` is written, a block as ``copyright_exif`` makes it.
    """
    picture = _flattened(image, recipe.background) if kind == "jpeg" else image
    picture.info = {}
    # Nothing of the source but its pixels. Pillow would otherwise keep a profile in AVIF.
    head = EXIF_HEAD if exif and kind == "jpeg" else b""
    metadata: dict[str, Any] = {"exif": head + exif, "xmp": b"", "icc_profile": None}
    data = io.BytesIO()
    picture.save(data, kind.upper(), quality=quality, **_options(recipe, kind), **metadata)
    return data.getvalue()


def _options(recipe: Recipe, kind: FormatName) -> dict[str, Any]:
    formats = recipe.formats
    if kind == "avif" and formats.avif:
        # libavif's bytes depend on the number of threads, so it is always one.
        return {"speed": formats.avif.speed, "subsampling": "4:2:0", "max_threads": 1}
    if kind == "webp" and formats.webp:
        return {"method": formats.webp.method}
    progressive = formats.jpeg.progressive if formats.jpeg else True
    return {"progressive": progressive, "optimize": True, "subsampling": "4:2:0"}


def _flattened(image: Image.Image, background: str) -> Image.Image:
    if image.mode != "RGBA":
        return image
    below = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
    return Image.alpha_composite(below, image).convert("RGB")
