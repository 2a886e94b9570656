"""What every request shares: who asks, how often they may, and what may be uploaded."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.intake import secret_of
from image_pipeline.ingest.presigning import presigned_post, upload_key
from image_pipeline.intake import keys
from image_pipeline.intake.capability import TOKEN_BYTES, Capability, Sealer, UnknownUploadError
from image_pipeline.intake.errors import ApiError, too_many
from image_pipeline.intake.limits import TokenBuckets, address_of
from image_pipeline.intake.permissions import Limits, limits_of, refusal
from image_pipeline.intake.requests import FileAsked
from image_pipeline.intake.sending import Parts
from image_pipeline.intake.status import StatusReader
from image_pipeline.intake.threads import Threads
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.multipart import PART_BYTES, part_sizes

#: How long a file may be sent in parts: whoever closes a laptop in the evening goes on in the
#: morning. Each address works for minutes only, and S3 drops parts of a week ago.
IN_PARTS_SECONDS = 24 * 3600

#: What became of an upload is told for so long after its permission ended.
READ_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the sources that they may use, and whose bucket of requests is theirs."""

    sources: frozenset[str]
    bucket: str
    has_key: bool


class Service:
    """The state of the service, and what it decides. Its methods do not block."""

    def __init__(
        self, settings: Settings, bucket: Bucket, catalog: Catalog, clock: Callable[[], datetime]
    ) -> None:
        self.settings = settings
        self.bucket = bucket
        self.clock = clock
        self.limits = {name: limits_of(settings, name) for name in settings.intake.sources}
        self.sealer = Sealer(secret_of(catalog, clock()))
        self.reader = StatusReader(settings, bucket, catalog, clock)
        self.threads = Threads()
        self.buckets = TokenBuckets(settings.intake.per_second, settings.intake.burst)
        self.has_keys = any(one.keys for one in settings.intake.sources.values())
        self.anonymous = frozenset(
            name for name, one in settings.intake.sources.items() if one.anonymous
        )

    def close(self) -> None:
        """Give back threads and connections."""
        self.threads.close()
        self.reader.close()

    def caller(self, request: Request) -> Caller:
        """Who asks; takes one of their tokens.

        Raises :class:`ApiError`: 429 when they have none left, 401 for a key that nobody has.
        """
        key = _bearer(request)
        has = self._sources_of(key) if key else frozenset()
        host = request.client.host if request.client else ""
        # Whoever guesses keys is counted by their address.
        bucket = f"key {keys.digest(key)}" if key and has else f"address {address_of(host)}"
        seconds = self.buckets.take(bucket)
        if seconds:
            raise too_many(seconds, "too many requests: wait as long as Retry-After says")
        if key and not has:
            raise _unauthorized("nobody has this key: ask the operator for one")
        return Caller(has | self.anonymous, bucket, bool(has))

    def admit(self, caller: Caller, source: str) -> Limits:
        """The limits of a source. Raises :class:`ApiError`: 401, 403, or 404 without a source."""
        limits = self.limits.get(source)
        if limits is not None and source in caller.sources:
            return limits
        if not caller.has_key and self.has_keys:
            # Also where there is no such source: strangers need not know which there are.
            raise _unauthorized("send 'Authorization: Bearer <key>'")
        if limits is None:
            raise ApiError(404, "source", f"there is no source {source[:31]!r} to upload to")
        raise ApiError(403, "forbidden", f"the key is not for the source {source!r}")

    def require_key(self, caller: Caller) -> None:
        """Raises :class:`ApiError` 401 for whoever has none."""
        if not caller.has_key:
            raise _unauthorized("send 'Authorization: Bearer <key>'")

    def open(self, upload: str) -> Capability:
        """The upload of an id. Raises :class:`ApiError` 404."""
        try:
            one = self.sealer.open(upload)
        except UnknownUploadError as error:
            raise ApiError(404, "upload", str(error)) from None
        if one.source not in self.limits or self._now() > one.expires_at + READ_SECONDS:
            raise ApiError(404, "upload", "the upload was too long ago to be told of")
        return one

    def parts_of(self, upload: str, *, ending: bool = False) -> Parts:
        """The parts of an upload. Raises :class:`ApiError`: 404, 409 for one that has none, 403
        once the time for sending is over; ``ending`` it is allowed for longer.
        """  # noqa: D205 - one sentence
        one = self.open(upload)
        if not one.in_parts:
            raise ApiError(409, "whole", "this file is sent whole, by its POST")
        if not ending and self._now() > one.expires_at:
            raise ApiError(403, "expired", "the permission ran out: ask for another one")
        key = one.key(self.settings.sources[one.source].prefix)
        return Parts(self.bucket, one, key, self.limits[one.source])

    def grant(self, source: str, limits: Limits, file: FileAsked) -> dict[str, Any]:
        """Permission for one file, or what is wrong with it. Signs; takes a quarter of a ms."""
        kind = file.type.strip().lower()
        wrong = refusal(limits, file.name, file.size, kind)
        if wrong is not None:
            return {
                "name": file.name, "error": {"code": wrong.code, "message": wrong.message}
            }  # fmt: skip
        in_parts = file.size > limits.multipart_bytes
        token = secrets.token_hex(TOKEN_BYTES)
        whole = self.settings.sources[source]
        key = upload_key(whole.prefix, file.name, token)
        seconds = IN_PARTS_SECONDS if in_parts else limits.minutes * 60
        one = Capability(
            source=source,
            token=token,
            name=key.rpartition("/")[2],
            content_type=kind,
            size=file.size,
            expires_at=int(self._now() + seconds),
            in_parts=in_parts,
        )
        answer = {
            "id": self.sealer.seal(one),
            "name": file.name,
            "key": key,
            "expires_at": datetime.fromtimestamp(one.expires_at, UTC).isoformat(),
        }
        if in_parts:
            count = len(part_sizes(file.size))
            return {**answer, "multipart": {"part_size": PART_BYTES, "parts": count}}
        allowed = presigned_post(
            self.bucket, whole, file.name, kind, limits.minutes, limits.bytes, token
        )
        return {**answer, "post": {"url": allowed.url, "fields": allowed.fields}}

    def _sources_of(self, key: str) -> frozenset[str]:
        sources = self.settings.intake.sources.items()
        # All of them are looked through, whoever asks.
        found = [name for name, one in sources if keys.holder(one.keys, key) is not None]
        return frozenset(found)

    def _now(self) -> float:
        return self.clock().timestamp()


def _bearer(request: Request) -> str | None:
    """The key of a request; None without one. Another scheme is as good as a wrong key."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else header or "-"


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
