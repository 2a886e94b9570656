"""Settings: built-in defaults, then ``pipeline.yaml``, then the environment.

The result is one frozen, validated :class:`Settings`. Nothing else in the package reads the
environment, and nothing below this module imports anything of the package.

A variable overrides the field of the same path, with two underscores for a dot:
``IMAGE_PIPELINE_BUCKET__ENDPOINT_URL`` sets ``bucket.endpoint_url``. Credentials are never
settings: boto3 finds them where it always does (``AWS_ACCESS_KEY_ID``, profiles, roles).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

CONFIG_VARIABLE = "IMAGE_PIPELINE_CONFIG"
CONFIG_NAME = "pipeline.yaml"

#: An optional text that a variable can take away again: compose files pass on empty ones.
OptionalText = Annotated[str | None, BeforeValidator(lambda value: value or None)]

Role = Literal["responsive", "thumbnail"]
FormatName = Literal["avif", "webp", "jpeg"]
DuplicateTier = Literal["bytes", "pixels", "picture"]

#: A share of a side of a picture, from its left or upper edge.
Share = Annotated[float, Field(ge=0, le=1)]

#: Where a crop is cut: by a rule, or around a focal point (x, y).
Crop = Literal["attention", "entropy", "center"] | tuple[Share, Share]

#: The value of ``bucket.endpoint_url`` that stands for the server on this machine.
EMBEDDED = "embedded"

#: Prefixes of the bucket that the pipeline writes; a source may not lie inside one.
OWN_PREFIXES = (
    "batches/", "ledger/", "variants/", "manifests/", "indexes/", "galleries/", "tables/",
    "plans/", "trash/",
)  # fmt: skip


class SettingsError(Exception):
    """The settings are wrong; the message names the file and the path of each bad field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BucketSettings(_Part):
    """Where objects live. ``endpoint_url`` is empty for AWS itself.

    ``embedded`` instead of a URL means the S3 server that ``make dev`` and ``make demo`` start
    on this machine, with its files under ``data``.
    """

    name: str = Field(default="images", min_length=3, max_length=63)
    endpoint_url: OptionalText = None
    data: Path = Path(".data/s3")
    region: str = "us-east-1"
    addressing: Literal["auto", "path", "virtual"] = "auto"


class CatalogSettings(_Part):
    """SQLAlchemy URL of the catalog. Relative SQLite paths count from ``pipeline.yaml``."""

    url: str = Field(default="sqlite:///.data/catalog.db", repr=False)


class Limits(_Part):
    """What one upload may be before it is decoded.

    ``megapixels`` bounds width x height in 10^6 pixels, ``megabytes`` the file in 10^6 bytes,
    ``side`` either edge in pixels, ``frames`` the frames of an animation (only the first one
    is decoded, unless the recipe keeps animations), ``scans`` the scans of a progressive JPEG:
    each scan walks every pixel, so a file of a few hundred kB can otherwise keep a decoder busy
    for minutes. ``metadata_megabytes`` bounds EXIF, XMP, profiles and comments together, in
    10^6 bytes: phones put depth maps of a few MB there, nobody more.
    """

    megapixels: float = Field(default=100.0, gt=0, le=500)
    megabytes: float = Field(default=64.0, gt=0, le=2000)
    side: int = Field(default=30_000, gt=0, le=65_535)
    frames: int = Field(default=10_000, gt=0)
    scans: int = Field(default=64, gt=0)
    metadata_megabytes: float = Field(default=16.0, gt=0, le=2000)


class DuplicatePolicy(_Part):
    """Tiers whose members share the variants of their canonical image.

    ``near`` says whether pictures that only resemble each other (mirrored, turned, cropped,
    framed, with a logo) are looked for and reported. They are never acted on.
    """

    share: tuple[DuplicateTier, ...] = ("bytes", "pixels", "picture")
    near: bool = True


#: Also the name of the template's folder and part of keys in the bucket.
TemplateName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}$")]


