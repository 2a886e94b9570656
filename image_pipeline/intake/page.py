"""The upload page, which sends files straight to the bucket and shows what became of them.

Plain modules of JavaScript, served as they are. Their folder has a fingerprint in its name, so
that browsers keep them for ever and never mix two versions. The content security policy lets the
page run nothing but them, send bytes nowhere but to this service and the bucket, and stand in no
other page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

    from image_pipeline.settings import Settings
    from image_pipeline.store.bucket import Bucket

_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

_IMMUTABLE = "public, max-age=31536000, immutable"

#: Of a SHA-256: 48 bits tell versions apart, nobody gains by a collision.
_FINGERPRINT_DIGITS = 12

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def routes(
    bucket_origin: str, sources: Sequence[str], picture_origins: Iterable[str] = ()
) -> list[Route]:
    """The page at ``/`` and its files below ``/assets/``.

    ``bucket_origin`` is where permissions lead (:func:`upload_origin`), ``sources`` are offered
    in this order, and ``picture_origins`` are where manifests lead (:func:`picture_origins_of`).
    """
    folder = f"assets/{_fingerprint(_assets())}"
    page = _page(folder, tuple(sources)).encode()
    headers = {
        **_HEADERS,
        "Content-Security-Policy": _policy(bucket_origin, picture_origins),
        "Cache-Control": "no-cache",
    }

    async def show_page(request: Request) -> Response:
        return _answer(request, page, "text/html; charset=utf-8", headers)

    async def send_asset(request: Request) -> Response:
        name = request.path_params["name"]
        data = _assets().get(name)
        if data is None:
            raise HTTPException(404)
        kind = _TYPES[name[name.rindex(".") :]]
        return _answer(request, data, kind, {**_HEADERS, "Cache-Control": _IMMUTABLE})

    return [
        Route("/", show_page, name="page", include_in_schema=False),
        Route(f"/{folder}/{{name}}", send_asset, name="asset", include_in_schema=False),
    ]


def upload_origin(bucket: Bucket) -> str:
    """Scheme, host and port that presigned POSTs and PUTs lead to; nothing is sent to find out.

    Not always those of ``bucket.url``: boto3 signs for the region's or the global endpoint.
    """
    return _origin(bucket.client.generate_presigned_post(Bucket=bucket.name, Key="any")["url"])


def picture_origins_of(settings: Settings, bucket: Bucket) -> list[str]:
    """Scheme, host and port of every address that manifests of the intake's sources name."""
    urls = {settings.base_url_of(name) or bucket.url for name in settings.intake.sources}
    return sorted(map(_origin, urls))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _policy(bucket_origin: str, picture_origins: Iterable[str]) -> str:
    pictures = sorted({bucket_origin, *picture_origins})
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"connect-src 'self' {bucket_origin}",
            # Previews are blobs, placeholders are data.
            f"img-src 'self' blob: data: {' '.join(pictures)}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


@cache
def _assets() -> Mapping[str, bytes]:
    """The page's files by their names, and the colours that all our pages share."""
    folder = resources.files("image_pipeline.intake") / "templates"
    own = (one for one in folder.iterdir() if one.name.endswith(tuple(_TYPES)))
    shared = resources.files("image_pipeline.delivery") / "templates" / "colours.css"
    return {one.name: one.read_bytes() for one in sorted([*own, shared], key=lambda one: one.name)}


def _fingerprint(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


def _page(folder: str, sources: tuple[str, ...]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("image_pipeline.intake"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("upload.html").render(assets=folder, sources=sources)


def _answer(request: Request, data: bytes, kind: str, headers: Mapping[str, str]) -> Response:
    """The file, or the word that what the browser has is the same."""
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {**headers, "ETag": etag}
    known = ",".join(request.headers.getlist("if-none-match")).split(",")
    # Proxies that compress make a strong tag a weak one (RFC 9110, 8.8.3.3).
    if {one.strip().removeprefix("W/") for one in known} & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=kind)
