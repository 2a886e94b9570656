"""What the catalog knows of the server with copies."""

from datetime import timedelta

import sqlalchemy as sa

from image_pipeline.catalog import mirror
from image_pipeline.catalog.mirror import Target, Wanted
from image_pipeline.catalog.schema import batches, mirrored, uploads, variants
from image_pipeline_tests.unit.maintenance.filled import Filled, image_id

from .helpers import NOW, at

HERE = "sftp://nas:22/images"
AWAY = at(1000)


def wanted(name, content="c", source="photos"):
    return Wanted(name, source, f"e{content}", 100, image_id(content))


def want(catalog, *some, target=HERE, now=NOW):
    with catalog.write() as connection:
        return mirror.want(connection, target, some, {one.key: one.key for one in some}, now)


def claim(catalog, limit=10, now=NOW, until=AWAY, **options):
    with catalog.write() as connection:
        return mirror.claim(connection, HERE, now, until, limit, **options)


def states(catalog):
    with catalog.read() as connection:
        query = sa.select(mirrored.c.key, mirrored.c.state, mirrored.c.due_at)
        return {key: (state, due) for key, state, due in connection.execute(query)}


def copied(catalog, *copies, now=NOW):
    with catalog.write() as connection:
        return mirror.record_copied(connection, HERE, copies, now)


def test_what_is_wanted_twice_is_written_once(catalog):
    assert want(catalog, wanted("a"), wanted("b")) == 2
    assert want(catalog, wanted("a"), wanted("b"), wanted("c")) == 1
    assert states(catalog) == dict.fromkeys("abc", ("waiting", NOW))
    # Another server is another matter.
    assert want(catalog, wanted("a"), target="sftp://other:22/x") == 1


def test_a_file_is_claimed_by_one(catalog):
    want(catalog, *(wanted(f"{number}") for number in range(5)))
    first, second = claim(catalog, 3), claim(catalog, 3)
    assert sorted(one.key for one in first + second) == list("01234")
    assert claim(catalog) == []
    # Whoever took them is gone.
    assert len(claim(catalog, now=AWAY, until=at(2000))) == 5


def test_a_claim_of_one_source(catalog):
    want(catalog, wanted("a"), wanted("b", source="shop"))
    assert [one.key for one in claim(catalog, source="shop")] == ["b"]
    with catalog.read() as connection:
        assert mirror.count_due(connection, HERE, NOW, "photos") == 1
        assert mirror.count_due(connection, HERE, NOW, None) == 1


def test_what_is_copied_is_due_no_more(catalog):
    want(catalog, wanted("a"))
    assert copied(catalog, *claim(catalog)) == []
    assert states(catalog) == {"a": ("mirrored", None)}
    with catalog.read() as connection:
        assert not mirror.is_anything_due(connection, HERE, AWAY)
    # Another ETag of the same bytes is nothing new; other bytes are.
    assert want(catalog, Wanted("a", "photos", "other", 100, image_id("c"))) == 0
    assert want(catalog, wanted("a", "newer")) == 1
    assert states(catalog) == {"a": ("waiting", NOW)}


def test_what_changes_while_it_is_copied_is_still_due(catalog):
    want(catalog, wanted("a"))
    (copy,) = claim(catalog)
    want(catalog, wanted("a", "newer"), now=at(5))
    copied(catalog, copy)
    assert states(catalog) == {"a": ("waiting", at(5))}
    (again,) = claim(catalog, now=at(5))
    assert (again.held, again.sha256) == (image_id("c"), image_id("newer"))


def test_what_is_forgotten_while_it_is_copied_is_told(catalog):
    want(catalog, wanted("a"))
    (copy,) = claim(catalog)
    with catalog.write() as connection:
        mirror.drop(connection, HERE, ["a"])
    assert copied(catalog, copy) == [copy]


def test_failures_are_counted_until_a_success(catalog):
    want(catalog, wanted("a"), wanted("b"))
    claim(catalog)
    for moment in (at(1), at(2)):
        with catalog.write() as connection:
            mirror.record_failed(connection, HERE, {"a": ("no room", moment)})
    with catalog.read() as connection:
        found = mirror.failing(connection, HERE, 10)
    assert found == [{"source": "photos", "key": "a", "failures": 2, "error": "no room"}]
    (copy,) = claim(catalog, now=at(2))
    assert (copy.key, copy.failures) == ("a", 2)
    copied(catalog, copy)
    with catalog.read() as connection:
        assert mirror.failing(connection, HERE, 10) == []


def test_what_leaves(catalog):
    want(catalog, wanted("there"), wanted("never"))
    copied(catalog, next(one for one in claim(catalog) if one.key == "there"))
    with catalog.write() as connection:
        # What never got there is not taken off.
        assert mirror.let_leave(connection, HERE, ["there", "never", "unknown"], at(1)) == 1
    assert states(catalog) == {"there": ("leaving", at(1))}
    # It comes back before it left.
    assert want(catalog, wanted("there"), now=at(2)) == 1
    assert states(catalog) == {"there": ("waiting", at(2))}
    with catalog.write() as connection:
        mirror.record_left(connection, HERE, ["there"])
    (copy,) = claim(catalog, now=at(2))
    assert copy.held is None
    copied(catalog, copy)
    with catalog.write() as connection:
        mirror.let_leave(connection, HERE, ["there"], at(3))
        mirror.record_left(connection, HERE, ["there"])
    assert states(catalog) == {}


