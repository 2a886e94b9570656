"""Publications, plans of housekeeping and what they rest on."""

import sqlalchemy as sa
from alembic import op

from image_pipeline.catalog.schema import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Images that are published already get their rows with the next run of their batch."""
    op.add_column("uploads", sa.Column("storage_class", sa.Text(), comment="empty: as it was put"))
    op.add_column("uploads", sa.Column("moved_at", UtcDateTime(), comment="into that class"))
    op.create_table(
        "publications",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("canonical_id", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("source", "image_id", name="pk_publications"),
    )
    op.create_index(
        "ix_publications_canonical_id_recipe", "publications", ["canonical_id", "recipe"]
    )
    op.create_index("ix_publications_batch_id", "publications", ["batch_id"])
    op.create_table(
        "changes",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("old_canonical_id", sa.Text()),
        sa.Column("old_recipe", sa.Text()),
        sa.PrimaryKeyConstraint("batch_id", "image_id", name="pk_changes"),
    )
    op.create_table(
        "plans",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("inventory_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False, comment="the larger of objects and bytes"),
        sa.Column("archive", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("applied_at", UtcDateTime()),
        sa.Column("ended_at", UtcDateTime(), comment="purged or restored"),
        sa.Column("results", sa.JSON(), comment="counts by what became of an entry"),
        sa.PrimaryKeyConstraint("id", name="pk_plans"),
    )
    op.create_index("ix_plans_kind_created_at", "plans", ["kind", "created_at"])
    op.create_table(
        "inventories",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("taken_at", UtcDateTime(), nullable=False, comment="when the listing began"),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False, comment="listing or s3-inventory"),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inventories"),
    )
    op.create_table(
        "sightings",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("last_modified", UtcDateTime(), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("last_at", UtcDateTime(), nullable=False),
        sa.Column("inventory_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_sightings"),
    )
    op.create_index("ix_sightings_first_at", "sightings", ["first_at"])
    op.create_table(
        "removals",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("touched_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_removals"),
    )
    op.create_index("ix_removals_plan_id", "removals", ["plan_id"])
    if op.get_bind().dialect.name == "postgresql":
        for band in range(5):
            name = f"ix_images_b{band}_phash64"
            op.drop_index(name, "images")
            op.create_index(name, "images", [f"b{band}", "phash64"], postgresql_include=["id"])
