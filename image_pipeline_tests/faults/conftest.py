"""One driver program for all tests of a process, and a project of its own for each test."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_pipeline.embedded import EmbeddedS3

from .processes import Driver, end
from .project import REPOSITORY, Project, plain_settings
from .proxy import FaultProxy

HOME = "home"


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    made = Driver()
    yield made
    made.close()


@pytest.fixture(scope="session")
def empty_folder(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty catalog and Dagster home: making them takes more than a second."""
    folder = tmp_path_factory.mktemp("empty") / "project"
    settings = plain_settings("nowhere", "http://127.0.0.1:9")
    (folder / HOME).mkdir(parents=True)
    shutil.copy(REPOSITORY / "dagster.yaml", folder / HOME)
    driver.run(Project(folder, settings, {}, HOME), "prepare")
    return folder


@pytest.fixture
def catalog_url() -> str:
    """Where the catalog of a project is, as its settings say. Tests may have another one."""
    return "sqlite:///catalog.db"


@pytest.fixture
def project(
    s3: EmbeddedS3,
    catalog_url: str,
    empty_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    """A project with an empty bucket."""
    yield from _project(s3, s3.endpoint_url, catalog_url, empty_folder, tmp_path, monkeypatch)


@pytest.fixture
def proxy(s3: EmbeddedS3) -> Iterator[FaultProxy]:
    """A way to the S3 server on which requests can be made to fail."""
    with FaultProxy(s3.endpoint_url) as made:
        yield made


@pytest.fixture
def proxied(
    s3: EmbeddedS3,
    proxy: FaultProxy,
    catalog_url: str,
    empty_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    """A project whose every request goes through the proxy."""
    url = proxy.endpoint_url
    yield from _project(s3, url, catalog_url, empty_folder, tmp_path, monkeypatch)


def _project(
    s3: EmbeddedS3,
    endpoint_url: str,
    catalog_url: str,
    empty_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "project"
    shutil.copytree(empty_folder, folder)
    settings = plain_settings(f"faults-{secrets.token_hex(6)}", endpoint_url, catalog_url)
    made = Project(folder, settings, s3.environment, HOME, s3.endpoint_url)
    made.bucket.create_if_missing()
    yield made
    end(made.processes())
    made.bucket.client.close()
    shutil.rmtree(tmp_path)
