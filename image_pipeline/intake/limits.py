"""Who asks too often waits: a token bucket for each key and each address, in bounded memory."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

#: Buckets that are remembered. Each takes about 250 bytes: 25 MB for as many addresses as a
#: botnet has. With more, the one that was not asked for the longest is forgotten.
MOST = 100_000


class TokenBuckets:
    """A bucket of ``burst`` tokens for everybody, filled with ``per_second`` tokens a second.

    For one thread: that of the event loop.
    """

    def __init__(
        self,
        per_second: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        most: int = MOST,
    ) -> None:
        self._rate = per_second
        self._burst = float(burst)
        self._clock = clock
        self._most = most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, who: str) -> float:
        """Take a token. 0 if there was one, else the seconds until there is; then none is taken."""
        now = self._clock()
        tokens, since = self._buckets.pop(who, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        taken = tokens > 1.0 - 1e-9  # who waited as long as told is not sent away by rounding
        self._buckets[who] = (max(0.0, tokens - taken), now)
        self._forget(now)
        return 0.0 if taken else (1.0 - tokens) / self._rate

    def _forget(self, now: float) -> None:
        """Full buckets are as good as none; the oldest are first."""
        while self._buckets:
            who, (tokens, since) = next(iter(self._buckets.items()))
            if tokens + (now - since) * self._rate < self._burst and len(self) <= self._most:
                return
            del self._buckets[who]


def address_of(host: str) -> str:
    """Whose bucket an address is. Of IPv6 everybody has at least 64 bits to choose from."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