class Source(_Part):
    """A watched prefix: its recipe, its limits and what counts as a duplicate in it."""

    prefix: str
    recipe: str = "web"
    limits: Limits = Limits()
    duplicates: DuplicatePolicy = DuplicatePolicy()
    base_url: OptionalText = Field(default=None, description="overrides delivery.base_url")
    fresh_hours: float | None = Field(
        default=None, gt=0, description="overrides delivery.warming.fresh_hours"
    )
    access: Literal["public", "private"] = Field(
        default="public", description="private: URLs work only signed, see delivery.signing"
    )
    mockups: Literal["all"] | tuple[TemplateName, ...] = Field(
        default=(), description="templates that its pictures are composed onto"
    )

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, prefix: str) -> str:
        if not prefix.endswith("/") or prefix.startswith("/"):
            raise ValueError("must end with '/' and not start with one, like 'uploads/photos/'")
        if prefix.startswith(OWN_PREFIXES):
            raise ValueError("lies inside a prefix that the pipeline writes itself")
        return prefix


#: Offsets from 1920 px on. Measured on 59 photographs: with the default qualities thumbnails
#: then score 80 points of SSIMULACRA2 on average, sizes between 77 and large ones 74, in all
#: three formats.
_LARGE_OFFSETS: dict[FormatName, int] = {"avif": -5, "webp": -2, "jpeg": -7}


class Size(_Part):
    """One step of a recipe: a box in pixels and how the picture meets it.

    ``inside`` keeps the whole picture and never enlarges it; ``cover`` crops to the box's
    aspect ratio, where ``crop`` says: around what catches the eye (``attention``), around
    detail (``entropy``), the ``center``, or around a focal point given as two shares of the
    picture's width and height, from its upper left corner.

    ``quality`` sets the quality of a format at this size. For formats it does not name,
    ``quality_offset`` is added to the format's own. Left out, it is +4 for thumbnails, and from
    1920 px on -7 for JPEG, -5 for AVIF and -2 for WebP: large variants are mostly seen on dense
    screens, where the eye forgives more, and their encoders' scales have another slope there.
    """

    role: Role = "responsive"
    width: int = Field(gt=0, le=16_383)
    height: int = Field(gt=0, le=16_383)
    fit: Literal["inside", "cover"] = "inside"
    crop: Crop = "attention"
    quality: dict[FormatName, Annotated[int, Field(ge=1, le=100)]] = {}
    quality_offset: int | None = Field(default=None, ge=-50, le=50)

    def offset(self, kind: FormatName) -> int:
        """The quality offset in force for a format, in points of its encoder's own scale."""
        if self.quality_offset is not None:
            return self.quality_offset
        if self.role == "thumbnail":
            return 4
        return _LARGE_OFFSETS[kind] if self.width >= 1920 else 0


class Avif(_Part):
    """AVIF by libavif, 4:2:0, one thread. ``speed`` 0 (slow) to 10."""

    quality: int = Field(default=64, ge=1, le=100)
    speed: int = Field(default=9, ge=0, le=10)


class Webp(_Part):
    """Lossy WebP by libwebp. ``method`` 0 (fast) to 6."""

    quality: int = Field(default=82, ge=1, le=100)
    method: int = Field(default=4, ge=0, le=6)


class Jpeg(_Part):
    """JPEG by libjpeg-turbo, 4:2:0, optimised Huffman tables."""

    quality: int = Field(default=78, ge=1, le=95)
    progressive: bool = True


class Formats(_Part):
    """Formats a recipe renders, best first. The qualities 64 / 82 / 78 look alike (see docs)."""

    avif: Avif | None = None
    webp: Webp | None = None
    jpeg: Jpeg | None = None

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: {} if part is None else part for name, part in value.items()}
        return value

    @property
    def names(self) -> tuple[FormatName, ...]:
        """The formats that are rendered, best first."""
        order: tuple[FormatName, ...] = ("avif", "webp", "jpeg")
        return tuple(name for name in order if getattr(self, name) is not None)


class AutoQuality(_Part):
    """Quality by the eye: the one that comes nearest to ``target`` points of SSIMULACRA2.

    70 is good, 80 high, 90 cannot be told from the original.
    """

    target: float = Field(default=75.0, ge=40, le=95)


