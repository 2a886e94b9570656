"""CORS of the bucket: web pages whose scripts may send files to it.

A browser asks the bucket before a page of another origin may send it anything, and gives the
answer to the page only if the bucket allows that. What may be sent is decided by the signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from image_pipeline.store.errors import translated, unless

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Our rule among those of the bucket.
RULE = "image-pipeline-intake"

#: Browsers ask again after at most two hours (Chromium's limit; Firefox takes a day).
_MAX_AGE_SECONDS = 7200


def upload_rule(origins: Iterable[str]) -> dict[str, Any]:
    """The rule by which pages of ``origins`` (``https://shop.example``) may upload.

    POST is for files sent whole, PUT for parts. The upload page would do without the rest:
    ``Content-Type`` is for clients that name one with a part, ``ETag`` for those that keep track
    of parts themselves.
    """
    return {
        "ID": RULE,
        "AllowedOrigins": sorted(set(origins)),
        "AllowedMethods": ["POST", "PUT"],
        "AllowedHeaders": ["content-type"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": _MAX_AGE_SECONDS,
    }


def with_upload_rule(
    rules: Sequence[dict[str, Any]], origins: Iterable[str]
) -> list[dict[str, Any]]:
    """The bucket's rules with ours among them; without origins, without ours."""
    others = [rule for rule in rules if rule.get("ID") != RULE]
    wanted = upload_rule(origins)
    # S3 answers by the first rule that fits: a wider one before ours would not expose the ETag.
    return [wanted, *others] if wanted["AllowedOrigins"] else others


def cors(client: S3Client, bucket: str) -> list[dict[str, Any]]:
    """The rules of the bucket's CORS configuration; none where there is none."""
    with translated(bucket), unless("NoSuchCORSConfiguration"):
        answer: Any = client.get_bucket_cors(Bucket=bucket)
        return list(answer.get("CORSRules", ()))
    return []


def put_cors(client: S3Client, bucket: str, rules: Sequence[dict[str, Any]]) -> None:
    """Replace the whole CORS configuration; without rules there is none any more."""
    wanted: Any = {"CORSRules": list(rules)}
    with translated(bucket):
        if rules:
            client.put_bucket_cors(Bucket=bucket, CORSConfiguration=wanted)
        else:
            client.delete_bucket_cors(Bucket=bucket)
