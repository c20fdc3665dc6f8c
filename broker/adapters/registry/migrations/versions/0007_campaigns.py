"""Rotation campaigns, and each device's part in them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Spelled out, not taken from `schema`: this file never changes again."""
    _campaigns()
    _rotations()


def _campaigns() -> None:
    op.create_table(
        "campaign",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("selected_by", sa.Text(), nullable=False),
        sa.Column("selected", sa.Text(), nullable=True),
        _number("per_minute"),
        sa.Column("wave_size", sa.BigInteger(), nullable=True),
        _number("created_at"),
        _number("fresh_from"),
        _number("paced_to"),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("listed_to", sa.Text(), nullable=True),
        _number("is_listed"),
        _number("waiting"),
        _number("ordered"),
        _number("done"),
        _number("dropped"),
        _number("withdrawn"),
        _number("wave"),
        _number("wave_given"),
        _number("wave_settled"),
        sa.Column("wave_full_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign")),
    )


def _rotations() -> None:
    op.create_table(
        "rotation",
        _number("campaign_id"),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("wave", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("newest_before", sa.Text(), nullable=True),
        sa.Column("ordered_at", sa.BigInteger(), nullable=True),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaign.id"], name=op.f("fk_rotation_campaign_id")
        ),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_rotation_device_id")),
        sa.PrimaryKeyConstraint("campaign_id", "device_id", name=op.f("pk_rotation")),
    )
    op.create_index(
        op.f("ix_rotation_campaign_id_state_device_id"),
        "rotation",
        ["campaign_id", "state", "device_id"],
    )
    op.create_index(op.f("ix_rotation_device_id_version"), "rotation", ["device_id", "version"])


def _number(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=False)
