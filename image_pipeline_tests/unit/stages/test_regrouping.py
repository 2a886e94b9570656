"""When who stands for a group changes: rendering, manifests, people's word, crashes in between."""

import io
import json
from contextlib import suppress

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches, groups, images, schema
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.samples import photograph
from image_pipeline.settings import Batches, Source
from image_pipeline.stages.batching import look_at_source
from image_pipeline.stages.deduplicating import deduplicate_batch
from image_pipeline.stages.inspecting import inspect_batch
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.stages.rendering import render_batch
from image_pipeline.stages.separating import SeparationError, find_image, rejoin, split
from image_pipeline.stages.verifying import verify_groups, verify_variants
from image_pipeline.store import layout
from image_pipeline.store.bucket import StoreError
from image_pipeline.workers.pool import Outcome

from .helpers import NOW, Clock, add_batch, add_images, image_row, make_tools


class Here:
    """Workers that work in this process; images named in ``broken`` cannot be rendered."""

    def __init__(self):
        self.broken = {}
        self.worked = []

    def run(self, function, jobs):
        for job in jobs:
            error = self.broken.get(job.key) if function.__name__ == "render" else None
            if error:
                yield Outcome(job.key, None, error, 0.5)
                continue
            self.worked.append((function.__name__, job.key))
            yield Outcome(job.key, function(job.load(), *job.arguments), None, 0.5)


class Site:
    """A source with a bucket: uploads become batches, batches are run stage by stage."""

    def __init__(self, catalog, tmp_path, bucket):
        self.workers = Here()
        self.clock = Clock()
        made = make_tools(catalog, tmp_path, bucket, batches=Batches(quiet_seconds=0))
        self.tools = type(made)(
            made.settings, bucket, catalog, self.workers, made.spool, self.clock
        )
        self.catalog, self.bucket = catalog, bucket
        self.ids = {}

    def look(self):
        """What a sensor asks for."""
        look = look_at_source(
            self.tools.settings, self.bucket, self.catalog, "photos", "", lambda _: {}, self.clock
        )
        return [(request.batch, request.attempt) for request in look.requests]

    def send(self, **pictures):
        """Upload pictures; the batch they are in."""
        for name, picture in pictures.items():
            data = io.BytesIO()
            picture.save(data, "PNG")
            self.bucket.put(f"uploads/photos/{name}.png", data.getvalue(), "image/png")
        ((batch, _),) = self.look()
        return batch

    def decide(self, batch):
        inspect_batch(self.tools, batch)
        deduplicate_batch(self.tools, batch)
        with self.catalog.read() as connection:
            for row in catalog_uploads.report(connection, batch):
                self.ids[row["key"].rsplit("/")[-1].removesuffix(".png")] = row["image_id"]

    def finish(self, batch):
        """Render and publish; whether the batch is done."""
        render_batch(self.tools, batch)
        published = publish_batch(self.tools, batch)
        return not published.unfinished and finish_batch(self.tools, batch, published)

    def run(self, batch):
        self.decide(batch)
        return self.finish(batch)

    def manifest(self, name):
        key = layout.image_manifest_key("photos", self.ids[name])
        return json.loads(self.bucket.get(key)) if self.bucket.head(key) else None

    def shown_by(self, name):
        """The image whose variants the manifest of ``name`` shows, by its name; all are there."""
        manifest = self.manifest(name)
        folders = {entry["key"].split("/")[1] for entry in manifest["variants"]}
        assert folders == {manifest["canonical"]}
        for entry in manifest["variants"]:
            assert self.bucket.head(entry["key"]) is not None
        return next(one for one, image in self.ids.items() if image == manifest["canonical"])

    def verdicts(self):
        with self.catalog.read() as connection:
            query = sa.select(
                schema.uploads.c.key, schema.uploads.c.verdict, schema.uploads.c.reason
            )
            rows = connection.execute(query).all()
        return {row.key.rsplit("/")[-1].removesuffix(".png"): row[1:] for row in rows}

    def state(self, batch):
        with self.catalog.read() as connection:
            return batches.get(connection, batch).state


@pytest.fixture
def site(either_catalog, tmp_path, bucket):
    return Site(either_catalog, tmp_path, bucket)


