"""What a cache warmer may ask for, how fast, and what it makes of the answers.

Nothing here touches the network; :mod:`image_pipeline.delivery.warmer` does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

CacheState = Literal["hit", "miss", "unknown"]

#: Ports that a URL of each scheme means without naming one.
_PORTS = {"http": 80, "https": 443}

#: Answers that a second try may better: timeouts, rate limits, and edges that are not well
#: (RFC 9110, 15.5.9, 15.6; RFC 6585, 4).
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

#: Words of cache headers that say the answer came out of the cache. CloudFront: "Hit from
#: cloudfront", "RefreshHit from cloudfront"; Cloudflare: HIT, REVALIDATED, UPDATING, STALE;
#: nginx: HIT, STALE, UPDATING, REVALIDATED; Fastly: "HIT, HIT"; Varnish pages: "HIT".
_HITS = ("hit", "stale", "updating", "revalidated")


class ForbiddenUrlError(ValueError):
    """A URL that is not of the configured edge. It is never asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the edge said. ``status`` is 0 where there was no answer, and ``error`` then why.

    ``seconds_to_first_byte`` counts from the start of the request, ``bytes`` are those of
    the body, ``attempts`` the requests it took, ``protocol`` the version of HTTP (``1.1``, ``2``),
    empty without an answer. No field ever holds a query: it may be a signature.
    """

    status: int
    cache: CacheState
    seconds_to_first_byte: float
    bytes: int
    attempts: int
    error: str = ""
    protocol: str = ""

    @property
    def warm(self) -> bool:
        """Whether the file can be taken to be in the cache now."""
        return self.status == 200 and not self.error


def edge_of(base_url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a base URL. Raises :class:`ForbiddenUrlError` if it has none."""
    parts = urlsplit(base_url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ForbiddenUrlError(f"{_without_query(base_url)!r} is no http or https URL")
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:
        raise ForbiddenUrlError(f"{_without_query(base_url)!r} has no valid port") from None
    return parts.scheme, parts.hostname.lower(), port


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def check_url(url: str, edges: Collection[tuple[str, str, int]]) -> None:
    """Raise :class:`ForbiddenUrlError` unless ``url`` is of one of the configured edges.

    Credentials in a URL are refused as well: they are a way of making a host look like another.
    """
    if "@" in urlsplit(url).netloc:
        raise ForbiddenUrlError("the URL carries credentials")
    if edge_of(url) not in edges:
        raise ForbiddenUrlError(f"{urlsplit(url).netloc!r} is not the configured edge")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, an IPv4 inside an IPv6 included.

    A name that resolves to any other could make the warmer read what only this machine sees:
    cloud metadata at 169.254.169.254, services on loopback, the company's network.
    """
    try:
        found = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or _nat64(found)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside the well-known prefix 64:ff9b::/96 (RFC 6052)."""
    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def cache_state(headers: Mapping[str, str]) -> CacheState:
    """Whether an answer came out of the edge's cache, by its headers (names in lower case).

    ``X-Cache`` (CloudFront, Fastly, nginx and Varnish by custom), ``CF-Cache-Status``
    (Cloudflare), else a positive ``Age`` (RFC 9111, 5.1).
    """
    for name in ("cf-cache-status", "x-cache", "x-cache-status"):
        value = headers.get(name, "").lower()
        if value:
            # The last word is the edge's own where several caches wrote one after the other.
            last = value.rsplit(",", 1)[-1]
            return "hit" if any(word in last for word in _HITS) else "miss"
    age = headers.get("age", "").strip()
    if age.isdigit():
        return "hit" if int(age) > 0 else "miss"
    return "unknown"


def is_passing(status: int) -> bool:
    """Whether an answer (0: none at all) may be another one in a moment."""
    return status == 0 or status in _PASSING


def wait_before(attempt: int) -> float:
    """Seconds before the second (``attempt`` 1), third ... try: 0.5, 1, 2, at most 10."""
    return float(min(10.0, 0.5 * 2 ** (attempt - 1)))


#: Seconds whose requests may be made up for at once: a loop that serves many connections
#: looks at the clock every millisecond or so, not before every request.
_BURST_SECONDS = 0.05


class Pace:
    """A token bucket: at most ``per_second`` requests, none saved up over a pause."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second * _BURST_SECONDS)
        self._tokens = 1.0
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether a request may start at ``now`` (seconds of a monotonic clock); it then counts."""
        since = 0.0 if self._at is None else now - self._at
        self._at = now
        self._tokens = min(self._most, self._tokens + since * self._per_second)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def wait(self) -> float:
        """Seconds until the next request may start."""
        return max(0.0, (1 - self._tokens) / self._per_second)
