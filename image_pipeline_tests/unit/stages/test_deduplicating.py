"""Who is a duplicate of whom, upload by upload."""

from threading import Barrier, Thread

import pytest

from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.uploads import Upload
from image_pipeline.settings import DuplicatePolicy, Source
from image_pipeline.stages.deduplicating import deduplicate_batch, verdicts

from .helpers import add_batch, add_images, image_row, make_tools

ALL = DuplicatePolicy()


def upload(number, image):
    return Upload(number, "photos", f"k{number}", "e", 1, image_id=image, verdict="accepted")


def member(image, canonical, tier, first):
    return Member("photos", image, canonical, tier, 0, first)


def short(decisions):
    return {one.upload: (one.verdict, one.reason) for one in decisions}


def test_of_the_same_bytes_the_first_upload_is_accepted():
    found = verdicts([upload(1, "a"), upload(2, "a")], {"a": member("a", "a", None, 1)}, ALL)
    assert short(found) == {1: ("accepted", None), 2: ("duplicate", "bytes")}


def test_every_upload_of_an_alias_is_a_duplicate_also_the_first():
    found = verdicts([upload(1, "b"), upload(2, "b")], {"b": member("b", "a", "picture", 1)}, ALL)
    assert short(found) == {1: ("duplicate", "picture"), 2: ("duplicate", "picture")}


def test_bytes_that_an_earlier_batch_brought_are_a_duplicate():
    found = verdicts([upload(5, "a")], {"a": member("a", "a", None, 1)}, ALL)
    assert short(found) == {5: ("duplicate", "bytes")}


def test_a_source_that_shares_nothing_has_no_duplicates():
    none = DuplicatePolicy(share=())
    found = verdicts([upload(1, "a"), upload(2, "a")], {"a": member("a", "a", None, 1)}, none)
    assert short(found) == {1: ("accepted", None), 2: ("accepted", None)}


def rows_of(rows):
    return {
        row["key"].rsplit("/", 1)[-1]: (row["verdict"], row["reason"], row["canonical_id"])
        for row in rows
    }


@pytest.fixture
def three_images(catalog):
    """Large and small show one picture, two bits of pHash apart; other shows another."""
    add_images(
        catalog,
        image_row("large", width=900, height=600),
        image_row("small", phash=0x0123456789ABCDEF ^ 0b101, width=450, height=300),
        image_row("other", phash=0xFEDCBA9876543210),
    )


def test_the_large_picture_stands_for_the_small_one_whichever_came_first(
    catalog, tmp_path, three_images
):
    batch = add_batch(
        catalog,
        ("s.jpg", "accepted", None, "small"),
        ("l.jpg", "accepted", None, "large"),
        ("l2.jpg", "accepted", None, "large"),
        ("o.jpg", "accepted", None, "other"),
        ("bad.jpg", "rejected", "truncated", None),
        ("later.jpg", "failed", "storage_error", None),
    )
    rows = deduplicate_batch(make_tools(catalog, tmp_path), batch)
    assert rows_of(rows) == {
        "s.jpg": ("duplicate", "picture", "large"),
        "l.jpg": ("accepted", None, "large"),
        "l2.jpg": ("duplicate", "bytes", "large"),
        "o.jpg": ("accepted", None, "other"),
        "bad.jpg": ("rejected", "truncated", None),
        "later.jpg": ("failed", "storage_error", None),
    }
    assert [row["distance"] for row in rows] == [2, 0, 0, 0, None, None]
    assert deduplicate_batch(make_tools(catalog, tmp_path), batch) == rows, "a second look"


def test_what_an_earlier_batch_published_goes_on_standing(catalog, tmp_path, three_images):
    tools = make_tools(catalog, tmp_path)
    deduplicate_batch(tools, add_batch(catalog, ("s.jpg", "accepted", None, "small")))
    late = deduplicate_batch(tools, add_batch(catalog, ("l.jpg", "accepted", None, "large")))
    assert rows_of(late) == {"l.jpg": ("duplicate", "picture", "small")}


def test_sources_do_not_share(catalog, tmp_path, three_images):
    sources = {name: Source(prefix=f"uploads/{name}/") for name in ("photos", "products")}
    tools = make_tools(catalog, tmp_path, sources=sources)
    for source in sources:
        batch = add_batch(catalog, ("a.jpg", "accepted", None, "large"), source=source)
        assert rows_of(deduplicate_batch(tools, batch)) == {"a.jpg": ("accepted", None, "large")}


@pytest.mark.parametrize(
    ("share", "small", "copy"),
    [
        (("bytes",), ("accepted", None, "small"), ("duplicate", "bytes", "large")),
        (("picture",), ("duplicate", "picture", "large"), ("accepted", None, "large")),
        ((), ("accepted", None, "small"), ("accepted", None, "large")),
    ],
)
def test_a_source_says_which_tiers_share(catalog, tmp_path, three_images, share, small, copy):
    source = Source(prefix="uploads/photos/", duplicates=DuplicatePolicy(share=share))
    batch = add_batch(
        catalog,
        ("l.jpg", "accepted", None, "large"),
        ("copy.jpg", "accepted", None, "large"),
        ("s.jpg", "accepted", None, "small"),
    )
    tools = make_tools(catalog, tmp_path, sources={"photos": source})
    found = rows_of(deduplicate_batch(tools, batch))
    assert (found["s.jpg"], found["copy.jpg"]) == (small, copy)


def test_batches_that_bring_one_picture_at_once_do_not_both_find_it_new(
    catalog, tmp_path, three_images
):
    tools = make_tools(catalog, tmp_path)
    made = [
        add_batch(catalog, (f"{n}.jpg", "accepted", None, image))
        for n, image in enumerate(["large", "small"] * 4)
    ]
    start = Barrier(len(made))

    def work(batch):
        start.wait(10)
        deduplicate_batch(tools, batch)

    threads = [Thread(target=work, args=(batch,)) for batch in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with catalog.read() as connection:
        rows = [row for batch in made for row in catalog_uploads.report(connection, batch)]
    assert len({row["canonical_id"] for row in rows}) == 1
    assert [row["verdict"] for row in rows].count("accepted") == 1


def test_a_source_that_was_removed_says_what_to_do(catalog, tmp_path, three_images):
    batch = add_batch(catalog, ("a.jpg", "accepted", None, "large"), source="former")
    with pytest.raises(LookupError, match=r"'former'.*put it back"):
        deduplicate_batch(make_tools(catalog, tmp_path), batch)
