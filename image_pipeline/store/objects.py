"""What a bucket says of its objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Classes whose objects have to be restored before they can be read.
ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")


@dataclass(frozen=True, slots=True)
class Object:
    """One entry of a listing. ``etag`` without quotes, ``size`` in bytes."""

    key: str
    etag: str
    size: int
    last_modified: datetime
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class Page:
    """Up to 1,000 objects in key order, and whether more follow."""

    objects: list[Object]
    more: bool


@dataclass(frozen=True, slots=True)
class Head:
    """What a browser would be told about an object, and, outside comparisons, the rest.

    ``etag`` without quotes, ``last_modified`` in whole seconds (UTC). ``restore`` is empty,
    ``ongoing``, or ``until`` and the time (ISO, UTC) to which an archived object can be read.
    """

    size: int
    content_type: str
    cache_control: str
    etag: str = field(default="", compare=False)
    last_modified: datetime = field(default=datetime.max.replace(tzinfo=UTC), compare=False)
    storage_class: str = field(default="STANDARD", compare=False)
    restore: str = field(default="", compare=False)
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)
    content_encoding: str = field(default="", compare=False)
    content_disposition: str = field(default="", compare=False)
    content_language: str = field(default="", compare=False)
    expires: str = field(default="", compare=False)

    @property
    def archived(self) -> bool:
        """Whether it has to be restored before it can be read."""
        return self.storage_class in ARCHIVED and not self.restore.startswith("until")


def parse_restore(header: str) -> str:
    """``ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`` as ours."""
    if 'ongoing-request="true"' in header:
        return "ongoing"
    expiry = re.search(r'expiry-date="([^"]+)"', header)
    return f"until {parsedate_to_datetime(expiry[1]).isoformat()}" if expiry else ""
