"""A catalog made again from the bucket knows no file that housekeeping removed."""

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import images
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import variants
from image_pipeline.stages.exporting import export_batch, rebuild
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.stages.tools import quiet
from image_pipeline_tests.fake_bucket import FakeBucket
from image_pipeline_tests.unit.catalog.helpers import variant_row

from .helpers import NOW, add_batch, add_images, image_row, make_tools
from .test_publishing import CANONICAL, render


@pytest.fixture
def tools(catalog, tmp_path):
    add_images(catalog, image_row(CANONICAL))
    return make_tools(catalog, tmp_path, FakeBucket(lambda: NOW))


def test_files_that_were_removed_since_are_not_known_again(tools, tmp_path):
    render(tools, CANONICAL)
    batch = add_batch(tools.catalog, ("a.jpg", "accepted", None, CANONICAL))
    kept, removed = (f"variants/{CANONICAL}/small-1x1.{mark}.webp" for mark in ("0a", "0b"))
    with tools.catalog.write() as connection:
        images.add_members(
            connection, [images.Member("photos", CANONICAL, CANONICAL, None, 0, 1, batch)]
        )
        images.add_variants(
            connection, [variant_row(key, CANONICAL, recipe="old") for key in (kept, removed)]
        )
    assert finish_batch(tools, batch, publish_batch(tools, batch))
    tools.bucket.put(kept, b"not removed yet", "image/webp")
    export_batch(tools.bucket, tools.catalog, batch, "photos", NOW)
    with tools.catalog.read() as connection:
        known = set(connection.execute(sa.select(variants.c.key)).scalars())
    assert {kept, removed} < known
    again = Catalog(f"sqlite:///{tmp_path / 'again.db'}")
    rebuild(tools.bucket, again, ["uploads/photos/"], NOW, quiet)
    with again.read() as connection:
        assert set(connection.execute(sa.select(variants.c.key)).scalars()) == known - {removed}
    again.close()
