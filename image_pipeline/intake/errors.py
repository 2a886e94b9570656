"""What the service answers when it does not do what it was asked."""

from __future__ import annotations

import logging
import math
from typing import Any

import sqlalchemy as sa
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from image_pipeline.intake.threads import BusyError
from image_pipeline.store.errors import StoreError

#: Seconds after which it is worth asking a service again that could not reach what it needs.
_PAUSE_SECONDS = 2

_log = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer with a status that is no success: a ``code`` for programs, a ``message`` for
    people that says what to do, and ``more`` that belongs to it.
    """  # noqa: D205 - one sentence

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}
        self.more = more or {}


def error_response(error: ApiError) -> Response:
    """The error as JSON."""
    content = {"error": {"code": error.code, "message": error.message, **error.more}}
    return JSONResponse(content, error.status, error.headers)


def too_many(seconds: float, message: str) -> ApiError:
    """429, with the whole seconds to wait."""
    after = str(max(1, math.ceil(seconds)))
    return ApiError(429, "too_many_requests", message, headers={"Retry-After": after})


def unavailable() -> ApiError:
    """503: nothing is wrong with the request."""
    return ApiError(
        503,
        "unavailable",
        "the service cannot answer at the moment: try again",
        headers={"Retry-After": str(_PAUSE_SECONDS)},
    )


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_http(request: Request, error: Exception) -> Response:
    """What the router itself refuses."""
    assert isinstance(error, HTTPException)
    code, message = {
        404: ("not_found", "there is nothing at this address: see /openapi.json"),
        405: ("method", "this address takes other methods: see the header Allow"),
    }.get(error.status_code, ("refused", error.detail))
    return error_response(
        ApiError(error.status_code, code, message, headers=dict(error.headers or {}))
    )


async def _on_outage(request: Request, error: Exception) -> Response:
    # Without the address: it holds the id.
    _log.warning("cannot answer a %s: %s", request.method, error)
    return error_response(unavailable())


HANDLERS: dict[Any, Any] = {
    ApiError: _on_api_error,
    HTTPException: _on_http,
    BusyError: _on_outage,
    StoreError: _on_outage,
    sa.exc.DBAPIError: _on_outage,
    sa.exc.TimeoutError: _on_outage,
}
