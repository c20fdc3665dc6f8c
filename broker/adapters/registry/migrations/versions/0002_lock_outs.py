"""Lock-outs, and certificates that a suspension holds."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Spelled out, not taken from `schema`: this file never changes again."""
    op.add_column("certificate", sa.Column("held_at", sa.BigInteger(), nullable=True))
    _partial_index(op.f("ix_certificate_held_at"), "certificate", "held_at", "held_at IS NOT NULL")
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "lock_out",
        sa.Column("position", number, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("serials", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("crl_wanted", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("crl_at", sa.BigInteger(), nullable=True),
        sa.Column("disconnected_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_lock_out_device_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_lock_out")),
        sa.UniqueConstraint("id", name=op.f("uq_lock_out_id")),
    )
    op.create_index(op.f("ix_lock_out_device_id_position"), "lock_out", ["device_id", "position"])
    waiting = "disconnected_at IS NULL AND ended_at IS NULL"
    _partial_index("ix_lock_out_waiting", "lock_out", "position", waiting)
    _partial_index("ix_lock_out_open", "lock_out", "position", "ended_at IS NULL")


def _partial_index(name: str, table: str, column: str, where: str) -> None:
    only = sa.text(where)
    op.create_index(name, table, [column], sqlite_where=only, postgresql_where=only)
