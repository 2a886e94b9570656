"""A whole project in a folder of a test's own: settings, bucket, catalog, Dagster instance."""

import io
import secrets
from contextlib import contextmanager
from datetime import timedelta

import dagster as dg
import pandas as pd
import pytest
import yaml
from PIL import Image

from image_pipeline.catalog import batches
from image_pipeline.catalog.engine import Catalog
from image_pipeline.definitions import pipeline
from image_pipeline.samples import photograph
from image_pipeline.settings import CONFIG_VARIABLE, load_settings
from image_pipeline.stages.tools import utc_now
from image_pipeline.store.bucket import Bucket

#: Far apart, so that every format is smaller than the one it falls back to and none is dropped.
WEBP = {"quality": 60, "method": 0}

#: Few and small files, in every format: what is tested here is not the encoders.
RECIPE = {
    "sizes": {
        "thumb": {"role": "thumbnail", "width": 96, "height": 96, "fit": "cover"},
        "small": {"width": 320, "height": 240},
        "large": {"width": 640, "height": 480},
        "huge": {"width": 2000, "height": 2000},
    },
    "formats": {"avif": {"speed": 10, "quality": 40}, "webp": WEBP, "jpeg": {"quality": 95}},
}


def settings_document(bucket, endpoint_url):
    return {
        "bucket": {"name": bucket, "endpoint_url": endpoint_url, "addressing": "path"},
        "sources": {
            "photos": {"prefix": "uploads/photos/"},
            "products": {"prefix": "uploads/products/"},
        },
        "recipes": {"web": RECIPE},
        "batches": {"quiet_seconds": 0, "max_attempts": 3, "retry_seconds": 0},
        "workers": {"processes": 2, "memory_megabytes": 1024},
        "performance": {"enabled": True},
    }


def jpeg(image, **options):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90, **options)
    return data.getvalue()


def photo(seed, width=450, height=300):
    return jpeg(photograph(width, height, seed))


#: Written into the EXIF block of a picture, to be looked for in what is published.
SECRET = b"planted-by-a-test"


def photo_with_gps(seed, width=900, height=600):
    exif = Image.Exif()
    exif[0x010F] = SECRET.decode()  # Make
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 36.0)})
    return jpeg(photograph(width, height, seed), exif=exif, comment=SECRET)


class Project:
    """The pipeline as a user has it, in one folder and one bucket."""

    def __init__(self, folder, instance):
        self.folder = folder
        self.instance = instance
        self.settings = load_settings()
        self.bucket = Bucket(self.settings.bucket)
        self.bucket.create_if_missing()
        self.catalog = Catalog(self.settings.catalog.url)
        self.definitions = pipeline()
        self.cursors = {}

    def upload(self, files, source="photos"):
        for name, data in files.items():
            self.bucket.put(f"uploads/{source}/{name}", data, "application/octet-stream")

    def delete(self, key):
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)

    def look(self, source="photos"):
        """One tick of a sensor, as the daemon evaluates it; what it asks for is not run."""
        sensor = self.definitions.resolve_sensor_def(f"{source}_uploads")
        with dg.build_sensor_context(
            cursor=self.cursors.get(source),
            repository_def=self.definitions.get_repository_def(),
            instance_ref=self.instance.get_ref(),
            resources=dict(self.definitions.resources),
        ) as context:
            tick = sensor.evaluate_tick(context)
        self.cursors[source] = tick.cursor
        for request in tick.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, list(request.partition_keys)
            )
        return tick

    def run(self, batch, selection=None, tags=None):
        """Run the job, or some of its assets, for one batch."""
        return self.definitions.resolve_job_def("process_batch").execute_in_process(
            instance=self.instance,
            partition_key=batch,
            tags=tags,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(name) for name in selection] if selection else None,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )

    def look_and_run(self, source="photos"):
        """Tick and run what it asks for: the one batch there is, and how its run went."""
        (request,) = self.look(source).run_requests
        return request.partition_key, self.run(request.partition_key, tags=request.tags)

    def batch(self, name):
        with self.catalog.read() as connection:
            return batches.get(connection, name)

    def expire(self, batch):
        """Let the hold on a batch, or the pause before its retry, be over."""
        with self.catalog.write() as connection:
            batches.wait(connection, batch, utc_now() - timedelta(seconds=1))

    def table(self, asset, batch):
        return pd.read_parquet(io.BytesIO(self.bucket.get(f"tables/{asset}/{batch}.parquet")))

    def objects(self, prefix):
        return {one.key: self.bucket.get(one.key) for one in self.bucket.list(prefix)}

    def close(self):
        self.catalog.close()
        self.bucket.client.close()


def metadata_of(result, asset):
    """What the newest materialization of an asset in a run says in the UI."""
    (event,) = [
        event
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    ]
    return event.materialization.metadata


def checks_of(result):
    """Asset checks of a run: (asset, check) -> passed."""
    found = {}
    for event in result.get_asset_check_evaluations():
        found[event.asset_key.to_user_string(), event.check_name] = event.passed
    return found


@contextmanager
def open_project(s3, folder):
    """A project in a folder; its settings are the ones that everything finds meanwhile."""
    config = folder / "pipeline.yaml"
    bucket = f"test-{secrets.token_hex(6)}"
    config.write_text(yaml.safe_dump(settings_document(bucket, s3.endpoint_url)))
    variables = {CONFIG_VARIABLE: str(config), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**s3.environment, **variables}.items():
            patched.setenv(name, value)
        with dg.DagsterInstance.local_temp(str(folder)) as instance:
            project = Project(folder, instance)
            yield project
            project.close()
