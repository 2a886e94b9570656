"""A shop in miniature: published designs, templates, and real pictures composed in this process."""

import hashlib
import io
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
import yaml
from PIL import Image

from image_pipeline.catalog import batches, images, uploads
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.schema import members, mockups, publications, variants, warmth
from image_pipeline.settings import (
    Delivery,
    Maintenance,
    MockupSettings,
    Settings,
    Source,
)
from image_pipeline.stages.mockups import make_mockups
from image_pipeline.stages.tools import Spool, Tools
from image_pipeline.workers.pool import Outcome
from image_pipeline_tests.fake_bucket import FakeBucket
from image_pipeline_tests.unit.stages.helpers import image_row

BASE = (80, 60)

#: Two small files of a mockup, in one format each, so that none is ever dropped.
OUTPUT = {
    "sizes": {
        "thumb": {"role": "thumbnail", "width": 20, "height": 20},
        "small": {"width": 40, "height": 40},
    },
    "formats": {"webp": {"quality": 80, "method": 0}},
}
FILES = 2


class KilledError(BaseException):
    """The process is no more."""


class InProcess:
    """Workers that are none: real pictures, composed here. ``composed`` counts designs."""

    def __init__(self):
        self.composed = 0
        self.before = lambda key: None

    def run(self, function, jobs):
        for job in jobs:
            try:
                self.before(job.key)
                value = function(job.load(), *job.arguments)
            except Exception as error:  # noqa: BLE001 - what the pool hands to its caller
                yield Outcome(job.key, None, error, 0.0)
                continue
            self.composed += function.__name__ == "render_mockup"
            yield Outcome(job.key, value, None, 0.1)


def png(size, colour):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def template_files(colour="white", box=(10, 10, 40, 30), **description):
    about = {"base": "base.png", "place": {"box": list(box)}, "output": OUTPUT, **description}
    return {"template.yaml": yaml.safe_dump(about).encode(), "base.png": png(BASE, colour)}


class Shop:
    """A bucket in memory, a catalog, a clock that is moved by hand."""

    def __init__(self, catalog, folder, bucket=None, **parts):
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.bucket = bucket or FakeBucket(self.clock)
        self.catalog = catalog
        self.folder = folder
        self.workers = InProcess()
        self.parts = {
            "bucket": self.bucket.settings,
            "sources": {
                "photos": Source(prefix="uploads/photos/", mockups="all"),
                "shop": Source(prefix="uploads/shop/"),
            },
            "mockups": MockupSettings(chunk=2),
            **parts,
        }
        self.stages = []

    def clock(self):
        return self.now

    def pass_days(self, days):
        self.now += timedelta(days=days)

    @property
    def settings(self):
        return Settings(**self.parts)

    @property
    def tools(self):
        return Tools(
            self.settings,
            self.bucket,
            self.catalog,
            self.workers,
            Spool(self.folder / "spool"),
            self.clock,
            lambda *told: self.stages.append(told),
        )

    def make(self, source=None):
        return make_mockups(self.tools, source)

    def template(self, name, **changes):
        """Put a template; changes are its colour, its box and parts of its description."""
        for file, data in template_files(**changes).items():
            self.bucket.put(f"templates/{name}/{file}", data, "application/octet-stream")

    def remove_template(self, name):
        self.bucket.delete([one.key for one in self.bucket.list(f"templates/{name}/")])

    def design(self, name, colour="red", source="photos", data=None):
        """An accepted, published design; its image id."""
        data = data or png((40, 30), colour)
        image, upload, batch = self._send(name, data, source, "accepted")
        with self.catalog.write() as connection:
            images.add_images(connection, [image_row(image, width=40, height=30)])
            member = Member(source, image, image, None, 0, upload, batch)
            images.add_members(connection, [member])
            self.publish(connection, source, image, batch)
            batches.finish(connection, batch, self.now)
        return image

    def send_again(self, name, data, source="photos"):
        """The same bytes under another name."""
        self._send(name, data, source, "duplicate")

    def _send(self, name, data, source, verdict):
        image, key = hashlib.sha256(data).hexdigest(), f"uploads/{source}/{name}.png"
        self.bucket.put(key, data, "image/png")
        row = {
            "source": source, "key": key, "etag": self.bucket.head(key).etag, "size": len(data),
            "last_modified": self.now, "discovered_at": self.now,
        }  # fmt: skip
        with self.catalog.write() as connection:
            uploads.add(connection, [row])
            (batch,) = batches.form(connection, source, self.now, 10, lambda found: [list(found)])
            (upload,) = uploads.of_batch(connection, batch)
            decided = uploads.Decision(upload.id, verdict, None, image_id=image)
            uploads.decide(connection, [decided], self.now)
        return image, upload.id, batch

    def publish(self, connection, source, image, batch):
        connection.execute(
            sa.insert(publications).values(
                source=source, image_id=image, canonical_id=image, recipe="r1", digest="d",
                version=1, batch_id=batch, published_at=self.now,
            )
        )  # fmt: skip

    def dissolve(self, image, source="photos"):
        """An image stands for nobody any more."""
        with self.catalog.write() as connection:
            connection.execute(sa.delete(members).where(members.c.image_id == image))

    def set(self, **parts):
        """Other settings from now on."""
        self.parts |= parts

    def set_mockups(self, wanted, source="photos"):
        sources = dict(self.parts["sources"])
        sources[source] = sources[source].model_copy(update={"mockups": wanted})
        self.set(sources=sources)

    def rows(self, table=mockups):
        with self.catalog.read() as connection:
            return [dict(row) for row in connection.execute(sa.select(table)).mappings()]

    def row(self, image, template):
        (found,) = [
            row for row in self.rows() if (row["image_id"], row["template"]) == (image, template)
        ]
        return found

    def files(self, template=None):
        """Keys of the files of mockups by the catalog."""
        return {
            row["key"]
            for row in self.rows(variants)
            if row["role"] == "mockup"
            and (template is None or row["size"].startswith(f"{template}-"))
        }

    def warm(self):
        return {row["key"] for row in self.rows(warmth)}

    def stored(self, prefix):
        return {one.key: self.bucket.get(one.key) for one in self.bucket.list(prefix)}


def with_edge(url="https://cdn.example"):
    return Delivery(base_url=url)


def strict(**cleanup):
    return Maintenance(cleanup={"max_share": 1.0, **cleanup})
