"""What a bucket itself is set to: versions and the lifecycle of its objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from image_pipeline.store.errors import translated, unless

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def is_versioned(client: S3Client, bucket: str) -> bool:
    """Whether the bucket keeps old versions, or did before that was suspended."""
    with translated(bucket), unless("NotImplemented"):
        return "Status" in client.get_bucket_versioning(Bucket=bucket)
    return False


def lifecycle(client: S3Client, bucket: str) -> list[dict[str, Any]]:
    """The rules of the lifecycle configuration; none where there is none."""
    return list(_configuration(client, bucket).get("Rules", ()))


def put_lifecycle(client: S3Client, bucket: str, rules: Sequence[dict[str, Any]]) -> None:
    """Replace the lifecycle configuration; without rules there is none any more."""
    with translated(bucket):
        if not rules:
            client.delete_bucket_lifecycle(Bucket=bucket)
            return
    # A request that does not name it sets it back to S3's default.
    least = _configuration(client, bucket).get("TransitionDefaultMinimumObjectSize")
    kept: Any = {"TransitionDefaultMinimumObjectSize": least} if least else {}
    wanted: Any = {"Rules": list(rules)}
    with translated(bucket):
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration=wanted, **kept
        )


def _configuration(client: S3Client, bucket: str) -> Mapping[str, Any]:
    with translated(bucket), unless("NoSuchLifecycleConfiguration"):
        return client.get_bucket_lifecycle_configuration(Bucket=bucket)
    return {}
