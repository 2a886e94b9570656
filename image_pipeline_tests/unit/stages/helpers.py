"""Tools without workers, and a catalog filled by hand."""

from datetime import UTC, datetime, timedelta

from image_pipeline.catalog import batches, images, uploads
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.settings import Formats, Recipe, Settings, Size, Source, Webp
from image_pipeline.stages.tools import Spool, Tools

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

RECIPE = Recipe(
    sizes={
        "thumb": Size(role="thumbnail", width=40, height=40, fit="cover"),
        "small": Size(width=60, height=60),
        "large": Size(width=120, height=120),
    },
    formats=Formats(webp=Webp()),
)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


def make_settings(**parts):
    return Settings(
        **{
            "sources": {"photos": Source(prefix="uploads/photos/")},
            "recipes": {"web": RECIPE},
            **parts,
        }
    )


def make_tools(catalog, tmp_path, bucket=None, **parts):
    spool = Spool(tmp_path / "spool")
    return Tools(make_settings(**parts), bucket, catalog, None, spool, lambda: NOW)


def add_batch(catalog, *decisions, source="photos", modified=NOW):
    """A batch with one upload per decision: (key, verdict, reason, image); its id.

    ``modified`` is when they were written: one time for all, or one for each.
    """
    times = modified if isinstance(modified, list) else [modified] * len(decisions)
    rows = [
        {
            "source": source, "key": f"uploads/{source}/{key}", "etag": "e", "size": 1000,
            "last_modified": time, "discovered_at": NOW,
        }
        for (key, *_), time in zip(decisions, times, strict=True)
    ]  # fmt: skip
    with catalog.write() as connection:
        uploads.add(connection, rows)
        (batch,) = batches.form(connection, source, NOW, 1000, lambda waiting: [list(waiting)])
        found = uploads.of_batch(connection, batch)
        uploads.decide(
            connection,
            [
                uploads.Decision(one.id, verdict, reason, image_id=image)
                for one, (_, verdict, reason, image) in zip(found, decisions, strict=True)
                if verdict
            ],
            NOW,
        )
    return batch


def image_row(image, phash=0x0123456789ABCDEF, **changes):
    """An image with a hash of its own kind; the bands follow from it."""
    from image_pipeline.dedupe import bands

    return {
        "id": image, "bytes": 5000, "format": "jpeg", "width": 90, "height": 60,
        "orientation": 1, "mode": "RGB", "has_alpha": False, "animated": False, "lossless": False,
        "flags": [], "phash64": bands.signed(phash), "phash256": "0" * 64, "dhash64": 0,
        "texture": 50.0, "dominant_color": "#102030", "placeholder": "data:image/webp;base64,AA==",
        "created_at": NOW, "frames": 1, "quality": None, "pixels": None, "chroma": None,
        "content_width": None, "content_height": None, "content_phash64": None,
        **{f"b{n}": value for n, value in enumerate(bands.split(phash))},
        **changes,
    }  # fmt: skip


def variant_rows(image, keys):
    return [
        {
            "key": key, "image_id": image, "recipe": recipe_fingerprint(RECIPE),
            "role": plan.role, "size": plan.size, "format": plan.format, "width": plan.width,
            "height": plan.height, "quality": plan.quality, "bytes": 10, "sha256": "ab" * 32,
            "metadata": [], "created_at": NOW,
        }
        for key, plan in keys.items()
    ]  # fmt: skip


def add_images(catalog, *rows):
    with catalog.write() as connection:
        images.add_images(connection, rows)


def inspect(catalog, **pictures):
    """Images of real pixels in the catalog, as a worker inspects them, by their names."""
    import io

    from image_pipeline.imaging.inspection import inspect_image
    from image_pipeline.settings import Limits
    from image_pipeline.stages.inspecting import image_row as row_of
    from image_pipeline.stages.inspecting import sketch_row

    rows, sketches = [], []
    for name, picture in pictures.items():
        data = io.BytesIO()
        picture.save(data, "PNG")
        found = inspect_image(data.getvalue(), Limits())
        rows.append(row_of(name, len(data.getvalue()), found, NOW))
        sketches.append(sketch_row(name, found))
    with catalog.write() as connection:
        images.add_images(connection, rows)
        images.add_sketches(connection, sketches)
