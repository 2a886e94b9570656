"""Readers who look all the time while batches are published, and never miss a thing.

Every document that is put stays as it is until each reader has gone through everything once
more: so there is no moment between two of them that nobody has seen.
"""

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3
from jsonschema import Draft202012Validator

from image_pipeline.delivery import index as delivery_index
from image_pipeline.samples import photograph
from image_pipeline.stages.publishing import publish_batch
from image_pipeline.store import layout
from image_pipeline_tests.unit.stages.helpers import RECIPE
from image_pipeline_tests.unit.stages.test_regrouping import Site

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"

#: What documents are, by how their keys begin; the longest beginning counts.
KINDS = {
    "manifests/photos/": "image-manifest",
    "manifests/batches/": "batch-manifest",
    "manifests/deltas/": "delta",
    "manifests/warm/": "warm-list",
    "indexes/photos/": "index-page",
    "indexes/photos/index.json": "source-index",
}
CHECKS = {
    kind: Draft202012Validator(json.loads((SCHEMAS / f"{kind}.schema.json").read_text()))
    for kind in KINDS.values()
}


class Reader(threading.Thread):
    """A front end that has nothing but the bucket's address, and follows every link there is."""

    def __init__(self, watch):
        super().__init__(daemon=True)
        self.watch = watch
        self.web = urllib3.PoolManager(1, retries=False)

    def run(self):
        while not self.watch.is_over:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - shown by the test itself
                self.watch.fail(error)
                return
            self.watch.has_looked(self)

    def look(self):
        """Everything that a document names, from the index and from what lies in the bucket."""
        for key in self.listed("manifests/"):
            self.follow(key)
        self.index()

    def listed(self, prefix):
        bucket = self.watch.bucket
        answer = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=prefix)
        return [one["Key"] for one in answer.get("Contents", ())]

    def get(self, url, *, may_be_missing=False):
        answer = self.web.request("GET", url)
        if answer.status == 404 and may_be_missing:
            return None
        assert answer.status == 200, f"{answer.status}: {url}"
        return answer.data

    def document(self, key, *, may_be_missing=False):
        data = self.get(f"{self.watch.bucket.url}/{key}", may_be_missing=may_be_missing)
        if data is None:
            return None
        found = json.loads(data)
        if data not in self.watch.valid:
            kind = KINDS[max((one for one in KINDS if key.startswith(one)), key=len)]
            CHECKS[kind].validate(found)
            self.watch.valid.add(data)
        return found

    def fixed(self, url, sha256=None):
        """Something that never changes."""
        digest = hashlib.sha256(self.get(url)).hexdigest()
        assert sha256 in (None, digest), f"not what it is said to be: {url}"
        assert self.watch.seen.setdefault(url, digest) == digest, f"other bytes than before: {url}"

    def follow(self, key):
        """A document under ``manifests/`` and what it names."""
        document = self.document(key)
        if key.startswith("manifests/photos/"):
            self.image(document)
        elif key.startswith("manifests/batches/"):
            named = [one["manifest"] for one in document["images"] + document["uploads"]]
            for manifest in filter(None, named):
                self.document(manifest)
        elif key.startswith("manifests/deltas/"):
            changed = [url for one in document["replaced"] for url in one["old"] + one["new"]]
            for url in {*document["added"], *document["removed"], *changed}:
                self.fixed(url)
        else:
            for one in document["urls"]:
                self.fixed(one["url"])

    def image(self, manifest):
        for one in manifest["variants"]:
            self.fixed(one["url"], one["sha256"])
        named = {one["url"] for one in manifest["variants"]}
        candidates = [part for text in manifest["srcset"].values() for part in text.split(", ")]
        assert {part.split(" ")[0] for part in candidates} | {manifest["src"]} <= named

    def index(self):
        pointer = self.document(layout.index_key("photos"), may_be_missing=True)
        for page in pointer["pages"] if pointer else ():
            self.fixed(page["url"], page["sha256"])
            entries = self.document(page["key"])["images"]
            assert page["images"] == len(entries)
            for entry in entries:
                self.fixed(entry["thumbnail"])
                manifest = json.loads(self.get(entry["manifest"]))
                assert manifest["id"] == entry["id"]