def picture(width, seed=1):
    """One scene in several sizes: the same hashes within the reach of a re-save."""
    return photograph(480, 320, seed).resize((width, width * 2 // 3))


ACCEPTED, PICTURE = ("accepted", None), ("duplicate", "picture")


@pytest.fixture
def published(site):
    """A small picture published alone, and a larger one of the same scene that is decided."""
    early = site.send(small=picture(240))
    assert site.run(early)
    late = site.send(large=picture(480))
    return early, late


def test_a_better_picture_takes_over_and_the_old_manifest_follows(site, published):
    early, late = published
    before = site.manifest("small")
    assert site.shown_by("small") == "small"
    assert site.run(late)
    assert site.verdicts() == {"small": PICTURE, "large": ACCEPTED}
    assert (site.shown_by("small"), site.shown_by("large")) == ("large", "large")
    assert site.manifest("small")["id"] == site.ids["small"]
    assert site.manifest("large")["aliases"] == [site.ids["small"]]
    assert site.manifest("large")["uploads"] == [
        "uploads/photos/large.png", "uploads/photos/small.png",
    ]  # fmt: skip
    for entry in before["variants"]:
        assert site.bucket.head(entry["key"]) is not None, "old names stay valid"
    listed = json.loads(site.bucket.get(layout.batch_manifest_key(late)))
    assert [one["id"] for one in listed["images"]] == [site.ids["large"]]
    found = verify_groups(site.tools, early)
    assert (found.duplicates, found.fallen, found.unserved) == (1, [], [])


def test_the_poorer_picture_that_comes_later_is_not_rendered(site):
    site.run(site.send(large=picture(480)))
    assert site.run(site.send(small=picture(240)))
    rendered = [key for name, key in site.workers.worked if name == "render"]
    assert rendered == [site.ids["large"]]
    assert site.shown_by("small") == "large"


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_crash_at_any_write_leaves_valid_manifests_and_the_retry_completes(
    site, published, monkeypatch, nth
):
    _, late = published
    put, count = site.bucket.put, iter(range(1, 99))

    def crash(key, *arguments, **options):
        if next(count) == nth:
            raise KeyboardInterrupt
        return put(key, *arguments, **options)

    monkeypatch.setattr(site.bucket, "put", crash)
    with suppress(KeyboardInterrupt):
        site.run(late)
    monkeypatch.undo()
    assert site.shown_by("small") in ("small", "large")
    assert site.run(late)
    assert (site.shown_by("small"), site.shown_by("large")) == ("large", "large")


def test_until_the_new_canonical_is_there_the_old_manifest_stands(site, published):
    """The network is away while the better picture is to be rendered."""
    _, late = published
    before = site.manifest("small")
    site.decide(late)
    site.workers.broken = {site.ids["large"]: StoreError("503")}
    assert not site.finish(late)
    assert site.verdicts()["large"] == ("failed", "storage_error")
    assert site.manifest("small") == before
    site.workers.broken = {}
    assert site.run(late)
    assert site.shown_by("small") == "large"


def test_a_canonical_that_cannot_be_rendered_gives_its_place_back(site, published):
    _, late = published
    before = site.manifest("small")
    site.decide(late)
    assert site.verdicts()["small"] == PICTURE
    site.workers.broken = {site.ids["large"]: Rejected(Reason.truncated, "ends early")}
    assert site.finish(late)
    assert site.verdicts() == {"small": ACCEPTED, "large": ("rejected", "truncated")}
    assert site.manifest("small") == before
    assert site.manifest("large") is None
    assert verify_groups(site.tools, late).fallen == []


def test_who_takes_the_place_of_a_broken_picture_is_rendered_in_the_same_run(site):
    batch = site.send(large=picture(480), medium=picture(360), small=picture(240))
    site.decide(batch)
    assert site.verdicts() == {"large": ACCEPTED, "medium": PICTURE, "small": PICTURE}
    site.workers.broken = {
        site.ids["large"]: Rejected(Reason.truncated, "ends early"),
        site.ids["medium"]: Rejected(Reason.truncated, "ends early"),
    }
    assert site.finish(batch)
    rejected = ("rejected", "truncated")
    assert site.verdicts() == {"large": rejected, "medium": rejected, "small": ACCEPTED}
    assert site.shown_by("small") == "small"


def test_what_an_open_batch_brought_is_left_to_it(site):
    """Another batch waits for a picture that it did not bring."""
    first = site.send(large=picture(480))
    site.decide(first)
    second = site.send(small=picture(240))
    site.decide(second)
    site.workers.broken = {site.ids["large"]: Rejected(Reason.truncated, "ends early")}
    assert not site.finish(second)
    assert site.verdicts() == {"large": ACCEPTED, "small": ("failed", "canonical_failed")}
    assert site.finish(first)
    assert site.verdicts()["large"] == ("rejected", "truncated")
    assert site.run(second)
    assert site.verdicts()["small"] == ACCEPTED
    assert site.shown_by("small") == "small"


def test_split_gives_an_image_its_own_variants_and_rejoin_takes_them_back(site, published):
    early, late = published
    site.run(late)
    settings = site.tools.settings
    done = split(site.catalog, settings, "photos", site.ids["small"], NOW)
    assert (done.others, done.batch) == ([site.ids["large"]], early)
    assert site.verdicts() == {"small": ACCEPTED, "large": ACCEPTED}
    assert site.shown_by("small") == "large", "until its batch has run"
    assert site.state(early) == "retry"
    assert site.look() == [(early, 2)], "the sensor asks for it under a new number"
    assert site.run(early)
    assert (site.shown_by("small"), site.shown_by("large")) == ("small", "large")
    assert site.manifest("large")["aliases"] == []
    for batch in (early, late):
        assert site.run(batch), "a re-run respects it"
    assert site.verdicts() == {"small": ACCEPTED, "large": ACCEPTED}

    done = rejoin(site.catalog, settings, "photos", site.ids["small"], NOW)
    assert done.others == [site.ids["large"]]
    assert site.verdicts()["small"] == PICTURE
    assert site.look() == [(early, 3)]
    assert site.run(early)
    assert (site.shown_by("small"), site.shown_by("large")) == ("large", "large")


def test_splitting_a_canonical_lets_the_others_find_a_new_one(site):
    batch = site.send(large=picture(480), medium=picture(360), small=picture(240))
    site.run(batch)
    split(site.catalog, site.tools.settings, "photos", site.ids["large"], NOW)
    assert site.verdicts() == {"large": ACCEPTED, "medium": ACCEPTED, "small": PICTURE}
    assert site.run(batch)
    assert [site.shown_by(name) for name in ("large", "medium", "small")] == [
        "large", "medium", "medium",
    ]  # fmt: skip


def test_a_batch_that_runs_while_people_split_its_image_is_not_done_with_it(site):
    batch = site.send(large=picture(480), small=picture(240))
    site.decide(batch)
    render_batch(site.tools, batch)
    published = publish_batch(site.tools, batch)
    split(site.catalog, site.tools.settings, "photos", site.ids["small"], NOW)
    assert not finish_batch(site.tools, batch, published)
    assert site.state(batch) != "done"
    assert site.run(batch)
    assert site.shown_by("small") == "small"


def test_attempts_are_counted_anew_after_a_split(site, published):
    early, late = published
    site.run(late)
    with site.catalog.write() as connection:
        connection.execute(sa.update(schema.batches).values(attempt=9))
    split(site.catalog, site.tools.settings, "photos", site.ids["small"], NOW)
    assert site.look() == [(early, 10)], "although four are the most"


def test_what_cannot_be_split_says_so(site, published):
    _, late = published
    site.run(late)
    settings, catalog = site.tools.settings, site.catalog
    copy = site.send(copy=picture(480), alone=picture(300, seed=4))
    site.run(copy)
    with pytest.raises(SeparationError, match=f"very bytes.*{site.ids['large']}"):
        find_image(catalog, settings, "copy.png", None)
    with pytest.raises(SeparationError, match="stands alone"):
        split(catalog, settings, "photos", site.ids["alone"], NOW)
    with pytest.raises(SeparationError, match="never split"):
        rejoin(catalog, settings, "photos", site.ids["small"], NOW)
    with pytest.raises(SeparationError, match="in no group of source 'photos'"):
        split(catalog, settings, "photos", "0" * 64, NOW)
    for nobody in ("nobody.png", site.ids["small"][:7], "%"):
        with pytest.raises(SeparationError, match="neither the key"):
            find_image(catalog, settings, nobody, None)
    small = ("photos", site.ids["small"])
    for name in ("small.png", "uploads/photos/small.png", small[1], small[1][:8]):
        assert find_image(catalog, settings, name, None) == small


def test_one_name_in_two_sources_must_be_told_apart(either_catalog, tmp_path):
    sources = {name: Source(prefix=f"uploads/{name}/") for name in ("photos", "products")}
    tools = make_tools(either_catalog, tmp_path, sources=sources)
    add_images(either_catalog, image_row("ab" * 32))
    for source in sources:
        batch = add_batch(either_catalog, ("a.jpg", "accepted", None, "ab" * 32), source=source)
        deduplicate_batch(tools, batch)
    with pytest.raises(SeparationError, match=r"several images.*--source"):
        find_image(either_catalog, tools.settings, "a.jpg", None)
    found = find_image(either_catalog, tools.settings, "a.jpg", "products")
    assert found == ("products", "ab" * 32)


def test_a_broken_catalog_is_seen_by_the_checks(site, published):
    _, late = published
    site.run(late)
    large, small = site.ids["large"], site.ids["small"]
    with site.catalog.write() as connection:
        (row,) = images.members_of(connection, "photos", [large]).values()
        damaged = [type(row)("photos", large, small, "picture", 1, row.upload_id, late, row.number)]
        groups.change_members(connection, damaged)
    found = verify_groups(site.tools, late)
    assert set(found.fallen) == {(large, small), (small, large)}
    with site.catalog.write() as connection:
        groups.change_members(connection, [row])
        table = schema.variants
        connection.execute(sa.delete(table).where(table.c.image_id == large))
    found = verify_groups(site.tools, late)
    assert (found.fallen, found.unserved) == ([], [small])
    with site.catalog.write() as connection:
        groups.drop_member(connection, "photos", large)
    assert verify_groups(site.tools, late).fallen == [(small, large)]


def test_dropped_variants_are_rows_without_objects_and_nobody_names_them(site, monkeypatch):
    """Whatever rendering drops; here the large WebP."""
    from dataclasses import replace

    from image_pipeline.stages import rendering

    made = rendering.render

    def render(data, recipe, limits, roles=None):
        return [
            replace(one, data=b"", dropped=True) if one.plan.size == "large" else one
            for one in made(data, recipe, limits, roles)
        ]

    monkeypatch.setattr(rendering, "render", render)
    batch = site.send(large=picture(480))
    assert site.run(batch), "complete although a file is missing"
    named = {entry["size"] for entry in site.manifest("large")["variants"]}
    assert named == {"thumb", "small"}
    keys = {one.key for one in site.bucket.list("variants/")}
    assert len(keys) == 2
    warm = json.loads(site.bucket.get(layout.warm_list_key(batch)))["urls"]
    assert len(warm) == 2
    found = verify_variants(site.tools, batch, "responsive")
    assert (found.variants, found.missing, found.misserved) == (1, [], [])
    worked = list(site.workers.worked)
    assert site.run(batch)
    assert site.workers.worked == worked, "it is not tried again"


def test_a_kept_copyright_is_no_metadata_that_was_forgotten(site):
    batch = site.send(large=picture(480))
    site.run(batch)
    table = schema.variants
    kept = site.tools.settings.recipes["web"].model_copy(update={"keep_copyright": True})
    with site.catalog.write() as connection:
        connection.execute(sa.update(table).values(metadata=["copyright"]))
    assert len(verify_variants(site.tools, batch, "thumbnail").with_metadata) == 1
    site.tools.settings.recipes["web"] = kept
    render_batch(site.tools, batch)
    for found, wrong in ((["copyright"], 0), (["copyright", "exif"], 1), (["exif"], 1), ([], 0)):
        with site.catalog.write() as connection:
            connection.execute(sa.update(table).values(metadata=found))
        assert len(verify_variants(site.tools, batch, "thumbnail").with_metadata) == wrong
