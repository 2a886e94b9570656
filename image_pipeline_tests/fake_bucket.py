"""A bucket in memory that answers as S3 does, strictly, and lets a test into every call.

It has what the pipeline uses of :class:`Bucket`. Rules that matter to housekeeping and that
servers made for tests often relax: times have a resolution of one second, an ETag belongs to
bytes and not to a write, a copy is a write (new time, same ETag), deleting a key that is not
there succeeds, one request deletes 1,000 keys at most and may fail for some of them, keys are
listed in the order of their UTF-8 bytes, archived objects cannot be read or copied.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from image_pipeline.settings import BucketSettings
from image_pipeline.store.bucket import (
    Bucket,
    Head,
    Object,
    ObjectArchivedError,
    ObjectChangedError,
    ObjectGoneError,
    Page,
    StoreError,
)

#: Classes whose objects must be restored before they can be read.
ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as the store keeps it."""

    data: bytes
    last_modified: datetime
    content_type: str = "binary/octet-stream"
    cache_control: str = ""
    storage_class: str = "STANDARD"
    restore: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


class FakeBucket(Bucket):
    """Objects in a dictionary. ``before`` and ``after`` are called around every request.

    They are given the name of the call and its key, and may raise, or do something else with
    the bucket: that is then what happened meanwhile. ``refuse`` holds keys that DeleteObjects
    fails for.
    """

    def __init__(self, clock: Callable[[], datetime], settings: BucketSettings | None = None):
        super().__init__(settings or BucketSettings(name="test-bucket"))
        self.clock = clock
        self.objects: dict[str, Stored] = {}
        self.refuse: set[str] = set()
        self.before: Callable[[str, str], None] = _nothing
        self.after: Callable[[str, str], None] = _nothing
        self.rules: list[dict] = []

    @property
    def client(self):
        raise AssertionError("nothing may go past the methods of the bucket")

    @property
    def endpoint_url(self):
        return None

    @property
    def versioned(self):
        return False

    @contextmanager
    def _call(self, name: str, key: str) -> Iterator[None]:
        self.before(name, key)
        yield
        self.after(name, key)

    def create_if_missing(self) -> None:
        pass

    def page(self, prefix: str, after: str = "") -> Page:
        with self._call("page", prefix):
            keys = sorted(
                (key for key in self.objects if key.startswith(prefix) and _behind(key, after)),
                key=str.encode,
            )
        found = [_listed(key, self.objects[key]) for key in keys[:PAGE]]
        return Page(found, len(keys) > PAGE)

    def folders(self, prefix: str) -> list[str]:
        with self._call("folders", prefix):
            rests = {key[len(prefix) :] for key in self.objects if key.startswith(prefix)}
        return sorted({f"{prefix}{rest.split('/')[0]}/" for rest in rests if "/" in rest})

    def get(self, key: str) -> bytes:
        with self._call("get", key):
            return self._readable(key).data

    def download(self, key: str, path: Path, etag: str) -> str:
        with self._call("download", key):
            found = self._readable(key)
            if found.etag != etag:
                raise ObjectChangedError(key)
            path.write_bytes(found.data)
        return hashlib.sha256(found.data).hexdigest()

    def put(
        self,
        key: str,
        data: bytes,
        content_type: str,
        cache_control: str | None = None,
        *,
        only_if_missing: bool = False,
    ) -> bool:
        with self._call("put", key):
            if only_if_missing and key in self.objects:
                return False
            self.objects[key] = Stored(data, self._now(), content_type, cache_control or "")
        return True

    def upload_file(self, path: Path, key: str, content_type: str) -> None:
        self.put(key, path.read_bytes(), content_type)

    def head(self, key: str) -> Head | None:
        with self._call("head", key):
            found = self.objects.get(key)
        return found and _head(found)

    def copy(
        self,
        key: str,
        to: str,
        *,
        etag: str | None = None,
        storage_class: str | None = None,
        known: Head | None = None,
        only_if_missing: bool = False,
    ) -> str:
        with self._call("copy", key):
            found = self._readable(key)
            # S3 is told the version that the caller last saw, whichever way it saw it.
            expected = etag if etag is not None else known and known.etag
            if expected is not None and found.etag != expected:
                raise ObjectChangedError(key)
            if only_if_missing and to in self.objects:
                raise ObjectChangedError(to)
            self.objects[to] = replace(
                found,
                last_modified=self._now(),
                storage_class=storage_class or "STANDARD",
                restore="",
            )
        return found.etag

    def delete(
        self, keys: Sequence[str], *, etags: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        errors = {}
        for start in range(0, len(keys), PAGE):
            with self._call("delete", keys[start]):
                for key in keys[start : start + PAGE]:
                    errors |= self._delete(key, (etags or {}).get(key))
        return errors

    def _delete(self, key: str, etag: str | None) -> dict[str, str]:
        found = self.objects.get(key)
        if key in self.refuse:
            return {key: "InternalError: We encountered an internal error."}
        if found is not None and etag is not None and found.etag != etag:
            return {key: "PreconditionFailed: it is another version"}
        self.objects.pop(key, None)
        return {}

    def restore(self, key: str, days: int, tier: str) -> bool:
        with self._call("restore", key):
            found = self._stored(key)
            if found.storage_class not in ARCHIVED:
                raise StoreError(f"{key}: InvalidObjectState")
            if found.restore == "ongoing":
                return False
            self.objects[key] = replace(found, restore="ongoing")
        return True

    def lifecycle(self) -> list[dict]:
        return list(self.rules)

    def put_lifecycle(self, rules: list[dict]) -> None:
        self.rules = list(rules)

    def write(self, key: str, data: bytes, days: float = 0) -> None:
        """An object that somebody else put so many days ago: no call of the pipeline."""
        self.objects[key] = Stored(data, self._now() - timedelta(days=days), "image/jpeg")

    def thaw(self, days: int = 7) -> None:
        """The store has done what it was asked to restore."""
        until = (self._now() + timedelta(days=days)).isoformat()
        for key, found in self.objects.items():
            if found.restore == "ongoing":
                self.objects[key] = replace(found, restore=f"until {until}")

    def _now(self) -> datetime:
        return self.clock().replace(microsecond=0)

    def _stored(self, key: str) -> Stored:
        if key not in self.objects:
            raise ObjectGoneError(key)
        return self.objects[key]

    def _readable(self, key: str) -> Stored:
        found = self._stored(key)
        if found.storage_class in ARCHIVED and not found.restore.startswith("until"):
            raise ObjectArchivedError(key)
        return found


def _nothing(name: str, key: str) -> None:
    pass


def _behind(key: str, after: str) -> bool:
    return key.encode() > after.encode()


def _listed(key: str, found: Stored) -> Object:
    return Object(key, found.etag, len(found.data), found.last_modified, found.storage_class)


def _head(found: Stored) -> Head:
    return Head(
        size=len(found.data),
        content_type=found.content_type,
        cache_control=found.cache_control,
        etag=found.etag,
        last_modified=found.last_modified,
        storage_class=found.storage_class,
        restore=found.restore,
        metadata=dict(found.metadata),
    )
