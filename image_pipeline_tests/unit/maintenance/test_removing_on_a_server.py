"""Plans against a real S3 server: parts, versions, faults, and a process that is killed."""

import os
import subprocess
import sys

import pytest

from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.trash import restore_plan
from image_pipeline.settings import BucketSettings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import trash_key
from image_pipeline_tests.faults.proxy import FaultProxy

from .filled import image_id, variant_key
from .planned import World

pytestmark = pytest.mark.faults


class Served(World):
    """The world with its objects on a server, whose clock is not ours to move."""

    def long_ago(self, key, data):
        self.bucket.put(key, data, "image/webp", "max-age=9")
        return key


@pytest.fixture
def world(catalog, bucket):
    return Served(catalog, bucket)


def parts(world):
    return world.bucket, world.catalog, world.settings, world.clock


def keys_of(world, prefix):
    return {one.key for one in world.bucket.list(prefix)}


def test_large_objects_move_in_parts_and_come_back_as_they_were(world):
    key = world.long_ago(variant_key(image_id("large")), os.urandom(6 * 1024 * 1024))
    world.bucket.copy_bytes, world.bucket.part_bytes = 1, 5 * 1024 * 1024
    data, before = world.bucket.get(key), world.bucket.head(key)
    plan = world.plan([key])
    assert apply_plan(*parts(world), plan).counts == {"trashed": 1}
    assert world.bucket.head(trash_key(plan, key)).etag.endswith("-2")
    assert restore_plan(*parts(world), plan).counts == {"restored": 1}
    assert world.bucket.get(key) == data
    assert world.bucket.head(key) == before
    # Its ETag is another one by now: what is put back twice is still known to be the same.
    assert keys_of(world, "trash/") == set()


def test_of_a_versioned_bucket_nothing_is_lost(world):
    world.bucket.client.put_bucket_versioning(
        Bucket=world.bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    keys = world.orphans(3)
    plan = world.plan(keys)
    assert apply_plan(*parts(world), plan).counts == {"trashed": 3}
    assert keys_of(world, "variants/") == {world.live_key}
    versions = list(world.bucket.versions("variants/"))
    assert {one.key for one in versions if one.marker} == set(keys)
    assert {one.key for one in versions if not one.marker} == {*keys, world.live_key}
    assert restore_plan(*parts(world), plan).counts == {"restored": 3}
    assert {key: world.bucket.get(key) for key in keys} == {key: key.encode() for key in keys}


def test_requests_that_fail_for_a_while_are_tried_again(world, s3):
    keys = world.orphans(5)
    plan = world.plan(keys)
    with FaultProxy(s3.endpoint_url) as proxy:
        settings = BucketSettings(
            name=world.bucket.name, endpoint_url=proxy.endpoint_url, addressing="path"
        )
        unsteady = Bucket(settings)
        proxy.trouble("HEAD", keys[0], "reset", times=1)
        proxy.trouble("PUT", trash_key(plan, keys[1]), 503, times=2)
        proxy.trouble("POST", "", 500, times=1)
        done = apply_plan(unsteady, *parts(world)[1:], plan)
        unsteady.client.close()
    assert done.counts == {"trashed": 5}
    assert len(keys_of(world, "trash/")) == 5


KILLED = """
import os, sys
from datetime import datetime
from image_pipeline.catalog.engine import Catalog
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.settings import BucketSettings, Settings
from image_pipeline.store.bucket import Bucket

class Killed(Bucket):
    def delete(self, keys, **how):
        if sys.argv[5] == "after":
            super().delete(keys, **how)
        os._exit(9)

bucket = Killed(BucketSettings(name=sys.argv[1], endpoint_url=sys.argv[2]))
now = datetime.fromisoformat(sys.argv[6])
apply_plan(bucket, Catalog(sys.argv[3]), Settings(), lambda: now, sys.argv[4])
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_that_is_killed_while_deleting(world, moment):
    keys = [*world.orphans(2), world.superseded()]
    plan = world.plan(keys)
    settings = world.bucket.settings
    command = [sys.executable, "-c", KILLED, settings.name, settings.endpoint_url,
               world.catalog.url, plan, moment, world.clock().isoformat()]  # fmt: skip
    assert subprocess.run(command, timeout=60, check=False).returncode == 9
    assert world.announced() >= set(keys)
    # Nobody gave the plan back: its time runs out.
    world.clock.advance(minutes=3)
    assert apply_plan(*parts(world), plan).counts == {"trashed": 3}
    assert keys_of(world, "variants/") == {world.live_key}
    assert keys_of(world, "trash/") == {trash_key(plan, key) for key in keys}
    assert world.announced() == set()
    assert world.variant_keys() == {world.live_key}
    assert restore_plan(*parts(world), plan).counts == {"restored": 3}
    assert len(world.variant_keys()) == 2
