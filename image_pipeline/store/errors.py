"""What can go wrong with a store, and the exceptions of its libraries as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: Error codes of S3 by what they mean. HEAD has no body, so there the code is the status.
_GONE = ("NoSuchKey", "404", "NotFound")
_CHANGED = ("PreconditionFailed", "412")
_ARCHIVED = ("InvalidObjectState", "ObjectNotInActiveTierError", "ObjectNotInActiveTier")


class StoreError(Exception):
    """The store failed or refused; the request may succeed when tried again."""


class ObjectGoneError(Exception):
    """There is no object under this key."""


class ObjectChangedError(Exception):
    """The object under this key is no longer the version that was asked for."""


class ObjectArchivedError(Exception):
    """The object lies in an archive and has to be restored before it can be read."""


@contextmanager
def translated(what: str, kind: type[StoreError] = StoreError) -> Iterator[None]:
    """Boto3's, botocore's and urllib3's exceptions as ours."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        ours = _exception_of(error.response.get("Error", {}).get("Code", ""))
        if ours is not None:
            raise ours(what) from None
        raise kind(f"{what}: {error}") from error
    except (Boto3Error, BotoCoreError, HTTPError, ConnectionError, TimeoutError) as error:
        raise kind(f"{what}: {error}") from error


@contextmanager
def unless(*codes: str) -> Iterator[None]:
    """Pass over errors of S3 with one of these codes: what was wanted is so already."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code", "") not in codes:
            raise


def _exception_of(code: str) -> type[Exception] | None:
    for codes, ours in (
        (_GONE, ObjectGoneError),
        (_CHANGED, ObjectChangedError),
        (_ARCHIVED, ObjectArchivedError),
    ):
        if code in codes:
            return ours
    return None