class LargeSources(_Part):
    """What is taken off every quality for originals of more than ``megapixels`` (10^6 pixels).

    A variant of a very large original is reduced so much that it comes out sharper, and
    costs more bytes, than one of a phone's picture.
    """

    megapixels: float = Field(default=24.0, gt=0)
    quality_offset: int = Field(default=-4, ge=-50, le=0)


SizeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,30}$")]

DEFAULT_SIZES: dict[str, Size] = {
    "thumbnail": Size(role="thumbnail", width=400, height=400, fit="cover"),
    "small": Size(width=640, height=480),
    "medium": Size(width=1024, height=768),
    "large": Size(width=1920, height=1080),
    "xlarge": Size(width=2560, height=1440),
}


class Recipe(_Part):
    """Which sizes and formats a source gets.

    ``background`` (``#rrggbb``) is what transparent pixels are flattened on, for JPEG only.
    ``quality`` is ``fixed`` (the numbers of ``formats`` and ``sizes``) or ``auto``, which finds
    the numbers for every picture; ``large_sources`` lowers fixed ones for very large originals.
    ``animation: keep`` makes animated WebP of an animation whose frames have at most
    ``animation_megapixels`` (10^6 pixels) in all, instead of showing its first frame.
    ``keep_copyright`` puts the original's copyright notice into every file; all other
    metadata is always removed.
    """

    sizes: dict[SizeName, Size] = Field(default=DEFAULT_SIZES, min_length=1)
    formats: Formats = Formats(avif=Avif(), webp=Webp(), jpeg=Jpeg())
    background: str = Field(default="#ffffff", pattern=r"^#[0-9a-fA-F]{6}$")
    quality: Literal["fixed"] | AutoQuality = "fixed"
    large_sources: LargeSources | None = None
    animation: Literal["first_frame", "keep"] = "first_frame"
    animation_megapixels: float = Field(default=100.0, gt=0, le=1000)
    keep_copyright: bool = False

    @field_validator("quality", mode="before")
    @classmethod
    def _auto_means_defaults(cls, value: Any) -> Any:
        return AutoQuality() if value == "auto" else value

    @model_validator(mode="after")
    def _renders_something(self) -> Self:
        if not self.formats.names:
            raise ValueError("formats: name at least one of avif, webp, jpeg")
        return self


class Batches(_Part):
    """When a batch closes, and how it is tried.

    A batch closes at ``max_images`` uploads, at ``max_megabytes``, when its oldest upload has
    waited ``max_age_seconds``, or as soon as nothing new arrived for ``quiet_seconds``.
    At most ``max_running`` batches of a source are requested at a time; a batch whose run
    ended red is tried ``max_attempts`` times in all. A run holds its batch by a lease of
    ``lease_seconds`` that it renews; one that stops renewing is taken for dead.
    """

    max_images: int = Field(default=200, gt=0, le=10_000)
    max_megabytes: float = Field(default=1000.0, gt=0)
    max_age_seconds: float = Field(default=10.0, ge=0)
    quiet_seconds: float = Field(default=1.0, ge=0)
    max_running: int = Field(default=10, gt=0)
    max_attempts: int = Field(default=4, gt=0)
    lease_seconds: float = Field(default=60.0, ge=2)
    retry_seconds: float = Field(default=30.0, ge=0)


class Discovery(_Part):
    """How a source is watched: seconds between looks, and the time one look may take.

    With a ``queue_url``, of an SQS queue that the bucket's events go to, uploads are known from
    there; the prefix is then swept only every ``reconcile_minutes``, for what no event told.

    Dagster's daemon looks every five seconds at most; at exactly five, every other look would
    come a moment too early and be left out.
    """

    every_seconds: int = Field(default=2, gt=0)
    tick_seconds: float = Field(default=20.0, gt=0, le=50)
    queue_url: OptionalText = Field(default=None, pattern="^https?://")
    reconcile_minutes: float = Field(default=60.0, gt=0)


