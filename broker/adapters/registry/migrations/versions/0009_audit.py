"""Seals of the audit log, since when trust bundles are in use, and tombstones by their stamp."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Spelled out, not taken from `schema`: this file never changes again."""
    op.create_table(
        "audit_seal",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_seal")),
    )
    op.create_table(
        "trust_bundle",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_trust_bundle")),
    )
    # Until now this was known by the audit log alone, whose events have an end from now on.
    op.execute(
        "INSERT INTO trust_bundle (version, published_at)"
        " SELECT CAST(substr(detail, 9) AS BIGINT), min(at) FROM event"
        " WHERE kind = 'trust_bundle.published' AND detail LIKE 'version %' GROUP BY 1"
    )
    is_empty = sa.text("length(payload) = 0")
    op.create_index(
        op.f("ix_retained_empty"),
        "retained",
        ["stamp"],
        sqlite_where=is_empty,
        postgresql_where=is_empty,
    )
