"""What the topics of the fleet zone are to retain."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Spelled out, not taken from `schema`: this file never changes again."""
    op.create_table(
        "retained",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", name=op.f("pk_retained")),
    )
    op.create_index(op.f("ix_retained_stamp_topic"), "retained", ["stamp", "topic"])
