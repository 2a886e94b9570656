"""What requests may hold, and reading them: so many bytes, in so many seconds, of this form."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from image_pipeline.intake.errors import ApiError

#: Largest body: 1,000 files (the most a source can allow) with the longest names and types.
BODY_BYTES = 1024 * 1024

#: A body of that size takes 8 s at 1 Mbit/s. Who sends slower holds a connection for nothing.
BODY_SECONDS = 10.0

#: Numbers that JSON carries exactly everywhere (RFC 8259, 6); no file is larger.
_LARGEST = 2**53 - 1

#: S3 numbers parts from 1 to 10,000.
_MOST_PARTS = 10_000

M = TypeVar("M", bound=BaseModel)


def _whole(value: Any) -> Any:
    """To JSON 5.0 is a whole number too (JSON Schema 2020-12, 4.2.3)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_PartNumber = Annotated[int, Field(ge=1, le=_MOST_PARTS), BeforeValidator(_whole)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileAsked(_Body):
    """A file as a browser knows it: its name, its bytes, its media type.

    Wider than what is taken: what is wrong with one file is said of that file alone.
    """

    name: Annotated[str, Field(max_length=1024)]
    size: Annotated[int, Field(ge=0, le=_LARGEST), BeforeValidator(_whole)]
    type: Annotated[str, Field(max_length=255)]


class UploadsAsked(_Body):
    """Files that somebody wants to send to a source."""

    source: Annotated[str, Field(min_length=1, max_length=31)]
    files: Annotated[list[FileAsked], Field(min_length=1)]


class PartsAsked(_Body):
    """Numbers of parts, from 1, to be told where they go; none to learn only what is there."""

    numbers: Annotated[list[_PartNumber], Field(max_length=1000)]


def check_query(request: Request, *known: str) -> None:
    """Raises :class:`ApiError` 422 for a parameter that is not ``known``: a slip of the pen would
    otherwise be a question about everything.
    """  # noqa: D205 - one sentence
    for name in request.query_params:
        if name not in known:
            raise ApiError(
                422, "invalid", f"{name[:100]}: there is no such parameter", more={"field": name}
            )


async def read(request: Request, form: type[M]) -> M:
    """The body of a request. Raises :class:`ApiError` for anything but JSON of this form.

    Only ``application/json`` is taken: a page of another origin cannot send that without asking
    first, so CORS decides who may.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "media_type", "send JSON with 'Content-Type: application/json'")
    body = await _body(request)
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        raise _explained(error) from None


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise ApiError(
            408,
            "slow",
            f"the request took more than {BODY_SECONDS:g} s to arrive: send it again",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise ApiError(400, "incomplete", "the request broke off: send it again") from None
    return bytes(body)


def _too_large() -> ApiError:
    return ApiError(
        413,
        "body_too_large",
        f"the request is larger than {BODY_BYTES:,} bytes: name fewer files; the files"
        " themselves go to the bucket",
        headers={"Connection": "close"},
    )


def _explained(error: ValidationError) -> ApiError:
    """The first mistake, with the path of its field."""
    mistake = error.errors(include_url=False, include_input=False)[0]
    if mistake["type"] == "json_invalid":
        return ApiError(400, "json", f"the body is not JSON: {mistake['msg']}")
    field = ".".join(str(part) for part in mistake["loc"])
    return ApiError(422, "invalid", f"{field}: {mistake['msg']}", more={"field": field})