class Workers(_Part):
    """Processes that decode and encode. ``auto`` means one per core this process may use.

    With the address of a Dask scheduler as ``cluster`` its workers do that instead.
    """

    processes: Literal["auto"] | Annotated[int, Field(gt=0, le=256)] = "auto"
    seconds_per_image: float = Field(default=60.0, gt=0)
    memory_megabytes: int = Field(default=1024, ge=256)
    spool: Path = Path(".data/spool")
    cluster: OptionalText = Field(default=None, pattern=r"^(tcp|tls|ws|wss|ucx)://.+:\d+$")

    def with_processes(self, processes: int | None) -> Self:
        """The same with so many processes of this machine; with None unchanged."""
        if processes is None:
            return self
        return self.model_copy(update={"processes": processes, "cluster": None})

    @property
    def count(self) -> int:
        """Number of worker processes."""
        if self.processes != "auto":
            return self.processes
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1


class Warming(_Part):
    """How published files are fetched through the edge, so that visitors find them there.

    At most ``concurrency`` requests at a time and ``per_second`` a second; each is tried
    ``attempts`` times and may take ``timeout_seconds`` and ``max_megabytes`` (10^6 bytes).
    Only hosts of ``base_url`` are asked, and only at public addresses unless
    ``allow_private_addresses``. What the edge answered well is asked for again after
    ``fresh_hours``: edges drop what nobody looks at.
    """

    concurrency: int = Field(default=16, gt=0, le=1000)
    per_second: float = Field(default=200.0, gt=0)
    attempts: int = Field(default=3, gt=0, le=10)
    timeout_seconds: float = Field(default=30.0, gt=0)
    max_megabytes: float = Field(default=50.0, gt=0)
    allow_private_addresses: bool = False
    fresh_hours: float = Field(default=24.0, gt=0)


class Signing(_Part):
    """How URLs of private sources are signed, and for how many minutes they then work.

    With a ``base_url`` they are CloudFront's: ``key_pair_id`` names the public key there,
    ``private_key`` is its RSA key in PEM, from the environment only. Without one they are
    presigned by S3, for at most seven days (its own limit), and no key is needed.
    """

    key_pair_id: OptionalText = None
    private_key: SecretStr | None = None
    minutes: float = Field(default=60.0, gt=0, le=7 * 24 * 60)


class Delivery(_Part):
    """``base_url`` stands before every published key; empty, the bucket's own URL does."""

    base_url: OptionalText = None
    sizes: str = Field(default="100vw", description="the sizes attribute of ready markup")
    warming: Warming = Warming()
    signing: Signing = Signing()


class KeepMinutes(_Part):
    """How long Redis keeps what it was given, by kind, in minutes.

    Shorter for what changes with every batch, longer for what hardly ever does.
    """

    index: float = Field(default=30.0, gt=0)
    # No longer than files stay that it may name: cleanup.grace_days is a day at least.
    manifest: float = Field(default=60.0, gt=0, le=24 * 60)
    thumbnail: float = Field(default=24 * 60.0, gt=0)
    statistics: float = Field(default=5.0, gt=0)


class RedisSettings(_Part):
    """A Redis or Valkey server that manifests are published to as well; none without ``url``.

    ``embedded`` instead of a URL means the server that ``make dev`` and ``make demo`` start
    on this machine, with its files under ``data``. ``thumbnails`` publishes the bytes of the
    smallest thumbnail too. Values of ``compress_from_bytes`` and more are compressed if that
    makes them smaller. A request that takes longer than ``timeout_seconds`` counts as failed,
    and the bucket is asked instead.
    """

    url: OptionalText = Field(default=None, repr=False)
    data: Path = Path(".data/valkey")
    connections: int = Field(default=16, gt=0, le=1000)
    timeout_seconds: float = Field(default=0.5, gt=0)
    compress_from_bytes: int = Field(default=2048, ge=0)
    thumbnails: bool = False
    keep_minutes: KeepMinutes = KeepMinutes()


StorageClass = Literal["STANDARD_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"]


