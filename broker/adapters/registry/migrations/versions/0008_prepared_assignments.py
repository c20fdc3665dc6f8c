"""Assignments that were signed before their devices' turn came."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Spelled out, not taken from `schema`: this file never changes again."""
    op.create_table(
        "prepared_assignment",
        _text("rollout"),
        _text("device_id"),
        _number("sequence"),
        _text("nonce"),
        _number("issued_at"),
        _number("expires"),
        _text("targets"),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        _text("as_of"),
        _text("signed_as"),
        sa.ForeignKeyConstraint(
            ["rollout"], ["rollout.name"], name=op.f("fk_prepared_assignment_rollout")
        ),
        sa.ForeignKeyConstraint(
            ["device_id"], ["device.id"], name=op.f("fk_prepared_assignment_device_id")
        ),
        sa.PrimaryKeyConstraint("rollout", "device_id", name=op.f("pk_prepared_assignment")),
    )


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=False)
