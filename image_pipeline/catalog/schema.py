"""Tables of the catalog. Every change here needs a migration beside it."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class UtcDateTime(sa.TypeDecorator[datetime]):
    """Aware datetimes in, aware datetimes out; UTC without an offset in the database."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC; a naive value is a programming error."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the catalog takes aware datetimes only")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back in UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: A bounded set of uploads of one source; the Dagster partition. ``state`` is one of
#: ``waiting`` (formed), ``requested``, ``running``, ``retry``, ``done``, ``given_up``.
#: ``attempt`` counts requests and never goes back: Dagster knows each by its number.
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("uploads", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("lease_owner", sa.Text),
    sa.Column("due_at", UtcDateTime, comment="not touched by a sensor before"),
    sa.Column("finished_at", UtcDateTime),
    sa.Column(
        "spent",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="attempts before the batch was last reopened",
    ),
    sa.Index(None, "source", "state", "due_at"),
    sa.Index(None, "source", "finished_at"),
)

#: One object version under a source. An overwritten key has another ETag: a new upload.
uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("last_modified", UtcDateTime, nullable=False),
    sa.Column("discovered_at", UtcDateTime, nullable=False),
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id")),
    sa.Column("image_id", sa.Text),
    sa.Column("verdict", sa.Text, comment="accepted, duplicate, rejected, failed"),
    sa.Column("reason", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("seconds", sa.Float, nullable=False, server_default="0"),
    sa.Column("decided_at", UtcDateTime),
    sa.Column("storage_class", sa.Text, comment="empty: as it was put"),
    sa.Column("moved_at", UtcDateTime, comment="into that class"),
    sa.UniqueConstraint("source", "key", "etag"),
    sa.Index(None, "batch_id"),
    sa.Index(None, "image_id"),
)
sa.Index(
    "ix_uploads_waiting",
    uploads.c.source,
    uploads.c.id,
    sqlite_where=uploads.c.batch_id.is_(None),
    postgresql_where=uploads.c.batch_id.is_(None),
)