class Cleanup(_Part):
    """When an object that nobody refers to may be removed, and when a plan is refused.

    An object must have been unknown in two inventories at least ``sightings_hours`` apart, and
    be older than ``grace_days`` (``upload_grace_days`` under a source's prefix). A plan of more
    than ``max_share`` of the bucket's objects or bytes has to be confirmed by its id. Plans are
    applied within ``plan_hours``. What is removed lies in the trash for ``trash_days``.
    Nothing under a prefix of ``protected`` is ever touched.
    """

    grace_days: float = Field(default=14.0, ge=1)
    upload_grace_days: float = Field(default=30.0, ge=1)
    sightings_hours: float = Field(default=24.0, ge=1)
    max_share: float = Field(default=0.02, gt=0, le=1)
    plan_hours: float = Field(default=72.0, gt=0)
    trash_days: float = Field(default=30.0, ge=1)
    protected: tuple[str, ...] = ()


class ClassRule(_Part):
    """Originals unused for ``after_days`` move to a class of storage, if it is a colder one."""

    to: StorageClass
    after_days: float = Field(ge=30)


class Classes(_Part):
    """Which originals move to colder storage. Rules count from the last use of an original.

    Originals below ``min_kilobytes`` (10^3 bytes) stay: the colder classes bill 128 KB at
    least. Moves that would cost more than they save within ``payback_months`` are left out.
    """

    rules: tuple[ClassRule, ...] = (
        ClassRule(to="STANDARD_IA", after_days=30),
        ClassRule(to="GLACIER", after_days=180),
    )
    min_kilobytes: float = Field(default=131.072, ge=131.072)
    payback_months: float = Field(default=12.0, gt=0)
    restore_days: int = Field(default=7, gt=0, le=365)
    restore_tier: Literal["Expedited", "Standard", "Bulk"] = "Standard"


def _is_cron(cron: str) -> str:
    if len(cron.split()) != 5:
        raise ValueError("must be a cron expression of five fields, like '0 3 * * 0'")
    return cron


Cron = Annotated[str, AfterValidator(_is_cron)]


class Crons(_Part):
    """When each job of housekeeping runs, in UTC."""

    cleanup: Cron = "0 3 * * 0"
    classes: Cron = "0 5 * * 0"
    lifecycle: Cron = "0 6 * * 0"
    refresh: Cron = "0 4 1 * *"
    history: Cron = "0 4 2 * *"


class Maintenance(_Part):
    """Housekeeping. With ``dry_run`` every job shows what it would do and does nothing.

    ``inventory`` is the ``s3://bucket/prefix/`` of S3 Inventory reports (CSV, ORC or Parquet);
    without it the bucket is listed. ``max_objects`` bounds what one run removes or moves.
    ``refresh`` re-renders images whose files are ``missing``, or also those of an older recipe
    (``outdated``). Dagster's runs, events, ticks and finished partitions are kept for
    ``history_days``.
    """

    dry_run: bool = True
    max_objects: int = Field(default=100_000, gt=0)
    inventory: str | None = Field(default=None, pattern=r"^s3://[a-z0-9.\-]{3,63}/.*$")
    cleanup: Cleanup = Cleanup()
    classes: Classes = Classes()
    refresh: Literal["missing", "outdated"] = "missing"
    history_days: float = Field(default=90.0, ge=1)
    crons: Crons = Crons()


class Email(_Part):
    """A mail server and who is written to. ``password`` from the environment only."""

    host: str
    port: int = Field(default=587, gt=0, le=65_535)
    starttls: bool = True
    sender: str
    to: tuple[str, ...] = Field(min_length=1)
    username: str | None = None
    password: SecretStr | None = None


class AlertSettings(_Part):
    """Who is told that a run failed; nobody unless one of these is set.

    ``webhook`` gets JSON, ``slack`` is an incoming webhook there. Both URLs let anyone who has
    them write, so they come from the environment only. ``ui_url`` of the web server makes links.
    """

    webhook: SecretStr | None = None
    slack: SecretStr | None = None
    email: Email | None = None
    ui_url: OptionalText = None

    @field_validator("webhook", "slack")
    @classmethod
    def _is_http(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("must be a URL that begins with https:// or http://")
        return url

    @property
    def any(self) -> bool:
        """Whether anybody is told."""
        return bool(self.webhook or self.slack or self.email)


SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,30}$")]


