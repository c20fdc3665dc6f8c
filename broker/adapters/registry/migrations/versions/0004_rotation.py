"""What renewal and recovery keep: of a certificate, and of a group's policy."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_HOUR = 3_600_000_000
_MONTH = 30 * 24 * _HOUR


def upgrade() -> None:
    """Spelled out, not taken from `schema`: this file never changes again."""
    for name in ("rotation_order", "grace_until", "recovery_approved_until"):
        op.add_column("certificate", sa.Column(name, sa.BigInteger(), nullable=True))
    only = sa.text("state = 'superseded'")
    op.create_index(
        op.f("ix_certificate_grace_until_id"),
        "certificate",
        ["grace_until", "id"],
        sqlite_where=only,
        postgresql_where=only,
    )
    # The groups that exist get the defaults of a group file.
    _group_column("rotation_key", sa.Text(), "new")
    _group_column("rotation_grace", sa.BigInteger(), str(_HOUR))
    _group_column("recover_within", sa.BigInteger(), str(_MONTH))


def _group_column(name: str, kind: "sa.Text | sa.BigInteger", default: str) -> None:
    column = sa.Column(name, kind, nullable=False, server_default=default)
    op.add_column("enrollment_group", column)
