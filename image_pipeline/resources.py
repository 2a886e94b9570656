"""The one resource of the assets and sensors, and the IO manager of their tables."""

import io
import logging
import math
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache, partial

import dagster as dg
import pandas as pd
import sqlalchemy as sa
from pydantic import PrivateAttr
from sqlalchemy.exc import SQLAlchemyError

from image_pipeline.catalog import batches
from image_pipeline.catalog.engine import Catalog
from image_pipeline.settings import BucketSettings, Settings, load_settings
from image_pipeline.stages.tools import Tools, utc_now
from image_pipeline.store.bucket import Bucket, ObjectGoneError
from image_pipeline.store.layout import table_key

_log = logging.getLogger(__name__)


@lru_cache(maxsize=8)
def open_bucket(settings: BucketSettings) -> Bucket:
    """One client per process and bucket: making one costs 0.2 s."""
    return Bucket(settings)


@lru_cache(maxsize=8)
def open_catalog(url: str, slow_seconds: float = math.inf) -> Catalog:
    """One engine per process and catalog."""
    return Catalog(url, slow_seconds)


class Lease:
    """A run's hold on its batch, renewed by a thread until it ends.

    A run that is killed stops renewing; after ``seconds`` a sensor asks for the batch again.
    """

    def __init__(self, catalog: Catalog, batch: str, owner: str, seconds: float) -> None:
        self.catalog = catalog
        self.batch = batch
        self.owner = owner
        self.seconds = seconds
        self._ended = threading.Event()
        self._renew()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def end(self, retry_seconds: float) -> None:
        """Stop renewing; an unfinished batch becomes due after its backoff."""
        self._ended.set()
        self._thread.join()
        self.catalog.transact(partial(self._release, retry_seconds))

    def _release(self, retry_seconds: float, connection: sa.Connection) -> None:
        batch = batches.get(connection, self.batch)
        if batch is not None:
            due_at = batches.retry_at(utc_now(), batch.attempt, retry_seconds)
            batches.release(connection, self.batch, self.owner, due_at)

    def _keep(self) -> None:
        while not self._ended.wait(self.seconds / 3):
            try:
                self._renew()
            except SQLAlchemyError as error:
                # The catalog may be away for a moment; the lease outlives two missed renewals.
                _log.warning("the hold on batch %s was not renewed: %s", self.batch, error)

    def _renew(self) -> None:
        self.catalog.transact(self._hold)

    def _hold(self, connection: sa.Connection) -> None:
        until = utc_now() + timedelta(seconds=self.seconds)
        batches.hold(connection, self.batch, self.owner, until)


class PipelineResource(dg.ConfigurableResource[Tools]):
    """Bucket, catalog and worker processes, as ``pipeline.yaml`` and the environment say."""

    config: str | None = None

    _settings: Settings | None = PrivateAttr(default=None)
    _tools: Tools | None = PrivateAttr(default=None)
    _lease: Lease | None = PrivateAttr(default=None)
    _context: dg.AssetExecutionContext | None = PrivateAttr(default=None)

    @property
    def settings(self) -> Settings:
        """The settings, read on first use."""
        if self._settings is None:
            self._settings = load_settings(self.config)
        return self._settings

    @property
    def bucket(self) -> Bucket:
        """The bucket."""
        return open_bucket(self.settings.bucket)

    @property
    def catalog(self) -> Catalog:
        """The catalog."""
        rules = self.settings.performance
        slow = rules.slow_query_milliseconds / 1000 if rules.enabled else math.inf
        return open_catalog(self.settings.catalog.url, slow)

    def tools(self, context: dg.AssetExecutionContext) -> Tools:
        """What a stage works with; also takes, and keeps renewing, the hold on its batch."""
        self._context = context
        if self._lease is None:
            seconds = self.settings.batches.lease_seconds
            self._lease = Lease(self.catalog, context.partition_key, context.run.run_id, seconds)
        if self._tools is None:
            self._tools = self._new_tools()
            self._tools.workers.start()
        return self._tools

    def light_tools(self, context: dg.AssetExecutionContext) -> Tools:
        """Tools for what needs neither worker processes nor a hold on a batch."""
        self._context = context
        return self._tools or self._new_tools()

    def _new_tools(self) -> Tools:
        return Tools.open(self.settings, self.bucket, self.catalog, _progress(self._log))

    def _log(self, text: str) -> None:
        """Log as the asset that is at work now."""
        if self._context is not None:
            self._context.log.info(text)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the worker processes and give the batch back if it was not finished."""
        if self._tools is not None:
            self._tools.workers.close()
            self._tools.spool.clear()
        if self._lease is not None:
            self._lease.end(self.settings.batches.retry_seconds)


class ParquetTables(dg.ConfigurableIOManager):
    """Tables of assets as Parquet in the bucket, one object per asset and partition."""

    config: str | None = None

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        """Write the table and record where it is, how many rows it has, and its columns."""
        key = self._key(context)
        data = io.BytesIO()
        obj.to_parquet(data, index=False)
        self._bucket.put(key, data.getvalue(), "application/vnd.apache.parquet")
        columns = [dg.TableColumn(str(name), str(kind)) for name, kind in obj.dtypes.items()]
        context.add_output_metadata(
            {
                "dagster/row_count": len(obj),
                "dagster/uri": f"s3://{self._bucket.name}/{key}",
                "dagster/column_schema": dg.TableSchema(columns),
            }
        )

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Read a table. Says what to materialize where it was never written."""
        key = self._key(context)
        try:
            data = self._bucket.get(key)
        except ObjectGoneError:
            name = context.asset_key.to_user_string()
            raise dg.Failure(f"{key} is not in the bucket: materialize {name} first") from None
        return pd.read_parquet(io.BytesIO(data))

    @property
    def _bucket(self) -> Bucket:
        return open_bucket(load_settings(self.config).bucket)

    def _key(self, context: dg.InputContext | dg.OutputContext) -> str:
        partition = context.asset_partition_key if context.has_asset_partitions else None
        return table_key(context.asset_key.to_python_identifier(), partition)


def _progress(log: Callable[[str], None]) -> Callable[[str, int, int], None]:
    """Log every tenth of a stage: enough to see it move, little enough to read."""
    last: dict[str, int] = {}

    def progress(stage: str, done: int, total: int) -> None:
        tenth = done * 10 // max(total, 1)
        if last.get(stage) != tenth:
            last[stage] = tenth
            log(f"{stage} {done} of {total}")

    return progress
