"""Evidence of duplicates, focal points, kept animations, dropped variants."""

import sqlalchemy as sa
from alembic import op

from image_pipeline.catalog.schema import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BANDS = range(5)


def upgrade() -> None:
    """Apply. Images that are known already lack the new evidence and are found without it."""
    _images()
    _members()
    op.add_column(
        "batches",
        sa.Column(
            "spent",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="attempts before the batch was last reopened",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "dropped",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="not smaller than the next fallback: not in the bucket",
        ),
    )
    op.create_table(
        "sketches",
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("luma", sa.LargeBinary(), nullable=False),
        sa.Column("content_luma", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_sketches_image_id"),
        sa.PrimaryKeyConstraint("image_id", name="pk_sketches"),
    )
    op.create_table(
        "near",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("canonical_id", sa.Text(), nullable=False),
        sa.Column("found_by", sa.Text(), nullable=False),
        sa.Column("transform", sa.Text(), nullable=False),
        sa.Column("distance", sa.Integer(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_near_image_id"),
        sa.PrimaryKeyConstraint("source", "image_id", "canonical_id", name="pk_near"),
    )
    op.create_index("ix_near_source_canonical_id", "near", ["source", "canonical_id"])
    op.create_table(
        "separations",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("one_id", sa.Text(), nullable=False),
        sa.Column("other_id", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("source", "one_id", "other_id", name="pk_separations"),
    )
    op.create_index("ix_separations_source_other_id", "separations", ["source", "other_id"])


def _images() -> None:
    for column in (
        sa.Column("frames", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("quality", sa.Integer(), comment="of a JPEG, 1 to 100, estimated"),
        sa.Column("has_profile", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("pixels", sa.Text(), comment="hash of the upright pixels"),
        sa.Column("chroma", sa.Text(), comment="colours of 4 x 4 cells: hashes are blind to them"),
        sa.Column(
            "content_width", sa.Integer(), comment="within a uniform border, if there is one"
        ),
        sa.Column("content_height", sa.Integer()),
        sa.Column("content_phash64", sa.BigInteger()),
        sa.Column("focal_x", sa.Float(), nullable=False, server_default="0.5"),
        sa.Column("focal_y", sa.Float(), nullable=False, server_default="0.5"),
        sa.Column("thumbhash", sa.Text()),
    ):
        op.add_column("images", column)
    op.create_index("ix_images_pixels", "images", ["pixels"])
    for band in BANDS:
        op.drop_index(f"ix_images_b{band}", "images")
        op.create_index(f"ix_images_b{band}_phash64", "images", [f"b{band}", "phash64"])


def _members() -> None:
    """Number what is there, source by source, and name the batch that brought it."""
    op.add_column("members", sa.Column("number", sa.BigInteger()))
    op.add_column("members", sa.Column("batch_id", sa.Text()))
    op.execute(
        """
        UPDATE members SET
            batch_id = (SELECT coalesce(u.batch_id, '') FROM uploads u WHERE u.id = upload_id),
            number = (SELECT count(*) FROM members m WHERE m.source = members.source
                      AND (m.upload_id, m.image_id) <= (members.upload_id, members.image_id))
        """
    )
    with op.batch_alter_table("members") as table:
        table.alter_column("number", existing_type=sa.BigInteger(), nullable=False)
        table.alter_column("batch_id", existing_type=sa.Text(), nullable=False)
    op.create_index("ix_members_source_number", "members", ["source", "number"], unique=True)
    op.create_index("ix_members_batch_id", "members", ["batch_id"])
