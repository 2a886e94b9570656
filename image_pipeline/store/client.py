"""The boto3 client."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from image_pipeline.settings import EMBEDDED, BucketSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def make_client(settings: BucketSettings, endpoint_url: str | None) -> S3Client:
    """A client for a bucket's server; takes about 0.2 s."""
    import boto3
    import botocore.session
    from botocore.config import Config

    # Left to boto3, "auto" signs for the address of all regions, which answers for a young bucket
    # with a redirect; no browser follows one when it asks for permission.
    on_aws = endpoint_url is None and settings.addressing == "auto"
    config = Config(
        max_pool_connections=50,
        retries={"mode": "adaptive", "max_attempts": 6},
        connect_timeout=5,
        read_timeout=30,
        s3={"addressing_style": "virtual" if on_aws else settings.addressing},
        # Otherwise presigned URLs get version 2, which no bucket made since June 2020 accepts.
        signature_version="s3v4",
    )
    # The embedded server takes any credentials, but boto3 refuses to go without.
    dummy = EMBEDDED if settings.endpoint_url == EMBEDDED else None
    core = botocore.session.get_session()
    core.get_component("response_parser_factory").set_parser_defaults(
        timestamp_parser=_parse_timestamp
    )
    client: S3Client = boto3.session.Session(botocore_session=core).client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=settings.region,
        config=config,
        aws_access_key_id=dummy,
        aws_secret_access_key=dummy,
    )
    return client


def _parse_timestamp(value: Any) -> datetime:
    """Read the form that S3 lists times in: most of the cost of a listing is this, done slowly."""
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        parsed: datetime = parse_timestamp(value)
        return parsed