class IntakeSource(_Part):
    """What the intake takes for a source, and from whom.

    ``keys`` holds the SHA-256 of API keys (64 hexadecimal digits), each by the name of who has it;
    ``image-pipeline intake key`` makes one. With ``anonymous`` no key is asked for. A request names
    up to ``files`` files of ``megabytes`` (10^6 bytes) at most, of ``types`` (empty: all that are
    decoded); what it is answered works for ``minutes``.
    """

    keys: dict[SourceName, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}
    anonymous: bool = False
    files: int = Field(default=20, gt=0, le=1000)
    megabytes: float = Field(default=50.0, gt=0, le=2000)
    types: tuple[str, ...] = ()
    minutes: float = Field(default=15.0, gt=0, le=7 * 24 * 60)

    @model_validator(mode="after")
    def _lets_somebody_in(self) -> Self:
        if not self.keys and not self.anonymous:
            raise ValueError("nobody could upload: name keys, or set 'anonymous: true'")
        return self


class Intake(_Part):
    """The HTTP service that hands out permissions to upload; off unless ``sources`` names some.

    ``origins`` are web pages (``https://shop.example``) whose scripts may use it. Who has a key, or
    an address without one, may ask ``per_second`` times a second, and ``burst`` times at once.
    Files above ``multipart_megabytes`` are sent in parts that can be resumed.
    """

    sources: dict[SourceName, IntakeSource] = {}
    origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/]+$")], ...] = ()
    per_second: float = Field(default=20.0, gt=0)
    burst: int = Field(default=60, gt=0)
    multipart_megabytes: float = Field(default=25.0, ge=5)


class MockupSettings(_Part):
    """Where templates lie in the bucket, and how many pictures are composed in one step.

    Sources name theirs in ``sources.<name>.mockups``; without any, there are no mockups.
    """

    templates: str = "templates/"
    chunk: int = Field(default=50, gt=0, le=1000)

    @field_validator("templates")
    @classmethod
    def _is_a_folder(cls, prefix: str) -> str:
        if not prefix.endswith("/") or prefix.startswith(("/", *OWN_PREFIXES)):
            raise ValueError("must be a folder like 'templates/', and none the pipeline writes")
        return prefix


class Mirror(_Part):
    """An SFTP server that gets a copy of originals and chosen variants; none without ``host``.

    ``originals`` of ``sources`` (empty: all) are copied below ``path``, and variants of the sizes
    named in ``variants``. ``connections`` are kept open, ``transfers`` of them send at a time.
    With ``verify: content`` every file is read back and hashed, with ``size`` only measured.
    The server has to show ``host_key`` (as in known_hosts: ``ssh-ed25519 AAAA...``) or a key of
    the file ``known_hosts``, unless ``check_host_key`` is off. ``password`` or ``private_key``
    (OpenSSH or PEM) come from the environment only.
    """

    host: OptionalText = None
    port: int = Field(default=22, gt=0, le=65_535)
    username: OptionalText = None
    password: SecretStr | None = None
    private_key: SecretStr | None = None
    check_host_key: bool = True
    host_key: OptionalText = None
    known_hosts: Path | None = None
    path: str = Field(default="images", min_length=1)
    sources: tuple[SourceName, ...] = ()
    originals: bool = True
    variants: tuple[SizeName, ...] = ()
    connections: int = Field(default=10, gt=0, le=100)
    transfers: int = Field(default=4, gt=0, le=100)
    attempts: int = Field(default=4, gt=0, le=20)
    verify: Literal["content", "size"] = "content"
    timeout_seconds: float = Field(default=30.0, gt=0)
    cron: Cron = "30 * * * *"


class Performance(_Part):
    """What is measured of runs and the catalog; nothing unless ``enabled``.

    Statements that take ``slow_query_milliseconds`` are written down with their plan. The report
    goes back ``weeks``.
    """

    enabled: bool = False
    slow_query_milliseconds: float = Field(default=100.0, gt=0)
    weeks: int = Field(default=8, gt=0, le=104)
    cron: Cron = "0 2 * * *"


