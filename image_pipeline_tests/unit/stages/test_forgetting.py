"""A person's request: nothing of the upload is left anywhere, nothing of anybody else's goes."""

import gzip
import io
import json

import pandas as pd
import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches, images
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.schema import metadata, near, separations, sightings, sketches, uploads
from image_pipeline.maintenance.plans import Entry, Plan, read_entries, read_plan, write_plan
from image_pipeline.stages import forgetting
from image_pipeline.stages.forgetting import ForgetError, forget
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.store import layout
from image_pipeline_tests.fake_bucket import FakeBucket

from .helpers import NOW, add_batch, add_images, image_row, make_tools
from .test_publishing import ALIAS, CANONICAL, OTHER, manifest, render

KEY, NEIGHBOUR = "uploads/photos/me & you.jpg", "uploads/photos/me & you.jpg.png"


#: For what a real store must be asked; in memory it is faster.
ON_A_SERVER = pytest.mark.parametrize("tools", ["server"], indirect=True)


@pytest.fixture
def tools(request, catalog, tmp_path):
    is_real = getattr(request, "param", "") == "server"
    bucket = request.getfixturevalue("bucket") if is_real else FakeBucket(lambda: NOW)
    add_images(catalog, *(image_row(one, phash=n << 40) for n, one in enumerate(
        (CANONICAL, ALIAS, OTHER), 1
    )))  # fmt: skip
    return make_tools(catalog, tmp_path, bucket)


def member(tools, image, canonical, tier=None, upload=1, batch=""):
    with tools.catalog.write() as connection:
        images.add_members(connection, [Member("photos", image, canonical, tier, 0, upload, batch)])


def process(tools, batch, *canonicals):
    """What a run of a batch does, but for the pixels."""
    for image in canonicals:
        render(tools, image)
    published = publish_batch(tools, batch)
    assert finish_batch(tools, batch, published)


def put_originals(tools, *keys):
    for key in keys:
        tools.bucket.put(key, key.encode(), "image/jpeg")


def everything(bucket):
    """Every object's key and bytes, as text where that is what they are."""
    found = {}
    for one in bucket.list(""):
        data = bucket.get(one.key)
        if data.startswith(b"PAR1"):
            data = str(pd.read_parquet(io.BytesIO(data)).values.tolist()).encode()
        elif data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        found[one.key] = data
    return found


def mentions(tools, *names):
    """Objects and tables in which one of these names is to be found, in any spelling."""
    spelled = {name for one in names for name in (
        one, one.replace(" ", "%20").replace("&", "%26"), one.replace("&", "&amp;"),
        one.replace("/", "\\/"), one.replace("&", "\\u0026"),
    )}  # fmt: skip
    found = {
        key
        for key, data in everything(tools.bucket).items()
        if any(name in key or name.encode() in data.replace(NEIGHBOUR.encode(), b"")
               .replace(NEIGHBOUR.replace("/", "\\/").encode(), b"")
               .replace(NEIGHBOUR.replace("&", "&amp;").encode(), b"")
               for name in spelled if key != NEIGHBOUR)
    }  # fmt: skip
    with tools.catalog.read() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                text = " ".join(map(str, row)).replace(NEIGHBOUR, "")
                found |= {table.name} if any(name in text for name in names) else set()
    return found


def plan_of(tools, *keys):
    plan = Plan("orphans-20260101-000000-abcdef", "orphans", NOW, "i", "", 0, 0, 0.0, False,
                "applied")  # fmt: skip
    entries = [
        Entry(key, "e", 1, NOW, "STANDARD", "unknown_variant", NOW, NOW, {"image_id": OTHER})
        for key in keys
    ]
    return write_plan(tools.bucket, tools.catalog, plan, entries)


@pytest.fixture
def published(tools):
    """A picture to be forgotten, somebody else's beside it, and every trace they leave."""
    batch = add_batch(
        tools.catalog,
        ("me & you.jpg", "accepted", None, CANONICAL),
        ("me & you.jpg.png", "accepted", None, OTHER),
    )
    member(tools, CANONICAL, CANONICAL, upload=1, batch=batch)
    member(tools, OTHER, OTHER, upload=2, batch=batch)
    put_originals(tools, KEY, NEIGHBOUR)
    process(tools, batch, CANONICAL, OTHER)
    with tools.catalog.write() as connection:
        insert = connection.execute
        insert(sa.insert(sketches).values(image_id=CANONICAL, luma=b"x"))
        insert(sa.insert(near).values(
            source="photos", image_id=OTHER, canonical_id=CANONICAL, found_by="phash64",
            transform="mirror", distance=1, score=0.9, created_at=NOW,
        ))  # fmt: skip
        insert(sa.insert(separations).values(
            source="photos", one_id=CANONICAL, other_id=OTHER, created_at=NOW
        ))  # fmt: skip
        insert(sa.insert(sightings).values(
            key=KEY, etag="e", size=1, reason="unknown_upload", last_modified=NOW, first_at=NOW,
            last_at=NOW, inventory_id="i",
        ))  # fmt: skip
    table = io.BytesIO()
    pd.DataFrame({"key": [KEY, NEIGHBOUR, None], "n": [1, 2, 3]}).to_parquet(table, index=False)
    bucket = tools.bucket
    bucket.put(layout.table_key("raw_uploads", batch), table.getvalue(), "application/parquet")
    listed = {"batch": batch, "uploads": [{"key": KEY}, {"key": NEIGHBOUR}]}
    bucket.put(layout.batch_key(batch), json.dumps(listed).encode(), "application/json")
    rows = {"rows": {"images": [{"id": CANONICAL}, {"id": OTHER}]}}
    bucket.put(layout.ledger_key(batch), gzip.compress(json.dumps(rows).encode()), "a/gzip")
    old = layout.variant_key(CANONICAL, "small", 3, 2, "aa", "webp")
    other = layout.variant_key(OTHER, "small", 3, 2, "aa", "webp")
    plan = plan_of(tools, old, other)
    for key in (old, other, KEY):
        bucket.put(layout.trash_key(plan.id, key), key.encode(), "image/webp")
    return batch


