"""What the intake, mockups, the mirror and the performance report write down."""

import sqlalchemy as sa
from alembic import op

from image_pipeline.catalog.schema import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "timings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("batch_id", sa.Text()),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("began_at", UtcDateTime(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("cpu_seconds", sa.Float(), nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False, comment="fingerprint, of what renders"),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.Column("worst", sa.Float(), nullable=False),
        sa.Column("histogram", sa.JSON(), nullable=False),
        sa.Column("slowest", sa.JSON(), nullable=False),
        sa.Column("amounts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_timings"),
    )
    op.create_index("ix_timings_day_stage", "timings", ["day", "stage"])
    op.create_table(
        "slow_queries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("worst", sa.Float(), nullable=False),
        sa.Column("total", sa.Float(), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("last_at", UtcDateTime(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text()),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_slow_queries"),
    )
    op.create_index("ix_slow_queries_last_at", "slow_queries", ["last_at"])
    op.create_table(
        "mirrored",
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("held", sa.Text()),
        sa.Column("mirrored_at", UtcDateTime()),
        sa.Column("due_at", UtcDateTime(), comment="not touched by a run before"),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("seen", sa.Text(), comment="the last inventory that had the object"),
        sa.PrimaryKeyConstraint("target", "key", name="pk_mirrored"),
    )
    op.create_index(
        "ix_mirrored_due",
        "mirrored",
        ["target", "due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "mirror_targets",
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("looked_until", UtcDateTime()),
        sa.Column("inventory_id", sa.Text()),
        sa.Column("purged_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("target", name="pk_mirror_targets"),
    )
    op.create_index("ix_batches_finished_at", "batches", ["finished_at"])
    op.create_table(
        "mockups",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text()),
        sa.Column("form", sa.Text()),
        sa.Column("digest", sa.Text()),
        sa.Column("settled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("published_at", UtcDateTime()),
        sa.Column("tried", sa.Text()),
        sa.Column("tried_at", UtcDateTime()),
        sa.Column("verdict", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("message", sa.Text()),
        sa.PrimaryKeyConstraint("source", "image_id", "template", name="pk_mockups"),
    )
    op.create_index("ix_mockups_image_id_recipe", "mockups", ["image_id", "recipe"])
    op.create_index("ix_mockups_source_template", "mockups", ["source", "template"])
    op.create_index("ix_batches_source_finished_at", "batches", ["source", "finished_at"])
    op.create_table(
        "intake_secrets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_intake_secrets"),
    )
