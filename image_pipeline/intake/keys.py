"""API keys: random, shown once, known to the service by their SHA-256 only."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping

#: What keys begin with, so that scanners for leaked secrets can tell one.
PREFIX = "ipk_"


def new_key() -> str:
    """A key of 256 random bits. No password: one round of SHA-256 keeps it safe."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What ``intake.sources.<source>.keys`` holds of a key: 64 hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def holder(keys: Mapping[str, str], key: str) -> str | None:
    """The name of who has ``key`` among digests by name; None if nobody does.

    Takes as long for any key: each is compared in constant time, and all of them are.
    """
    wanted = digest(key)
    found = None
    for name, known in keys.items():
        if hmac.compare_digest(wanted, known):
            found = name
    return found
