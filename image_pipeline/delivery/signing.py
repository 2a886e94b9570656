"""URLs that work for a while: CloudFront's signatures, and S3's own where there is no CDN.

What is stored, manifests included, carries plain URLs: a signature is out of date before a
manifest is. Whoever hands out a manifest of a private source signs it first.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from image_pipeline.delivery.manifest import picture_html
from image_pipeline.delivery.urls import url_builder
from image_pipeline.settings import Settings, Signing
from image_pipeline.store.bucket import Bucket

if TYPE_CHECKING:
    from botocore.signers import CloudFrontSigner
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

Sign = Callable[[str], str]

#: S3 refuses presigned URLs of more than seven days (Signature Version 4, X-Amz-Expires).
MAX_MINUTES = 7 * 24 * 60

_KEY_VARIABLE = "IMAGE_PIPELINE_DELIVERY__SIGNING__PRIVATE_KEY"

#: CloudFront's base64 uses these where the alphabet has characters of a query or a cookie.
_ALPHABET = str.maketrans("+=/", "-_~")

#: The ids of CloudFront's public keys: letters and digits. Anything else would need quoting.
_KEY_PAIR_ID = re.compile(r"[A-Za-z0-9]{1,64}")


class SigningError(Exception):
    """A URL cannot be signed; the message says which setting is missing or wrong."""


@dataclass(frozen=True, slots=True)
class SignedCookies:
    """Cookies that open every file of a source at its CDN until ``expires_at`` (UTC).

    ``values`` are the three cookies by name. ``domain`` is the host they have to reach, and
    ``path`` the folder. The server that sets them has to be on that host, or on a name
    that shares its parent domain, which then is the cookies' ``Domain``.
    """

    values: dict[str, str]
    domain: str
    path: str
    expires_at: datetime

    @property
    def headers(self) -> list[str]:
        """Values of ``Set-Cookie``, for a server on ``domain``.

        They have no ``Expires``, as AWS advises: the browser forgets them when it is closed, and
        the policy inside them runs out by itself.
        """
        attributes = f"Domain={self.domain}; Path={self.path}; Secure; HttpOnly"
        return [f"{name}={value}; {attributes}" for name, value in self.values.items()]


def _machine_clock() -> datetime:
    # Not the pipeline's: CloudFront and S3 look at the time of day, whatever is rehearsed here.
    return datetime.now(UTC)


def signer(
    settings: Settings,
    source: str,
    bucket: Bucket,
    clock: Callable[[], datetime] = _machine_clock,
    *,
    minutes: float | None = None,
) -> Sign | None:
    """A function from an object key to a URL of it that works for a while; None if public.

    With a ``base_url`` the URLs are CloudFront's with a canned policy: exactly that URL, until
    ``clock() + minutes`` of the moment of signing. Without one they are presigned by S3, by
    the machine's clock. ``minutes`` overrides the settings, at most :data:`MAX_MINUTES`.

    Keys rather than URLs are signed, so that nothing but objects of the bucket ever is. Raises
    :class:`SigningError` if a setting is missing or unfit, ``KeyError`` for an unknown source.
    """
    if settings.sources[source].access == "public":
        return None
    lifetime = _lifetime(settings.delivery.signing, minutes)
    base = settings.base_url_of(source)
    if base is None:
        seconds = max(1, int(lifetime.total_seconds()))
        return lambda key: bucket.presigned_url(key, seconds)
    cloudfront = _cloudfront(settings.delivery.signing)
    url_of = url_builder(base, base)

    def sign(key: str) -> str:
        url: str = cloudfront.generate_presigned_url(url_of(key), date_less_than=clock() + lifetime)
        return url

    return sign


def sign_manifest(manifest: Mapping[str, Any], sign: Sign) -> dict[str, Any]:
    """An image manifest with every URL in it signed, each once; the rest is unchanged.

    That is ``url`` of the variants, ``srcset``, ``src`` and the ready ``html``.
    """
    signed = {one["url"]: sign(one["key"]) for one in manifest["variants"]}
    found: dict[str, Any] = {
        **manifest,
        "variants": [{**one, "url": signed[one["url"]]} for one in manifest["variants"]],
        "srcset": {name: _signed_srcset(one, signed) for name, one in manifest["srcset"].items()},
        "src": signed[manifest["src"]] if manifest["src"] else None,
    }
    return {**found, "html": picture_html(found)}


def _signed_srcset(srcset: str, signed: Mapping[str, str]) -> str:
    # No URL of ours has a space or a comma in it.
    pairs = (candidate.split(" ") for candidate in srcset.split(", "))
    return ", ".join(f"{signed[url]} {width}" for url, width in pairs)


def signed_cookies(
    settings: Settings,
    source: str,
    clock: Callable[[], datetime] = _machine_clock,
    *,
    minutes: float | None = None,
) -> SignedCookies:
    """Cookies for everything below the ``base_url`` of a private source, by a custom policy.

    The policy covers ``<base_url>/*``: files are named by image, not by source, so no narrower
    pattern holds them all. Hence no other source may be below the same address. Raises
    :class:`SigningError` if one is, or if a setting is missing or unfit, and ``KeyError`` for
    an unknown source.
    """
    base = settings.base_url_of(source)
    if settings.sources[source].access == "public":
        raise SigningError(f"sources.{source}.access is public: its URLs work without cookies")
    if base is None:
        raise SigningError(
            f"sources.{source}.base_url: signed cookies are CloudFront's; set the URL of its"
            " distribution, or sign the URLs one by one"
        )
    _refuse_neighbours(settings, source, base)
    signing = settings.delivery.signing
    expires = clock() + _lifetime(signing, minutes)
    cloudfront = _cloudfront(signing)
    policy: bytes = cloudfront.build_policy(f"{base}/*", expires).encode()
    parts = urlsplit(base)
    return SignedCookies(
        values={
            "CloudFront-Policy": _encoded(policy),
            "CloudFront-Signature": _encoded(cloudfront.rsa_signer(policy)),
            "CloudFront-Key-Pair-Id": cloudfront.key_id,
        },
        domain=parts.hostname or "",
        path=parts.path or "/",
        expires_at=expires.replace(microsecond=0),
    )


def _lifetime(signing: Signing, minutes: float | None) -> timedelta:
    wanted = signing.minutes if minutes is None else minutes
    if not 0 < wanted <= MAX_MINUTES:
        raise SigningError(f"minutes: {wanted:g} is not more than 0 and at most {MAX_MINUTES:,}")
    return timedelta(minutes=wanted)


def _refuse_neighbours(settings: Settings, source: str, base: str) -> None:
    for other in settings.neighbours_of(source):
        raise SigningError(
            f"sources.{source}.base_url: {base} also serves the source {other!r}, and these"
            " cookies would open its files; give each a host of its own, or sign URLs one by one"
        )


def _cloudfront(signing: Signing) -> CloudFrontSigner:
    from botocore.signers import CloudFrontSigner
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA1

    if not signing.key_pair_id or not _KEY_PAIR_ID.fullmatch(signing.key_pair_id):
        raise SigningError(
            "delivery.signing.key_pair_id: set it to the id that CloudFront gave the public key,"
            " letters and digits like K2JCJMDEHXQW5F"
        )
    key = _private_key(signing)
    # SHA-1 is what CloudFront assumes of a URL or cookie that names no other.
    return CloudFrontSigner(
        signing.key_pair_id,
        lambda message: key.sign(message, PKCS1v15(), SHA1()),  # noqa: S303
    )


def _private_key(signing: Signing) -> RSAPrivateKey:
    """The key of the settings. No message repeats anything of it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = signing.private_key.get_secret_value().strip() if signing.private_key else ""
    if not text:
        raise SigningError(
            f"there is no key to sign URLs with: set {_KEY_VARIABLE} to the private key (RSA, PEM)"
            " whose public key CloudFront knows as delivery.signing.key_pair_id"
        )
    try:
        # Files of environment variables have one line for each, so newlines come escaped.
        key = load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
    except TypeError:
        raise SigningError(f"{_KEY_VARIABLE}: the key is encrypted; set it decrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SigningError(
            f"{_KEY_VARIABLE}: is no private key in PEM: it begins with"
            " '-----BEGIN PRIVATE KEY-----' or '-----BEGIN RSA PRIVATE KEY-----'"
        ) from None
    if not isinstance(key, RSAPrivateKey):
        raise SigningError(f"{_KEY_VARIABLE}: is no RSA key; make one of 2,048 bits for CloudFront")
    return key


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii").translate(_ALPHABET)