class Watch:
    """Some readers, and a bucket whose documents wait for them."""

    def __init__(self, bucket, readers=2):
        self.bucket = bucket
        self.seen = {}
        self.valid = set()
        self.error = None
        self.is_over = False
        self.turn = threading.Condition()
        self.looks = {Reader(self): 0 for _ in range(readers)}

    def has_looked(self, reader):
        with self.turn:
            self.looks[reader] += 1
            self.turn.notify_all()

    def fail(self, error):
        with self.turn:
            self.error = self.error or error
            self.turn.notify_all()

    def wait(self):
        """Until every reader has been through everything once, from now on."""
        with self.turn:
            # A look that is under way began before; the one after it did not.
            goals = {reader: count + 2 for reader, count in self.looks.items()}
            self.turn.wait_for(
                lambda: self.error or all(self.looks[one] >= goal for one, goal in goals.items()),
                timeout=60,
            )
            self.check()

    def check(self):
        if self.error:
            raise AssertionError("a reader was let down") from self.error


@contextmanager
def watched(bucket, monkeypatch):
    """Readers at work; every document that is put waits for them."""
    watch = Watch(bucket)
    put = bucket.put

    def slow_put(key, *arguments, **options):
        done = put(key, *arguments, **options)
        if key.startswith(("manifests/", "indexes/")):
            watch.wait()
        return done

    monkeypatch.setattr(bucket, "put", slow_put)
    for reader in watch.looks:
        reader.start()
    try:
        yield watch
    finally:
        watch.is_over = True
        for reader in watch.looks:
            reader.join()
    watch.check()


@pytest.fixture
def site(catalog, tmp_path, bucket, monkeypatch):
    """A source whose index has pages of two images, so that there are several."""
    monkeypatch.setattr(delivery_index, "PAGE_IMAGES", 2)
    return Site(catalog, tmp_path, bucket)


def scene(seed, width):
    return photograph(480, 320, seed).resize((width, width * 2 // 3))


def listed(bucket):
    """(id, canonical) of every image in the index."""
    pointer = json.loads(bucket.get(layout.index_key("photos")))
    pages = [json.loads(bucket.get(page["key"])) for page in pointer["pages"]]
    return {(one["id"], one["canonical"]) for page in pages for one in page["images"]}


def test_nothing_that_is_named_is_ever_missing_and_nothing_named_changes(site, monkeypatch):
    with watched(site.bucket, monkeypatch):
        first = site.send(a=scene(1, 240), b=scene(4, 240), c=scene(7, 240))
        assert site.run(first)
        # Better pictures of two of them, and a new one, in two batches at once.
        second = site.send(a2=scene(1, 480), d=scene(9, 240))
        third = site.send(b2=scene(4, 480))
        site.decide(second)
        site.decide(third)
        at_once(lambda: site.finish(second), lambda: site.finish(third))
        ids = site.ids
        shown = {"a": "a2", "a2": "a2", "b": "b2", "b2": "b2", "c": "c", "d": "d"}
        assert listed(site.bucket) == {(ids[one], ids[by]) for one, by in shown.items()}
        # A new recipe, for all there is.
        recipes = {"web": RECIPE.model_copy(update={"background": "#000000"})}
        settings = site.tools.settings.model_copy(update={"recipes": recipes})
        site.tools = replace(site.tools, settings=settings)
        for batch in (first, second, third):
            assert site.finish(batch)
    assert {site.shown_by(one) for one in shown} == {"a2", "b2", "c", "d"}


def at_once(*calls):
    """Run them in threads of their own; each has to return something true."""
    answers = []
    threads = [threading.Thread(target=lambda one=one: answers.append(one())) for one in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * len(calls)


def test_readers_notice_what_is_missing(site, monkeypatch):
    """The test of the test: a file that goes, and a file that changes."""
    batch = site.send(a=scene(1, 240))
    assert site.run(batch)
    (key, *_) = [one["key"] for one in site.manifest("a")["variants"]]
    data = site.bucket.get(key)
    site.bucket.put(key, data + b"\0", "image/webp")
    with pytest.raises(AssertionError, match="let down") as caught, watched(
        site.bucket, monkeypatch
    ):  # fmt: skip
        publish_batch(site.tools, batch)
    assert key in str(caught.value.__cause__)
    monkeypatch.undo()
    site.bucket.client.delete_object(Bucket=site.bucket.name, Key=key)
    with pytest.raises(AssertionError, match="let down") as caught, watched(
        site.bucket, monkeypatch
    ):  # fmt: skip
        publish_batch(site.tools, batch)
    assert "404" in str(caught.value.__cause__)
