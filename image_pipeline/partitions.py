"""The batch partitions: every ingest asset has one partition per batch, never per image.

Keys are the batch ids of the catalog, ``<source>-<UTC time>-<random>``; object keys never
become partition keys (Dagster's range syntax and URLs give characters in them a meaning).
"""

from __future__ import annotations

import dagster as dg

BATCHES = dg.DynamicPartitionsDefinition(name="batches")

#: The tag by which Dagster says which partition a run is of.
PARTITION_TAG = "dagster/partition"