def check_forgotten(tools, batch, report):
    assert (report.complete, report.pending, report.remains) == (True, [], [])
    assert mentions(tools, KEY, CANONICAL) == set()
    bucket = tools.bucket
    assert bucket.head(KEY) is None
    assert bucket.get(NEIGHBOUR) == NEIGHBOUR.encode()
    # Everybody else is served as before.
    assert all(bucket.head(variant["key"]) for variant in manifest(tools, OTHER)["variants"])
    assert json.loads(bucket.get(layout.batch_key(batch)))["uploads"] == [{"key": NEIGHBOUR}]
    table = pd.read_parquet(io.BytesIO(bucket.get(layout.table_key("raw_uploads", batch))))
    assert table["n"].tolist() == [2, 3]
    rows = json.loads(gzip.decompress(bucket.get(layout.ledger_key(batch))))
    assert rows == {"rows": {"images": [{"id": OTHER}]}}
    (entries,) = read_entries(bucket, read_plan(tools.catalog, "orphans-20260101-000000-abcdef"))
    assert [OTHER in entry.key for entry in entries] == [True]
    index = json.loads(bucket.get(layout.index_key("photos")))
    assert index["totals"]["images"] == 1
    assert len(list(bucket.list("indexes/"))) == 2
    assert [one.key for one in bucket.list("trash/")] == [
        layout.trash_key("orphans-20260101-000000-abcdef", entries[0].key)
    ]


@ON_A_SERVER
def test_nothing_is_left_of_an_upload_that_nobody_shares(tools, published):
    variants = {one["key"] for one in manifest(tools, CANONICAL)["variants"]}
    assert mentions(tools, KEY, CANONICAL) >= {
        KEY, "uploads", "images", "near", "separations", "sketches", "sightings", "variants",
        "members", "publications", layout.batch_manifest_key(published),
        layout.gallery_key(published),
    }  # fmt: skip
    report = forget(tools, KEY)
    check_forgotten(tools, published, report)
    assert {KEY, *variants, layout.image_manifest_key("photos", CANONICAL)} <= set(report.removed)
    assert {tools.bucket.url + "/" + key for key in variants} <= set(report.urls)
    assert report.looked_at["tables/"] == 1
    with pytest.raises(ForgetError, match="no upload"):
        forget(tools, KEY)


@ON_A_SERVER
def test_of_a_versioned_bucket_no_version_is_left(tools, published):
    bucket = tools.bucket
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    bucket.put(KEY, b"again", "image/jpeg")
    key = next(one.key for one in bucket.list(f"variants/{CANONICAL}/"))
    bucket.put(key, b"again", "image/webp")
    bucket.delete([key])
    check_forgotten(tools, published, forget(tools, KEY))
    kept = [one.key for one in bucket.versions("")]
    assert not [key for key in kept if CANONICAL in key or key == KEY]


@ON_A_SERVER
def test_a_document_of_others_is_never_away(tools, published, monkeypatch):
    """On a versioned bucket an erased ledger is gone for good, should the call be killed then."""

    class Killed(BaseException):
        pass

    bucket, put = tools.bucket, tools.bucket.put
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    manifest_of_batch = layout.batch_manifest_key(published)

    def killed(key, *arguments, **options):
        if key == manifest_of_batch:
            raise Killed
        return put(key, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "put", killed)
        with pytest.raises(Killed):
            forget(tools, KEY)
    assert bucket.head(manifest_of_batch) is not None
    check_forgotten(tools, published, forget(tools, KEY))
    assert NEIGHBOUR in bucket.get(manifest_of_batch).decode()
    assert len(list(bucket.versions(manifest_of_batch))) == 1


