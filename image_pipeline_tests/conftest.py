"""Fixtures that many tests share: a real S3 server, a bucket and a catalog of one's own."""

import secrets
from pathlib import Path

import hypothesis
import pytest

from image_pipeline.catalog.engine import Catalog
from image_pipeline.embedded import EmbeddedS3
from image_pipeline.settings import BucketSettings
from image_pipeline.store.bucket import Bucket

# The same examples in every run, and no deadline: a slow machine is no reason to fail.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A real S3 server for the tests of this process."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3, monkeypatch):
    """An empty bucket."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    made = Bucket(BucketSettings(name=f"test-{secrets.token_hex(6)}", endpoint_url=s3.endpoint_url))
    made.create_if_missing()
    yield made
    made.client.close()


@pytest.fixture
def catalog(tmp_path: Path):
    """An empty catalog on SQLite."""
    made = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield made
    made.close()
