"""The catalog on both databases."""

import pytest

from image_pipeline.catalog.engine import Catalog


@pytest.fixture
def catalog(either_catalog):
    """An empty catalog, once on SQLite and once on Postgres."""
    return either_catalog


@pytest.fixture
def sqlite(tmp_path):
    """An empty catalog for what is SQLite's alone."""
    made = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield made
    made.close()
