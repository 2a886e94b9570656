"""What the edge answered for each published file."""

import sqlalchemy as sa
from alembic import op

from image_pipeline.catalog.schema import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Files that are published already are warmed from their next publication on."""
    op.create_table(
        "warmth",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("added_at", UtcDateTime(), nullable=False),
        sa.Column("asked_at", UtcDateTime()),
        sa.Column("edge", sa.Text()),
        sa.Column("status", sa.Integer()),
        sa.Column("cache", sa.Text()),
        sa.Column("first_byte_seconds", sa.Float()),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("attempts", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("source", "key", name="pk_warmth"),
    )
    op.create_index("ix_warmth_source_asked_at_rank", "warmth", ["source", "asked_at", "rank"])
    op.create_index("ix_warmth_source_image_id", "warmth", ["source", "image_id"])
