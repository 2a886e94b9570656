"""Where everything lies in the bucket.

Keys the pipeline writes are made of ids, sizes and fingerprints only (``[a-z0-9/._-]``);
nothing is ever derived from the key of an upload.
"""

from __future__ import annotations

IMMUTABLE = "public, max-age=31536000, immutable"
SHORT_LIVED = "public, max-age=60"

BATCHES = "batches/"
LEDGER = "ledger/"


def batch_key(batch: str) -> str:
    """The list of a batch's uploads, written once before the batch first runs."""
    return f"{BATCHES}{batch}.json"


def ledger_key(batch: str) -> str:
    """The rows of the catalog that a batch brought or changed: what it is rebuilt from."""
    return f"{LEDGER}{batch}.json.gz"


def separations_key(source: str) -> str:
    """What people said of duplicates of a source, for the same purpose."""
    return f"{LEDGER}separations/{source}.json.gz"


def variant_key(
    image: str, size: str, width: int, height: int, fingerprint: str, extension: str
) -> str:
    """A rendered file. The name changes with the source bytes, the recipe and the encoders."""
    return f"variants/{image}/{size}-{width}x{height}.{fingerprint}.{extension}"


def mockup_size(template: str, size: str) -> str:
    """What stands for the size in the name of a mockup's file. No size has a hyphen in its name."""
    return f"{template}-{size}"


def image_manifest_key(source: str, image: str) -> str:
    """The manifest of one image of a source."""
    return f"manifests/{source}/{image}.json"


def mockup_manifests(source: str) -> str:
    """The folder of the manifests of a source's mockups, with one folder for each template."""
    return f"manifests/{source}/mockups/"


def mockup_manifest_key(source: str, template: str, image: str) -> str:
    """The manifest of one image of a source on a template."""
    return f"{mockup_manifests(source)}{template}/{image}.json"


def batch_manifest_key(batch: str) -> str:
    """What a batch brought, upload by upload."""
    return f"manifests/batches/{batch}.json"


def warm_list_key(batch: str) -> str:
    """The URLs a cache warmer should fetch after a batch, most important first."""
    return f"manifests/warm/{batch}.json"


def delta_key(batch: str) -> str:
    """The URLs that a batch added, replaced and removed."""
    return f"manifests/deltas/{batch}.json"


def index_key(source: str) -> str:
    """The pointer to the pages that list every image of a source."""
    return f"indexes/{source}/index.json"


def index_page_key(source: str, page: int, digest: str) -> str:
    """One page of a source's index; the name changes with the contents."""
    return f"indexes/{source}/{page:06d}.{digest}.json"


def gallery_key(batch: str) -> str:
    """A page to look at what a batch brought."""
    return f"galleries/{batch}.html"


def source_gallery_key(source: str) -> str:
    """A page to look at what a source has."""
    return f"galleries/sources/{source}.html"


def plan_key(plan: str) -> str:
    """The entries of a housekeeping plan."""
    return f"plans/{plan}.parquet"


def inventory_key(inventory: str) -> str:
    """What was in the bucket at one moment, one row per object."""
    return f"plans/inventories/{inventory}.parquet"


def trash_key(plan: str, key: str) -> str:
    """Where an object lies that a plan removed."""
    return f"trash/{plan}/{key}"


def table_key(asset: str, partition: str | None) -> str:
    """The Parquet table of an asset, of one partition if it has any."""
    return f"tables/{asset}/{partition}.parquet" if partition else f"tables/{asset}.parquet"


def performance_page_key() -> str:
    """The page of the performance report. Not beside the galleries: it names uploads."""
    return "tables/performance_report.html"
