"""One process that looks for new uploads, and says what that took.

``python -m benchmarks.look CONFIG`` is this pipeline's sensor tick, again and again until
the whole prefix was seen; ``python -m benchmarks.look CONFIG SINCE`` is dagster_aws's helper
for S3 sensors. Prints a :class:`Look` as JSON. Light, because its memory is measured.
"""

# ruff: noqa: PLC0415 - each way loads only what it needs: its memory is measured

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from image_pipeline.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Look:
    """What one look took: seconds of every tick, keys found, resident bytes at the peak.

    ``idle`` are the resident bytes before the first page, when everything is imported.
    """

    ticks: list[float]
    found: int
    idle: int
    peak: int


def sweep(settings: Settings) -> Look:
    """Sensor ticks until the whole prefix of the first source was seen once."""
    from image_pipeline.catalog.engine import Catalog
    from image_pipeline.stages.batching import look_at_source
    from image_pipeline.store.bucket import Bucket

    source = next(iter(settings.sources))
    bucket, catalog = Bucket(settings.bucket), Catalog(settings.catalog.url)
    bucket.client.list_buckets  # noqa: B018 - made on first use, which is not the listing's cost
    catalog.migrate()
    idle = resident_bytes()
    after, found = "", 0
    ticks: list[float] = []
    while after or not ticks:
        started = time.perf_counter()
        look = look_at_source(settings, bucket, catalog, source, after, lambda batches: {})
        ticks.append(time.perf_counter() - started)
        after = look.sweep.after
        found += look.sweep.found
    catalog.close()
    return Look(ticks, found, idle, peak_bytes())


def get_objects(settings: Settings, since: datetime) -> Look:
    """The same question put to dagster_aws: what was written after ``since``."""
    import boto3
    from dagster_aws.s3.sensor import get_objects as ask

    from image_pipeline.store.bucket import Bucket

    prefix = next(iter(settings.sources.values())).prefix
    # A client as users of that helper make it: ours may have been tuned for listings.
    url = Bucket(settings.bucket).endpoint_url
    client = boto3.client("s3", endpoint_url=url, region_name=settings.bucket.region)
    idle = resident_bytes()
    started = time.perf_counter()
    found = ask(settings.bucket.name, prefix, since_last_modified=since, client=client)
    return Look([time.perf_counter() - started], len(found), idle, peak_bytes())


def resident_bytes() -> int:
    """Resident bytes of this process now; 0 where ``/proc`` is missing."""
    return _status("VmRSS") or 0


def peak_bytes() -> int:
    """The most resident bytes this process ever had.

    Not from getrusage where it can be helped: on Linux that also counts what the process was
    before it became this program.
    """
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def main() -> None:
    config, *since = sys.argv[1:]
    settings = load_settings(config)
    look = get_objects(settings, datetime.fromisoformat(since[0])) if since else sweep(settings)
    print(json.dumps(asdict(look)))


if __name__ == "__main__":
    main()
