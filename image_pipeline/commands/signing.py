"""``image-pipeline sign`` and ``cookies``: a private source's files, for a while."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from image_pipeline.commands.display import print_json
from image_pipeline.delivery.signing import SigningError, sign_manifest, signed_cookies, signer
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket, ObjectGoneError
from image_pipeline.store.layout import image_manifest_key

#: An image id, the SHA-256 of the original in hex. No key of the bucket looks like one.
_IMAGE = re.compile(r"[0-9a-f]{64}")


def run_sign(
    settings: Settings, wanted: str, source: str | None, minutes: float | None, as_json: bool
) -> int:
    """Print the signed manifest of an image (by its id), or the signed URL of an object.

    Raises ``click.ClickException`` where it cannot be signed, or is not there.
    """
    source = source or _private_source(settings)
    bucket = Bucket(settings.bucket)
    now = datetime.now(UTC)
    sign = _signer(settings, source, bucket, now, minutes)
    if _IMAGE.fullmatch(wanted):
        signed = sign_manifest(_manifest(bucket, source, wanted), sign)
        if as_json:
            print_json(signed)
        else:
            _print_manifest(signed)
    elif bucket.head(wanted) is None:
        raise click.ClickException(
            f"there is no object {wanted!r} in the bucket; give the key of one, or the id of an"
            " image (64 characters)"
        )
    elif as_json:
        expires = now + timedelta(minutes=minutes or settings.delivery.signing.minutes)
        url = sign(wanted)
        print_json({"source": source, "key": wanted, "url": url, "expires_at": _second(expires)})
    else:
        # Nothing but the URL, for "$(image-pipeline sign KEY)" in a shell.
        click.echo(sign(wanted))
    return 0


def run_cookies(settings: Settings, source: str, minutes: float | None, as_json: bool) -> int:
    """Print the three cookies that open a private source at its CDN.

    Raises ``click.ClickException`` where there can be none.
    """
    try:
        cookies = signed_cookies(settings, source, minutes=minutes)
    except SigningError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        print_json(
            {
                "cookies": cookies.values,
                "domain": cookies.domain,
                "path": cookies.path,
                "expires_at": _second(cookies.expires_at),
                "set_cookie": cookies.headers,
            }
        )
        return 0
    for header in cookies.headers:
        click.echo(f"Set-Cookie: {header}")
    click.echo(f"They work until {_second(cookies.expires_at)}.", err=True)
    return 0


def _signer(
    settings: Settings, source: str, bucket: Bucket, now: datetime, minutes: float | None
) -> Callable[[str], str]:
    try:
        sign = signer(settings, source, bucket, lambda: now, minutes=minutes)
    except SigningError as error:
        raise click.ClickException(str(error)) from None
    if sign is None:
        raise click.ClickException(
            f"sources.{source}.access is public: its URLs work without a signature"
        )
    return sign


def _private_source(settings: Settings) -> str:
    private = [name for name, one in settings.sources.items() if one.access == "private"]
    if len(private) != 1:
        known = ", ".join(sorted(private)) or "there is none"
        raise click.UsageError(f"name the private source with --source ({known})")
    return private[0]


def _manifest(bucket: Bucket, source: str, image: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(bucket.get(image_manifest_key(source, image)))
    except ObjectGoneError:
        raise click.ClickException(f"{source} has published no image {image}") from None
    return document


def _print_manifest(manifest: dict[str, Any]) -> None:
    # No table: it would fold the URLs, and nobody could copy them.
    for one in manifest["variants"]:
        click.echo(f"{one['size']} {one['width']}x{one['height']} {one['format']}\n{one['url']}\n")


def _second(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
