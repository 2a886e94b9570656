"""Permission for one upload straight from a browser: a presigned POST.

Of the two kinds of presigned upload only POST can bound the size; a presigned PUT takes anything.
Every field is fixed by the policy: the exact key, the exact type, a range of lengths and a moment
after which nothing works any more. The pipeline itself never believes the type: it looks.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Any

from image_pipeline.settings import Source
from image_pipeline.store.bucket import Bucket

#: Types that a browser gives to files of the formats that are decoded.
TYPES = (
    "image/jpeg", "image/png", "image/webp", "image/avif", "image/heic", "image/heif",
    "image/tiff", "image/gif", "image/bmp",
)  # fmt: skip

#: Characters of a file's name that are kept: the rest of the key is random and far longer.
_NAME_LENGTH = 100

#: SigV4 signatures work for seven days at most (an AWS rule).
LONGEST_MINUTES = 7 * 24 * 60


class RefusedError(Exception):
    """The upload would be rejected, so nobody gets a permission for it; says why."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Where to POST which fields, before the file itself as the field ``file``."""

    url: str
    fields: dict[str, str]
    key: str
    max_bytes: int
    minutes: float


def upload_key(prefix: str, name: str, token: str) -> str:
    """A key that nobody can guess or overwrite, which ends with a harmless form of the name."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.")
    return f"{prefix}{token}/{safe[-_NAME_LENGTH:] or 'upload'}"


def presigned_post(
    bucket: Bucket,
    source: Source,
    name: str,
    content_type: str,
    minutes: float = 15.0,
    max_bytes: int | None = None,
    token: str | None = None,
) -> Permission:
    """Permission to upload one file called ``name`` of ``content_type`` to a source.

    ``max_bytes`` can only lower the source's own limit. ``token`` is the random part of the key;
    without one, it is made here. Raises :class:`RefusedError` for types that are no pictures and
    for times that S3 does not allow.
    """
    if content_type not in TYPES:
        raise RefusedError(f"{content_type!r} is not one of {', '.join(TYPES)}")
    if not 0 < minutes <= LONGEST_MINUTES:
        raise RefusedError(f"a permission works for up to {LONGEST_MINUTES} minutes (seven days)")
    limit = int(source.limits.megabytes * 1e6)
    limit = min(limit, max_bytes) if max_bytes else limit
    key = upload_key(source.prefix, name, token or secrets.token_hex(16))
    fixed: Any = {"Content-Type": content_type}
    answer = bucket.client.generate_presigned_post(
        Bucket=bucket.name,
        Key=key,
        Fields=fixed,
        # boto3 adds the conditions of bucket and key itself, and none for other fields.
        Conditions=[fixed, ["content-length-range", 1, limit]],
        ExpiresIn=int(minutes * 60),
    )
    return Permission(answer["url"], dict(answer["fields"]), key, limit, minutes)