def test_what_an_inventory_lacks(catalog):
    want(catalog, wanted("a"), wanted("b"), wanted("c"), wanted("d"))
    copied(catalog, *claim(catalog, 3))
    with catalog.write() as connection:
        mirror.mark_seen(connection, HERE, ["a", "x"], "i1")

    def unseen(inventory, before, after="", limit=10):
        with catalog.read() as connection:
            return mirror.unseen(connection, HERE, inventory, before, after, limit)

    assert unseen("i1", at(1)) == ["b", "c"]
    assert unseen("i1", at(1), limit=1) == ["b"]
    assert unseen("i1", at(1), after="b") == ["c"]
    # Copied after the inventory was taken: it cannot know.
    assert unseen("i1", NOW - timedelta(seconds=1)) == []
    assert unseen("i2", at(1)) == ["a", "b", "c"]


def test_batches_in_the_order_of_their_ends(catalog):
    filled = Filled(catalog)
    for name, end in (("b", 5), ("a", 5), ("c", 9), ("d", 1), ("open", None)):
        filled.batch(f"{name}-1-1-1")
        with catalog.write() as connection:
            moment = None if end is None else at(end)
            mine = batches.c.id == f"{name}-1-1-1"
            connection.execute(sa.update(batches).where(mine).values(finished_at=moment))

    def ended(since, after=None, limit=10):
        with catalog.read() as connection:
            return [name[0] for _, name in mirror.ended_batches(connection, since, after, limit)]

    assert ended(None) == ["d", "a", "b", "c"]
    assert ended(at(5)) == ["a", "b", "c"]
    assert ended(at(2), limit=1) == ["a"]
    assert ended(at(2), after=(at(5), "a-1-1-1"), limit=1) == ["b"]
    assert ended(at(2), after=(at(5), "b-1-1-1")) == ["c"]


def test_the_newest_version_of_a_key_alone(catalog):
    filled = Filled(catalog)
    old, new = filled.image("old"), filled.image("new")
    for image, batch, etag in ((old, "photos-1-1-1", "1"), (new, "photos-1-1-2", "2")):
        filled.batch(batch)
        filled.upload("a", image, etag, batch=batch)
        filled.upload(f"{etag}", image, etag, batch=batch)

    def originals(*ids, sources=("photos",)):
        with catalog.read() as connection:
            return sorted(one.key for one in mirror.originals_of(connection, ids, sources))

    assert originals("photos-1-1-1") == ["1"]
    assert originals("photos-1-1-2") == ["2", "a"]
    assert originals("photos-1-1-2", sources=("shop",)) == []
    with catalog.write() as connection:
        connection.execute(sa.update(uploads).values(verdict="rejected"))
    assert originals("photos-1-1-2") == []


def test_files_of_what_was_published(catalog):
    filled = Filled(catalog)
    image = filled.image("one")
    here = filled.variant(image, "r2", mark="2")
    filled.variant(image, "r1", mark="1")
    filled.variant(image, "r2", mark="3", dropped=True)
    filled.variant(image, "r2", mark="4", size="large")
    with catalog.write() as connection:
        large = variants.c.key.contains("large")
        connection.execute(sa.update(variants).where(large).values(size="large"))
    for source in ("photos", "shop"):
        filled.batch(f"{source}-1-1-1")
        filled.publication(image, recipe="r2", source=source, batch=f"{source}-1-1-1")
    both = ("photos-1-1-1", "shop-1-1-1")
    with catalog.read() as connection:
        (found,) = mirror.variants_of(connection, both, ("photos", "shop"), ("small",))
        none = mirror.variants_of(connection, both, ("other",), ("small",))
    # Of two sources that show it, it is the first one's.
    assert (found.key, found.source, found.etag, none) == (here, "photos", "", [])


def test_how_far_a_server_has_been_brought(catalog):
    with catalog.write() as connection:
        assert mirror.target_row(connection, HERE) == Target()
        mirror.set_target(connection, HERE, scope="s", looked_until=NOW)
        mirror.set_target(connection, HERE, inventory_id="i")
        assert mirror.target_row(connection, HERE) == Target("s", NOW, "i")
        mirror.drop_target(connection, HERE)
        assert mirror.target_row(connection, HERE) == Target()


def test_totals(catalog):
    want(catalog, wanted("a"), wanted("b"), wanted("c", source="shop"))
    copied(catalog, claim(catalog, 1)[0], now=at(3))
    with catalog.read() as connection:
        rows = mirror.totals(connection)
    assert [
        (row["source"], row["state"], row["files"], row["bytes"], row["last"]) for row in rows
    ] == [
        ("photos", "mirrored", 1, 100, at(3)),
        ("photos", "waiting", 1, 100, None),
        ("shop", "waiting", 1, 100, None),
    ]


def test_what_is_due_is_found_by_an_index(sqlite):
    for query in (
        sa.select(mirrored.c.key).where(mirror._due(HERE, NOW)).limit(1),
        sa.select(batches.c.id).where(
            batches.c.finished_at.is_not(None), batches.c.finished_at >= NOW
        ),
    ):
        with sqlite.read() as connection:
            text = str(query.compile(sqlite.engine, compile_kwargs={"literal_binds": True}))
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
        assert all("USING" in row[-1] and "INDEX" in row[-1] for row in plan), plan
