"""Ids of uploads: whoever has one may finish that upload and read what became of it.

An id carries all that is known of an upload before it arrives, and a signature, so nothing has to
be written down when one is handed out. It is made of ``A-Za-z0-9_-`` and looks like noise, but is
only signed: whoever has it may read it. The object's key holds the random part of it alone, and
keys are published in manifests: nobody gets from a key to an id.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass

from image_pipeline.ingest.presigning import TYPES

#: Bytes of random in every key: nobody guesses 128 bits.
TOKEN_BYTES = 16

#: Bytes of HMAC-SHA256 that are kept: as many as nobody guesses.
_MAC_BYTES = 16

#: Version, seconds since 1970, bytes of the file, type, whether it comes in parts, and the length
#: of the source's name; then random, the names of source and file, and the signature.
_HEAD = struct.Struct(">BIQBBB")

_VERSION = 1

#: Longest id: names of a source have up to 31 characters, those of files 100.
MAX_LENGTH = 4 * (_HEAD.size + TOKEN_BYTES + 31 + 100 + _MAC_BYTES) // 3 + 4


class UnknownUploadError(Exception):
    """The id was not made by this service."""


@dataclass(frozen=True, slots=True)
class Capability:
    """An upload that was allowed.

    ``token`` is the random part of its key (hex), ``name`` the last part; ``size`` is what was
    announced, in bytes; nothing can be sent after ``expires_at`` (seconds since 1970).
    """

    source: str
    token: str
    name: str
    content_type: str
    size: int
    expires_at: int
    in_parts: bool

    def key(self, prefix: str) -> str:
        """The object's key below the prefix of its source."""
        return f"{prefix}{self.token}/{self.name}"


class Sealer:
    """Makes ids and reads them. ``secret`` is shared by every process of the service."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, capability: Capability) -> str:
        """The id of an upload."""
        source = capability.source.encode("ascii")
        head = _HEAD.pack(
            _VERSION,
            capability.expires_at,
            capability.size,
            TYPES.index(capability.content_type),
            capability.in_parts,
            len(source),
        )
        name = capability.name.encode("ascii")
        body = b"".join((head, bytes.fromhex(capability.token), source, name))
        return base64.urlsafe_b64encode(body + self._mac(body)).rstrip(b"=").decode("ascii")

    def open(self, upload: str) -> Capability:
        """What an id stands for. Raises :class:`UnknownUploadError`."""
        data = _decoded(upload)
        body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if len(body) <= _HEAD.size + TOKEN_BYTES or not hmac.compare_digest(mac, self._mac(body)):
            raise UnknownUploadError("there is no such upload")
        _, expires_at, size, kind, in_parts, length = _HEAD.unpack_from(body)
        rest = body[_HEAD.size :]
        names = rest[TOKEN_BYTES:].decode("ascii")
        return Capability(
            source=names[:length],
            token=rest[:TOKEN_BYTES].hex(),
            name=names[length:],
            content_type=TYPES[kind],
            size=size,
            expires_at=expires_at,
            in_parts=bool(in_parts),
        )

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, "sha256")[:_MAC_BYTES]


def _decoded(upload: str) -> bytes:
    """The bytes of an id; each id has one form only."""
    if len(upload) > MAX_LENGTH:
        raise UnknownUploadError("there is no such upload")
    try:
        data = base64.b64decode(upload + "=" * (-len(upload) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise UnknownUploadError("there is no such upload") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != upload:
        raise UnknownUploadError("there is no such upload")
    return data
