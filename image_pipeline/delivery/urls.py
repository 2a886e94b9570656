"""From object keys to URLs."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote


def url_builder(base_url: str | None, bucket_url: str) -> Callable[[str], str]:
    """A function that turns an object key into its URL.

    The URL is ``base_url`` if there is one, else ``bucket_url``, then the key. Both are
    absolute URLs; a slash at their end does not matter.

    Everything in a key but the slashes and RFC 3986's unreserved characters is
    percent-encoded as UTF-8. That includes commas and spaces, which separate the candidates
    of a ``srcset``.
    """
    base = (base_url or bucket_url).rstrip("/")

    def url_of(key: str) -> str:
        return f"{base}/{quote(key, safe='/')}"

    return url_of
