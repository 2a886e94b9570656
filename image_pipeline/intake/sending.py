"""Uploads in parts: where they go, which are there, making one file of them, giving up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from image_pipeline.intake.capability import Capability
from image_pipeline.intake.errors import ApiError
from image_pipeline.intake.permissions import Limits
from image_pipeline.store import multipart
from image_pipeline.store.bucket import Bucket, ObjectGoneError

#: Names of missing parts in one answer.
_MOST_NAMED = 100


class Parts:
    """Parts of one upload. Blocks. Everything can be asked again, also by others at once."""

    def __init__(self, bucket: Bucket, one: Capability, key: str, limits: Limits) -> None:
        self.bucket = bucket
        self.one = one
        self.key = key
        self.limits = limits
        self.sizes = dict(enumerate(multipart.part_sizes(one.size), 1))

    def urls(self, numbers: Iterable[int]) -> dict[str, Any]:
        """Addresses of some parts, and all parts that the bucket has.

        The first question begins the upload. Raises :class:`ApiError`: 422 for a number that
        the file does not have, 409 once the file is whole.
        """
        wanted = sorted(set(numbers))
        if wanted and wanted[-1] > len(self.sizes):
            raise ApiError(
                422, "invalid", f"numbers: the file has {len(self.sizes)} parts, from 1 on",
                more={"field": "numbers"},
            )  # fmt: skip
        upload = multipart.begun(self.bucket, self.key)
        there: list[multipart.Part] = []
        if upload is not None:
            there = self._there(upload)
        else:
            self._refuse_whole()
            upload = multipart.begin(self.bucket, self.key, self.one.content_type)
        sizes = {number: self.sizes[number] for number in wanted}
        seconds = int(self.limits.minutes * 60)
        urls = multipart.part_urls(self.bucket, self.key, upload, sizes, seconds)
        return {
            "parts": [{"number": number, "url": url} for number, url in urls.items()],
            "done": [
                {"number": part.number, "size": part.size, "etag": part.etag} for part in there
            ],
        }

    def complete(self) -> None:
        """Make the file of its parts; nothing happens if it is whole already.

        Raises :class:`ApiError` 409 where a part is missing or has another size than it should.
        Together they then have the size that was announced, which the limits allow.
        """
        upload = multipart.begun(self.bucket, self.key)
        if upload is None:
            if self.bucket.head(self.key) is None:
                raise self._incomplete(list(self.sizes))
            return
        there = {part.number: part for part in self._there(upload)}
        wrong = [
            number
            for number, size in self.sizes.items()
            if number not in there or there[number].size != size
        ]
        if wrong or len(there) != len(self.sizes) or self.one.size > self.limits.bytes:
            raise self._incomplete(wrong)
        try:
            multipart.complete(self.bucket, self.key, upload, there.values())
        except ObjectGoneError:
            self._refuse_missing()

    def abort(self) -> None:
        """Give up and drop the parts. Raises :class:`ApiError` 409 if the file is whole."""
        if multipart.abort(self.bucket, self.key) == 0:
            self._refuse_whole()

    def _there(self, upload: str) -> list[multipart.Part]:
        try:
            return multipart.parts(self.bucket, self.key, upload)
        except ObjectGoneError:
            # Somebody ended it in this moment.
            self._refuse_whole()
            return []

    def _refuse_whole(self) -> None:
        if self.bucket.head(self.key) is not None:
            raise ApiError(409, "received", "the file has arrived: it cannot be changed any more")

    def _refuse_missing(self) -> None:
        if self.bucket.head(self.key) is None:
            raise self._incomplete(list(self.sizes))

    def _incomplete(self, missing: list[int]) -> ApiError:
        return ApiError(
            409,
            "incomplete",
            "parts are missing or have another size: send them, then complete the upload",
            more={"missing": missing[:_MOST_NAMED]},
        )
