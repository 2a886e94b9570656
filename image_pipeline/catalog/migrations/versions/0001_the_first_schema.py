"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("uploads", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column(
            "due_at",
            sa.DateTime(),
            nullable=True,
            comment="not touched by a sensor before",
        ),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index(
        op.f("ix_batches_source_state_due_at"),
        "batches",
        ["source", "state", "due_at"],
        unique=False,
    )
    op.create_table(
        "images",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("orientation", sa.Integer(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("has_alpha", sa.Boolean(), nullable=False),
        sa.Column("animated", sa.Boolean(), nullable=False),
        sa.Column("lossless", sa.Boolean(), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("phash64", sa.BigInteger(), nullable=False),
        sa.Column("phash256", sa.Text(), nullable=False),
        sa.Column("dhash64", sa.BigInteger(), nullable=False),
        sa.Column("texture", sa.Float(), nullable=False),
        sa.Column("dominant_color", sa.Text(), nullable=False),
        sa.Column("placeholder", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("b0", sa.SmallInteger(), nullable=False),
        sa.Column("b1", sa.SmallInteger(), nullable=False),
        sa.Column("b2", sa.SmallInteger(), nullable=False),
        sa.Column("b3", sa.SmallInteger(), nullable=False),
        sa.Column("b4", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
    )
    op.create_index(op.f("ix_images_b0"), "images", ["b0"], unique=False)
    op.create_index(op.f("ix_images_b1"), "images", ["b1"], unique=False)
    op.create_index(op.f("ix_images_b2"), "images", ["b2"], unique=False)
    op.create_index(op.f("ix_images_b3"), "images", ["b3"], unique=False)
    op.create_index(op.f("ix_images_b4"), "images", ["b4"], unique=False)
    op.create_table(
        "members",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("canonical_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=True),
        sa.Column("distance", sa.Integer(), nullable=False),
        sa.Column(
            "upload_id", sa.BigInteger(), nullable=False, comment="the upload that brought it"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_members_image_id")),
        sa.PrimaryKeyConstraint("source", "image_id", name=op.f("pk_members")),
    )
    op.create_index(
        op.f("ix_members_source_canonical_id"), "members", ["source", "canonical_id"], unique=False
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("last_modified", sa.DateTime(), nullable=False),
        sa.Column("discovered_at", sa.DateTime(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("image_id", sa.Text(), nullable=True),
        sa.Column(
            "verdict", sa.Text(), nullable=True, comment="accepted, duplicate, rejected, failed"
        ),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Float(), server_default="0", nullable=False),
        sa.Column("decided_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_uploads_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("source", "key", "etag", name=op.f("uq_uploads_source_key_etag")),
    )
    op.create_index(op.f("ix_uploads_batch_id"), "uploads", ["batch_id"], unique=False)
    op.create_index(op.f("ix_uploads_image_id"), "uploads", ["image_id"], unique=False)
    op.create_index(
        "ix_uploads_waiting",
        "uploads",
        ["source", "id"],
        unique=False,
        sqlite_where=sa.text("batch_id IS NULL"),
        postgresql_where=sa.text("batch_id IS NULL"),
    )
    op.create_table(
        "variants",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column(
            "recipe", sa.Text(), nullable=False, comment="fingerprint of recipe and encoders"
        ),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("size", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column(
            "metadata", sa.JSON(), nullable=False, comment="metadata blocks found: none expected"
        ),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_variants_image_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_variants")),
    )
    op.create_index(
        op.f("ix_variants_image_id_recipe"), "variants", ["image_id", "recipe"], unique=False
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_variants_image_id_recipe"), table_name="variants")
    op.drop_table("variants")
    op.drop_index(
        "ix_uploads_waiting",
        table_name="uploads",
        sqlite_where=sa.text("batch_id IS NULL"),
        postgresql_where=sa.text("batch_id IS NULL"),
    )
    op.drop_index(op.f("ix_uploads_image_id"), table_name="uploads")
    op.drop_index(op.f("ix_uploads_batch_id"), table_name="uploads")
    op.drop_table("uploads")
    op.drop_index(op.f("ix_members_source_canonical_id"), table_name="members")
    op.drop_table("members")
    op.drop_index(op.f("ix_images_b4"), table_name="images")
    op.drop_index(op.f("ix_images_b3"), table_name="images")
    op.drop_index(op.f("ix_images_b2"), table_name="images")
    op.drop_index(op.f("ix_images_b1"), table_name="images")
    op.drop_index(op.f("ix_images_b0"), table_name="images")
    op.drop_table("images")
    op.drop_index(op.f("ix_batches_source_state_due_at"), table_name="batches")
    op.drop_table("batches")