STEPS = ["_unpublish", "_is_waited_for", "_remove_pixels", "_rewrite", "_end", "_erase",
         "_update_index", "_rewrite_plan"]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_killed_anywhere_another_call_finishes_it(tools, published, monkeypatch, step, after):
    class Killed(BaseException):
        pass

    real = getattr(forgetting._Forgetting, step)

    def killed(self, *arguments):
        if after:
            real(self, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(forgetting._Forgetting, step, killed)
        with pytest.raises(Killed):
            forget(tools, KEY)
    if (step, after) == ("_end", True):
        # Only the proof was missing.
        assert mentions(tools, KEY, CANONICAL) == set()
        return
    check_forgotten(tools, published, forget(tools, KEY))


def test_the_same_bytes_by_another_name_stay(tools):
    batch = add_batch(
        tools.catalog,
        ("me & you.jpg", "accepted", None, CANONICAL),
        ("b.jpg", "duplicate", "bytes", CANONICAL),
    )
    member(tools, CANONICAL, CANONICAL, upload=1, batch=batch)
    put_originals(tools, KEY, "uploads/photos/b.jpg")
    process(tools, batch, CANONICAL)
    served = manifest(tools, CANONICAL)
    first = forget(tools, KEY)
    assert not first.complete
    assert batch in first.pending[0]
    assert first.kept == [
        f"image {CANONICAL}: uploads/photos/b.jpg of source photos has the same bytes, so its"
        " files and hashes stay"
    ]
    assert tools.bucket.head(KEY) is None
    assert manifest(tools, CANONICAL) == served
    process(tools, batch)
    assert forget(tools, KEY).complete
    assert mentions(tools, KEY) == set()
    now = manifest(tools, CANONICAL)
    assert now["uploads"] == ["uploads/photos/b.jpg"]
    assert all(tools.bucket.head(one["key"]) for one in now["variants"])
    with tools.catalog.read() as connection:
        (row,) = connection.execute(sa.select(uploads.c.verdict, uploads.c.reason))
    assert tuple(row) == ("accepted", None)


def test_who_was_shown_by_the_picture_is_served_until_shown_by_another(tools):
    mine = add_batch(tools.catalog, ("me & you.jpg", "accepted", None, CANONICAL))
    theirs = add_batch(tools.catalog, ("b.jpg", "duplicate", "picture", ALIAS))
    member(tools, CANONICAL, CANONICAL, upload=1, batch=mine)
    member(tools, ALIAS, CANONICAL, "picture", upload=2, batch=theirs)
    put_originals(tools, KEY, "uploads/photos/b.jpg")
    process(tools, mine, CANONICAL)
    process(tools, theirs)
    old = manifest(tools, ALIAS)
    assert old["canonical"] == CANONICAL
    first = forget(tools, KEY)
    assert not first.complete
    assert any(ALIAS in line for line in first.pending)
    assert any(theirs in line for line in first.pending)
    # The request is honoured as far as it can be; what others show is still there.
    assert tools.bucket.head(KEY) is None
    assert manifest(tools, CANONICAL) is None
    assert all(tools.bucket.head(one["key"]) for one in old["variants"])
    with tools.catalog.read() as connection:
        assert batches.get(connection, theirs).state == "retry"
    # Asked again too early, it changes nothing.
    assert forget(tools, KEY).pending == first.pending
    process(tools, theirs, ALIAS)
    now = manifest(tools, ALIAS)
    assert (now["canonical"], now["aliases"], now["uploads"]) == (
        ALIAS, [], ["uploads/photos/b.jpg"],
    )  # fmt: skip
    assert forget(tools, KEY).complete
    assert mentions(tools, KEY, CANONICAL) == set()
    assert all(tools.bucket.head(one["key"]) for one in now["variants"])


def test_an_alias_goes_and_the_picture_that_stood_for_it_stays(tools):
    theirs = add_batch(tools.catalog, ("b.jpg", "accepted", None, OTHER))
    mine = add_batch(tools.catalog, ("me & you.jpg", "duplicate", "picture", CANONICAL))
    member(tools, OTHER, OTHER, upload=1, batch=theirs)
    member(tools, CANONICAL, OTHER, "picture", upload=2, batch=mine)
    put_originals(tools, KEY, "uploads/photos/b.jpg")
    process(tools, theirs, OTHER)
    process(tools, mine)
    assert manifest(tools, OTHER)["aliases"] == [CANONICAL]
    assert not forget(tools, KEY).complete
    process(tools, theirs)
    assert forget(tools, KEY).complete
    assert mentions(tools, KEY, CANONICAL) == set()
    assert manifest(tools, OTHER)["aliases"] == []


def test_what_cannot_be_forgotten_now_says_why(tools):
    with pytest.raises(ForgetError, match="no upload 'nobody"):
        forget(tools, "nobody.jpg")
    batch = add_batch(tools.catalog, ("me & you.jpg", None, None, None))
    put_originals(tools, KEY)
    with pytest.raises(ForgetError, match=f"batch {batch} is at work"):
        forget(tools, KEY)
    assert tools.bucket.head(KEY) is not None