#: One distinct file, by the SHA-256 of its bytes. ``b0`` to ``b4`` are the bands of
#: ``phash64`` by which near hashes are found; 64-bit hashes are stored as signed integers.
images = sa.Table(
    "images",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("orientation", sa.Integer, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("has_alpha", sa.Boolean, nullable=False),
    sa.Column("animated", sa.Boolean, nullable=False),
    sa.Column("lossless", sa.Boolean, nullable=False),
    sa.Column("flags", sa.JSON, nullable=False),
    sa.Column("phash64", sa.BigInteger, nullable=False),
    sa.Column("phash256", sa.Text, nullable=False),
    sa.Column("dhash64", sa.BigInteger, nullable=False),
    sa.Column("texture", sa.Float, nullable=False),
    sa.Column("dominant_color", sa.Text, nullable=False),
    sa.Column("placeholder", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("frames", sa.Integer, nullable=False, server_default="1"),
    sa.Column("quality", sa.Integer, comment="of a JPEG, 1 to 100, estimated"),
    sa.Column("has_profile", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("pixels", sa.Text, comment="hash of the upright pixels"),
    sa.Column("chroma", sa.Text, comment="colours of 4 x 4 cells: hashes are blind to them"),
    sa.Column("content_width", sa.Integer, comment="within a uniform border, if there is one"),
    sa.Column("content_height", sa.Integer),
    sa.Column("content_phash64", sa.BigInteger),
    sa.Column("focal_x", sa.Float, nullable=False, server_default="0.5"),
    sa.Column("focal_y", sa.Float, nullable=False, server_default="0.5"),
    sa.Column("thumbhash", sa.Text),
    *(sa.Column(f"b{band}", sa.SmallInteger, nullable=False) for band in range(5)),
    # With the hash and the id beside the band, all of a lookup is answered by the index: Postgres
    # takes 0.25 s for 100 pictures among a million, and 2.3 s where it has to read the rows.
    *(sa.Index(None, f"b{band}", "phash64", postgresql_include=["id"]) for band in range(5)),
    sa.Index(None, "pixels"),
)

#: Small grey pictures of an image and of its content within a border: 32 x 32 luma values
#: each, row by row. Apart from the rest, which is read far more often.
sketches = sa.Table(
    "sketches",
    metadata,
    sa.Column("image_id", sa.Text, sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("luma", sa.LargeBinary, nullable=False),
    sa.Column("content_luma", sa.LargeBinary),
)

#: Which image stands for an image within a source: itself (``tier`` empty) or its canonical.
#: ``number`` grows with every image that a source gets; ``batch_id`` is the batch that last
#: changed the row and has to publish what follows from it.
members = sa.Table(
    "members",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Text, sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("canonical_id", sa.Text, nullable=False),
    sa.Column("tier", sa.Text),
    sa.Column("distance", sa.Integer, nullable=False),
    sa.Column("upload_id", sa.BigInteger, nullable=False, comment="the upload that brought it"),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("batch_id", sa.Text, nullable=False),
    sa.Index(None, "source", "canonical_id"),
    sa.Index(None, "source", "number", unique=True),
    sa.Index(None, "batch_id"),
)

#: Pictures that resemble a canonical without being it: recorded and reported, never acted on.
#: ``found_by`` names the hash that made the pair a candidate, ``score`` its correlation 0-1.
near = sa.Table(
    "near",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Text, sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("canonical_id", sa.Text, primary_key=True),
    sa.Column("found_by", sa.Text, nullable=False),
    sa.Column("transform", sa.Text, nullable=False),
    sa.Column("distance", sa.Integer, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index(None, "source", "canonical_id"),
)

#: Pairs that people declared to be different pictures; the smaller id first. Kept for ever.
separations = sa.Table(
    "separations",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("one_id", sa.Text, primary_key=True),
    sa.Column("other_id", sa.Text, primary_key=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index(None, "source", "other_id"),
)

#: One published file. Written only after the object itself is in the bucket. A ``dropped`` one
#: was made and found not worth publishing; it has no object.
variants = sa.Table(
    "variants",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Text, sa.ForeignKey("images.id"), nullable=False),
    sa.Column("recipe", sa.Text, nullable=False, comment="fingerprint of recipe and encoders"),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("size", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("quality", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column(
        "dropped",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="not smaller than the next fallback: not in the bucket",
    ),
    sa.Column("metadata", sa.JSON, nullable=False, comment="metadata blocks found: none expected"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index(None, "image_id", "recipe"),
)

#: Published files as the edge last answered for them. ``edge`` is the base URL they were asked
#: for at; ``rank`` 0 is the most wanted; ``cache`` one of hit, miss, unknown.
warmth = sa.Table(
    "warmth",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Text, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("added_at", UtcDateTime, nullable=False),
    sa.Column("asked_at", UtcDateTime),
    sa.Column("edge", sa.Text),
    sa.Column("status", sa.Integer),
    sa.Column("cache", sa.Text),
    sa.Column("first_byte_seconds", sa.Float),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("attempts", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Index(None, "source", "asked_at", "rank"),
    sa.Index(None, "source", "image_id"),
)

#: What is published of an image of a source: the canonical that stands for it and the recipe
#: (fingerprint) of its files. Written before the manifest that says so, and in the same
#: transaction as it is made sure that no file of it is being removed. ``version`` grows with
#: every change of an image's manifest, ``digest`` is the SHA-256 of the manifest's bytes.
publications = sa.Table(
    "publications",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Text, primary_key=True),
    sa.Column("canonical_id", sa.Text, nullable=False),
    sa.Column("recipe", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("batch_id", sa.Text, nullable=False),
    sa.Column("published_at", UtcDateTime, nullable=False),
    sa.Index(None, "canonical_id", "recipe"),
    sa.Index(None, "batch_id"),
)

#: What a batch changed of an image's publication; before it, both are empty if it was new.
changes = sa.Table(
    "changes",
    metadata,
    sa.Column("batch_id", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Text, primary_key=True),
    sa.Column("old_canonical_id", sa.Text),
    sa.Column("old_recipe", sa.Text),
)

#: Plans of housekeeping. ``kind`` is ``orphans`` or ``classes``; ``state`` one of ``planned``,
#: ``applying``, ``applied``, ``purged``, ``restored``. Its entries are the object under
#: ``plans/``, whose SHA-256 is ``digest``. Shares are of the objects and bytes of the bucket.
plans = sa.Table(
    "plans",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("inventory_id", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("share", sa.Float, nullable=False, comment="the larger of objects and bytes"),
    sa.Column("archive", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("applied_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime, comment="purged or restored"),
    sa.Column("results", sa.JSON, comment="counts by what became of an entry"),
    sa.Index(None, "kind", "created_at"),
)

#: Inventories of the bucket; ``complete`` once every object is written down.
inventories = sa.Table(
    "inventories",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("taken_at", UtcDateTime, nullable=False, comment="when the listing began"),
    sa.Column("objects", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("origin", sa.Text, nullable=False, comment="listing or s3-inventory"),
    sa.Column("complete", sa.Boolean, nullable=False),
)

#: Objects that nobody referred to in the inventories since ``first_at``. One that is
#: referred to again, or is another version by its ETag, is forgotten.
sightings = sa.Table(
    "sightings",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("last_modified", UtcDateTime, nullable=False),
    sa.Column("first_at", UtcDateTime, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
    sa.Column("inventory_id", sa.Text, nullable=False),
    sa.Index(None, "first_at"),
)

#: Objects that are being removed or moved right now. Whoever wants to rely on one of them waits
#: until its row is gone. ``touched_at`` is renewed; a row that was not for an hour is left
#: over from a process that was killed.
removals = sa.Table(
    "removals",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("plan_id", sa.Text, nullable=False),
    sa.Column("touched_at", UtcDateTime, nullable=False),
    sa.Index(None, "plan_id"),
)

#: What a stage of a batch took, one row each time it ran; those of passes over whole sources have
#: no batch. ``day`` is the UTC day it began on, so that both databases group by it alike.
#: ``histogram`` counts seconds per image (:mod:`image_pipeline.performance.timings`), ``worst`` is
#: the longest, ``slowest`` are lists of upload id and seconds: never a key, which people may want
#: forgotten. ``amounts`` are named numbers that may be added up over rows.
timings = sa.Table(
    "timings",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("batch_id", sa.Text),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("day", sa.Text, nullable=False),
    sa.Column("began_at", UtcDateTime, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("cpu_seconds", sa.Float, nullable=False),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("recipe", sa.Text, nullable=False, comment="fingerprint, of what renders"),
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("bytes_in", sa.BigInteger, nullable=False),
    sa.Column("bytes_out", sa.BigInteger, nullable=False),
    sa.Column("worst", sa.Float, nullable=False),
    sa.Column("histogram", sa.JSON, nullable=False),
    sa.Column("slowest", sa.JSON, nullable=False),
    sa.Column("amounts", sa.JSON, nullable=False),
    sa.Index(None, "day", "stage"),
)

#: Statements that took too long, by their normalised text: never with a value, which may be
#: private. ``id`` is made from it. ``batch_id`` and ``stage`` are those of the worst time.
slow_queries = sa.Table(
    "slow_queries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("statement", sa.Text, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("worst", sa.Float, nullable=False),
    sa.Column("total", sa.Float, nullable=False),
    sa.Column("first_at", UtcDateTime, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("batch_id", sa.Text),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Index(None, "last_at"),
)

#: Files on the SFTP server that has copies, or will. ``target`` names server and folder, ``path``
#: is below it. ``etag``, ``size`` and ``sha256`` are what shall be there (no ETag: the name
#: changes with the contents), ``held`` is the SHA-256 of what is. ``state`` is one of
#: ``waiting``, ``mirrored``, ``leaving``; whatever has ``due_at`` is still to be done.
mirrored = sa.Table(
    "mirrored",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("held", sa.Text),
    sa.Column("mirrored_at", UtcDateTime),
    sa.Column("due_at", UtcDateTime, comment="not touched by a run before"),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("seen", sa.Text, comment="the last inventory that had the object"),
)
sa.Index(
    "ix_mirrored_due",
    mirrored.c.target,
    mirrored.c.due_at,
    sqlite_where=mirrored.c.due_at.is_not(None),
    postgresql_where=mirrored.c.due_at.is_not(None),
)

#: How far each server has been brought: batches that ended before ``looked_until`` and the
#: inventory ``inventory_id`` were looked at, for what ``scope`` says is to be copied.
mirror_targets = sa.Table(
    "mirror_targets",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("looked_until", UtcDateTime),
    sa.Column("inventory_id", sa.Text),
    sa.Column("purged_at", UtcDateTime),
)
sa.Index("ix_batches_finished_at", batches.c.finished_at)

#: What is published of an image on a template (a mockup), announced as ``publications`` are. Its
#: files are the rows of ``variants`` of this image and ``recipe``: the fingerprint of the template
#: and the encoders; without one nothing is. ``form`` is that of what else its manifest depends on.
#: ``settled`` once the manifest is in the bucket as ``digest`` (SHA-256) says; until then the one
#: before may be there. ``tried`` is the recipe of an attempt that failed, ``reason`` and
#: ``message`` why; its ``verdict`` is ``rejected`` for good, or ``failed`` and tried again.
mockups = sa.Table(
    "mockups",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Text, primary_key=True),
    sa.Column("template", sa.Text, primary_key=True),
    sa.Column("recipe", sa.Text),
    sa.Column("form", sa.Text),
    sa.Column("digest", sa.Text),
    sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("published_at", UtcDateTime),
    sa.Column("tried", sa.Text),
    sa.Column("tried_at", UtcDateTime),
    sa.Column("verdict", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("message", sa.Text),
    sa.Index(None, "image_id", "recipe"),
    sa.Index(None, "source", "template"),
)

#: What the intake signs the ids of uploads with: one row, made when the service first starts.
intake_secrets = sa.Table(
    "intake_secrets",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