class Settings(BaseSettings):
    """Everything that can be configured. Frozen; unknown fields are errors."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="IMAGE_PIPELINE_", env_nested_delimiter="__"
    )

    bucket: BucketSettings = BucketSettings()
    catalog: CatalogSettings = CatalogSettings()
    sources: dict[SourceName, Source] = Field(
        default={"photos": Source(prefix="uploads/photos/")}, min_length=1
    )
    recipes: dict[str, Recipe] = {"web": Recipe()}
    batches: Batches = Batches()
    discovery: Discovery = Discovery()
    workers: Workers = Workers()
    delivery: Delivery = Delivery()
    redis: RedisSettings = RedisSettings()
    maintenance: Maintenance = Maintenance()
    alerts: AlertSettings = AlertSettings()
    intake: Intake = Intake()
    mockups: MockupSettings = MockupSettings()
    mirror: Mirror = Mirror()
    performance: Performance = Performance()
    ahead_days: float = Field(
        default=0.0,
        ge=0,
        description="rehearsals: the pipeline's clock is this far ahead. Embedded bucket only",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        return env_settings, init_settings

    @field_validator("recipes")
    @classmethod
    def _web_is_always_there(cls, recipes: dict[str, Recipe]) -> dict[str, Recipe]:
        return {"web": Recipe(), **recipes}

    @model_validator(mode="after")
    def _sources_fit_together(self) -> Self:
        for name, source in self.sources.items():
            if source.recipe not in self.recipes:
                known = ", ".join(sorted(self.recipes))
                raise ValueError(f"sources.{name}.recipe: no recipe {source.recipe!r} ({known})")
            for other, that in self.sources.items():
                if other != name and that.prefix.startswith(source.prefix):
                    raise ValueError(
                        f"sources.{other}.prefix: {that.prefix!r} lies inside sources.{name}"
                    )
        return self

    @model_validator(mode="after")
    def _private_sources_have_hosts_of_their_own(self) -> Self:
        """Files are named by image: a CDN cannot tell sources of one host apart by their paths."""
        for name, source in self.sources.items():
            for other in self.neighbours_of(name):
                if source.access == "private" and self.sources[other].access == "public":
                    raise ValueError(
                        f"sources.{name}.base_url: also serves the public source {other!r}; a"
                        " private source needs a host of its own, whose every URL asks for a"
                        " signature"
                    )
        return self

    @model_validator(mode="after")
    def _optional_parts_know_their_sources(self) -> Self:
        for part, names in (("intake", self.intake.sources), ("mirror", self.mirror.sources)):
            for name in names:
                if name not in self.sources:
                    known = ", ".join(sorted(self.sources))
                    raise ValueError(f"{part}.sources: no source {name!r} ({known})")
        for name, source in self.sources.items():
            one, other = source.prefix, self.mockups.templates
            if source.mockups and (one.startswith(other) or other.startswith(one)):
                raise ValueError(f"sources.{name}.prefix: overlaps mockups.templates")
        return self

    @model_validator(mode="after")
    def _rehearses_at_home(self) -> Self:
        if self.ahead_days and self.bucket.endpoint_url != EMBEDDED:
            raise ValueError(
                "ahead_days: only with 'bucket.endpoint_url: embedded'; elsewhere a clock that is"
                " ahead would remove what is new"
            )
        return self

    def now(self) -> datetime:
        """The pipeline's clock, UTC: the machine's, plus ``ahead_days`` in a rehearsal."""
        return datetime.now(UTC) + timedelta(days=self.ahead_days)

    def recipe_of(self, source: str) -> Recipe:
        """The recipe of a source; ``KeyError`` if there is no such source."""
        return self.recipes[self.sources[source].recipe]

    def fresh_hours_of(self, source: str) -> float:
        """Hours after which a file of a source is asked for again at its edge."""
        return self.sources[source].fresh_hours or self.delivery.warming.fresh_hours

    def base_url_of(self, source: str) -> str | None:
        """The configured URL before every key of a source, without a trailing slash."""
        url = self.sources[source].base_url or self.delivery.base_url
        return url.rstrip("/") if url else None

    def neighbours_of(self, source: str) -> list[str]:
        """Other sources that a pattern for the URLs of this one also covers."""
        base = self.base_url_of(source)
        others = ((name, self.base_url_of(name)) for name in sorted(self.sources) if name != source)
        return [name for name, its in others if base and its and _overlap(base, its)]


def _overlap(one: str, other: str) -> bool:
    """Whether two base URLs are of one host, and one's folder holds the other's."""
    a, b = AnyUrl(one), AnyUrl(other)
    left, right = (f"{(url.path or '').rstrip('/')}/" for url in (a, b))
    return a.host == b.host and (left.startswith(right) or right.startswith(left))


def find_config(path: Path | str | None = None) -> Path | None:
    """The settings file: ``path``, else ``$IMAGE_PIPELINE_CONFIG``, else ``./pipeline.yaml``."""
    named = path or os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    here = Path(CONFIG_NAME)
    return here if here.is_file() else None


def load_settings(path: Path | str | None = None) -> Settings:
    """Read and check the settings.

    Raises :class:`SettingsError` with one line per mistake, each with the path of the field.
    """
    config = find_config(path)
    raw = _read_yaml(config) if config else {}
    try:
        settings = Settings(**raw)
    except ValidationError as error:
        raise SettingsError(_explain(error, config)) from None
    root = (config.parent if config else Path()).resolve()
    return _anchored(settings, root)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not YAML: {error}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise SettingsError(f"{path}: must hold named parts such as 'sources:' at the top level")
    for part in ("catalog", "redis"):
        url = raw[part].get("url") if isinstance(raw.get(part), dict) else None
        if isinstance(url, str) and re.search(r"://[^/@]*:[^/@]+@", url):
            raise SettingsError(
                f"{path}: {part}.url: holds a password; secrets come from the environment,"
                f" set IMAGE_PIPELINE_{part.upper()}__URL instead"
            )
    _refuse_secrets(path, raw)
    return raw


#: Fields that hold a secret and are therefore never read from a file.
_SECRETS = (
    ("delivery", "signing", "private_key"),
    ("alerts", "webhook"),
    ("alerts", "slack"),
    ("alerts", "email", "password"),
    ("mirror", "password"),
    ("mirror", "private_key"),
)


def _refuse_secrets(path: Path, raw: Mapping[str, Any]) -> None:
    for names in _SECRETS:
        part: Any = raw
        for name in names:
            part = part.get(name) if isinstance(part, Mapping) else None
        if part is not None:
            raise SettingsError(
                f"{path}: {'.'.join(names)}: is a secret; secrets come from the environment,"
                f" set IMAGE_PIPELINE_{'__'.join(names).upper()} instead"
            )


def _explain(error: ValidationError, config: Path | None) -> str:
    where = str(config) if config else "settings"
    lines = []
    for mistake in error.errors(include_url=False):
        field = ".".join(str(part) for part in mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            message = "unknown field"
            if re.search(r"secret|password|token|access_key", field, re.IGNORECASE):
                message += "; secrets come from the environment, not from a file"
        lines.append(f"{where}: {field}: {message}" if field else f"{where}: {message}")
    return "\n".join(lines)


def _anchored(settings: Settings, root: Path) -> Settings:
    """Relative local paths count from the folder of the settings file."""
    update: dict[str, Any] = {
        "workers": settings.workers.model_copy(update={"spool": root / settings.workers.spool}),
        "bucket": settings.bucket.model_copy(update={"data": root / settings.bucket.data}),
        "redis": settings.redis.model_copy(update={"data": root / settings.redis.data}),
    }
    if settings.mirror.known_hosts is not None:
        known = {"known_hosts": root / settings.mirror.known_hosts}
        update["mirror"] = settings.mirror.model_copy(update=known)
    relative = re.fullmatch(r"(sqlite[^:]*:///)(?!/)(?!:memory:)(.+)", settings.catalog.url)
    if relative:
        url = f"{relative[1]}{root / relative[2]}"
        update["catalog"] = settings.catalog.model_copy(update={"url": url})
    return settings.model_copy(update=update)
