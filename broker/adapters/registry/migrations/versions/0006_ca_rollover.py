"""Which operational authority issued a certificate, and how far its replacement has got."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Spelled out, not taken from `schema`: this file never changes again."""
    # All that was issued so far is the first authority's.
    generation = sa.Column("generation", sa.BigInteger(), nullable=False, server_default="1")
    op.add_column("certificate", generation)
    only = sa.text("state <> 'revoked'")
    op.create_index(
        "ix_certificate_generation",
        "certificate",
        ["generation", "device_id"],
        sqlite_where=only,
        postgresql_where=only,
    )
    op.create_table(
        "ca_rollover",
        sa.Column("authority", sa.Text(), nullable=False),
        sa.Column("old", sa.BigInteger(), nullable=False),
        sa.Column("new", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("is_return", sa.BigInteger(), nullable=False),
        sa.Column("campaign", sa.BigInteger(), nullable=True),
        sa.Column("per_minute", sa.BigInteger(), nullable=False),
        sa.Column("wave_size", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("authority", name=op.f("pk_ca_rollover")),
    )
