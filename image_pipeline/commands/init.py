"""``image-pipeline init``: what has to be there before anything else starts. Safe to repeat."""

from __future__ import annotations

import os

import click

from image_pipeline.catalog.engine import HEAD, Catalog
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket, StoreError


def run_init(settings: Settings) -> int:
    """Migrate the catalog and Dagster's storage, and see that the bucket is there."""
    catalog = Catalog(settings.catalog.url)
    try:
        catalog.migrate()
    finally:
        catalog.close()
    click.echo(f"catalog    at migration {HEAD}")
    _migrate_dagster()
    _require_bucket(Bucket(settings.bucket))
    click.echo(f"bucket     {settings.bucket.name} is there")
    return 0


def _migrate_dagster() -> None:
    """Bring the storage of the instance at DAGSTER_HOME to this version of Dagster."""
    if not os.environ.get("DAGSTER_HOME"):
        click.echo("dagster    no DAGSTER_HOME is set: left alone")
        return
    from dagster import DagsterInstance

    with DagsterInstance.get() as instance:
        instance.upgrade()
    click.echo("dagster    storage is up to date")


def _require_bucket(bucket: Bucket) -> None:
    """A bucket that is there is never touched; at an S3 server other than AWS it is made.

    At AWS buckets have owners, policies and encryption that somebody decides: none is made here.
    """
    try:
        bucket.page("", "")
    except StoreError as error:
        if bucket.endpoint_url is None or "NoSuchBucket" not in str(error):
            raise
        bucket.create_if_missing()
