"""Projects of a test's own, and one per module where many tests look at one result."""

import pytest

from .project import open_project


@pytest.fixture
def project(s3, tmp_path):
    """An empty project for one test."""
    with open_project(s3, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared_project(s3, tmp_path_factory):
    """A project for all tests of a module."""
    with open_project(s3, tmp_path_factory.mktemp("project")) as made:
        yield made
