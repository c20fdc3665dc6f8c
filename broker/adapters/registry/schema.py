"""The tables, once for both databases.

Every lookup of the services has its index, so that a claim costs the same in a fleet of a thousand
and of a million. Only types that both drivers take and give as plain Python values are used: the
hot statements bypass SQLAlchemy's conversions. Moments are integers; see `moments`.
"""

from typing import Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# SQLite numbers rows by itself only in a column of exactly this type.
_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# As text and not as parameters: a partial index serves only a query that says the same words.
IS_ISSUED: Final = sa.text("state = 'issued'")
IS_REVOKED: Final = sa.text("state = 'revoked'")
IS_SUPERSEDED: Final = sa.text("state = 'superseded'")
IS_UNREVOKED: Final = sa.text("state <> 'revoked'")
IS_HELD: Final = sa.text("held_at IS NOT NULL")
IS_WAITING: Final = sa.text("disconnected_at IS NULL AND ended_at IS NULL")
IS_OPEN: Final = sa.text("ended_at IS NULL")
IS_EMPTY: Final = sa.text("length(payload) = 0")


def _moment(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=nullable)


CLAIM_CERTIFICATE: Final = sa.Table(
    "claim_certificate",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    _text("serial"),
    _moment("not_before"),
    _moment("not_after"),
    sa.Column("max_claims", sa.BigInteger, nullable=False),
    sa.Column("claims", sa.BigInteger, nullable=False),
    _moment("revoked_at", nullable=True),
)

ENROLLMENT_GROUP: Final = sa.Table(
    "enrollment_group",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    _text("device_name"),
    _text("allowed_keys"),
    sa.Column("certificate_lifetime", sa.BigInteger, nullable=False),
    sa.Column("quota", sa.BigInteger, nullable=False),
    _text("serials"),
    _text("reprovision"),
    sa.Column("devices", sa.BigInteger, nullable=False),
    _text("rotation_key"),
    sa.Column("rotation_grace", sa.BigInteger, nullable=False),
    sa.Column("recover_within", sa.BigInteger, nullable=False),
)

GROUP_CLAIM: Final = sa.Table(
    "group_claim",
    METADATA,
    # The primary key is the rule: a claim certificate belongs to at most one group.
    sa.Column("claim_name", sa.Text, primary_key=True),
    sa.Column("group_name", sa.ForeignKey(ENROLLMENT_GROUP.c.name), nullable=False, index=True),
)

ENROLLMENT: Final = sa.Table(
    "enrollment",
    METADATA,
    sa.Column("group_name", sa.ForeignKey(ENROLLMENT_GROUP.c.name), primary_key=True),
    sa.Column("serial", sa.Text, primary_key=True),
    _moment("imported_at"),
)

DEVICE: Final = sa.Table(
    "device",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("group_name", sa.ForeignKey(ENROLLMENT_GROUP.c.name), nullable=False),
    _text("serial"),
    _text("state"),
    _moment("registered_at"),
    _moment("activated_at", nullable=True),
    _text("parameters"),
    sa.UniqueConstraint("group_name", "serial"),
    sa.Index(None, "state", "id"),
    sa.Index(None, "group_name", "id"),
)

CERTIFICATE: Final = sa.Table(
    "certificate",
    METADATA,
    # Rises with each certificate: the order of issue, which two equal moments would lose.
    sa.Column("id", _NUMBER, primary_key=True),
    _text("serial"),
    sa.Column("device_id", sa.ForeignKey(DEVICE.c.id), nullable=False),
    _text("state"),
    _text("claim_name", nullable=True),
    _text("key_sha256"),
    _text("certificate_sha256"),
    _moment("not_before"),
    _moment("not_after"),
    _moment("confirm_by"),
    _moment("confirmed_at", nullable=True),
    _moment("revoked_at", nullable=True),
    _text("revoked_for", nullable=True),
    _text("pem"),
    _moment("held_at", nullable=True),
    sa.Column("rotation_order", sa.BigInteger, nullable=True),
    _moment("grace_until", nullable=True),
    _moment("recovery_approved_until", nullable=True),
    # Which operational authority issued it.
    sa.Column("generation", sa.BigInteger, nullable=False, server_default="1"),
    sa.UniqueConstraint("serial"),
    sa.UniqueConstraint("certificate_sha256"),
    # A CRL needs both of every revoked certificate.
    sa.CheckConstraint(
        "state <> 'revoked' OR (revoked_at IS NOT NULL AND revoked_for IS NOT NULL)",
        name="revoked_when_and_why",
    ),
    # With the id, or PostgreSQL may walk the whole table backwards to find the newest of one key.
    sa.Index(None, "key_sha256", "id"),
    sa.Index(None, "device_id", "id"),
    sa.Index(None, "confirm_by", "id", sqlite_where=IS_ISSUED, postgresql_where=IS_ISSUED),
    sa.Index(None, "not_after", sqlite_where=IS_REVOKED, postgresql_where=IS_REVOKED),
    sa.Index(None, "held_at", sqlite_where=IS_HELD, postgresql_where=IS_HELD),
    sa.Index(None, "grace_until", "id", sqlite_where=IS_SUPERSEDED, postgresql_where=IS_SUPERSEDED),
    sa.Index(
        "ix_certificate_generation",
        "generation",
        "device_id",
        sqlite_where=IS_UNREVOKED,
        postgresql_where=IS_UNREVOKED,
    ),
)

CA_ROLLOVER: Final = sa.Table(
    "ca_rollover",
    METADATA,
    # Which authority is replaced; one row for each that ever was.
    sa.Column("authority", sa.Text, primary_key=True),
    sa.Column("old", sa.BigInteger, nullable=False),
    sa.Column("new", sa.BigInteger, nullable=False),
    _text("phase"),
    _moment("started_at"),
    sa.Column("is_return", sa.BigInteger, nullable=False),
    sa.Column("campaign", sa.BigInteger, nullable=True),
    sa.Column("per_minute", sa.BigInteger, nullable=False),
    sa.Column("wave_size", sa.BigInteger, nullable=True),
)

LOCK_OUT: Final = sa.Table(
    "lock_out",
    METADATA,
    # Rises with each lock-out: the order of the acts.
    sa.Column("position", _NUMBER, primary_key=True),
    _text("id"),
    sa.Column("device_id", sa.ForeignKey(DEVICE.c.id), nullable=False),
    _text("act"),
    _text("serials"),
    _moment("requested_at"),
    sa.Column("crl_wanted", sa.BigInteger, nullable=False),
    _text("reason", nullable=True),
    _moment("crl_at", nullable=True),
    _moment("disconnected_at", nullable=True),
    _moment("ended_at", nullable=True),
    sa.UniqueConstraint("id"),
    sa.Index(None, "device_id", "position"),
    sa.Index(
        "ix_lock_out_waiting", "position", sqlite_where=IS_WAITING, postgresql_where=IS_WAITING
    ),
    sa.Index("ix_lock_out_open", "position", sqlite_where=IS_OPEN, postgresql_where=IS_OPEN),
)

CAMPAIGN: Final = sa.Table(
    "campaign",
    METADATA,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("selected_by"),
    _text("selected", nullable=True),
    sa.Column("per_minute", sa.BigInteger, nullable=False),
    sa.Column("wave_size", sa.BigInteger, nullable=True),
    _moment("created_at"),
    _moment("fresh_from"),
    _moment("paced_to"),
    _text("reason", nullable=True),
    _text("state"),
    _moment("ended_at", nullable=True),
    _text("listed_to", nullable=True),
    sa.Column("is_listed", sa.BigInteger, nullable=False),
    sa.Column("waiting", sa.BigInteger, nullable=False),
    sa.Column("ordered", sa.BigInteger, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("dropped", sa.BigInteger, nullable=False),
    sa.Column("withdrawn", sa.BigInteger, nullable=False),
    sa.Column("wave", sa.BigInteger, nullable=False),
    sa.Column("wave_given", sa.BigInteger, nullable=False),
    sa.Column("wave_settled", sa.BigInteger, nullable=False),
    _moment("wave_full_at", nullable=True),
)

ROTATION: Final = sa.Table(
    "rotation",
    METADATA,
    sa.Column("campaign_id", sa.ForeignKey(CAMPAIGN.c.id), primary_key=True),
    sa.Column("device_id", sa.ForeignKey(DEVICE.c.id), primary_key=True),
    _text("state"),
    sa.Column("wave", sa.BigInteger, nullable=True),
    sa.Column("version", sa.BigInteger, nullable=True),
    _text("newest_before", nullable=True),
    _moment("ordered_at", nullable=True),
    _moment("settled_at", nullable=True),
    sa.Index(None, "campaign_id", "state", "device_id"),
    sa.Index(None, "device_id", "version"),
)

EVENT: Final = sa.Table(
    "event",
    METADATA,
    sa.Column("id", _NUMBER, primary_key=True),
    _moment("at"),
    _text("kind"),
    _text("device_id", nullable=True),
    _text("serial_number", nullable=True),
    _text("claim_name", nullable=True),
    _text("client_id", nullable=True),
    _text("group_name", nullable=True),
    _text("code", nullable=True),
    _text("detail", nullable=True),
    sa.Column("repeated", sa.BigInteger, nullable=False),
    sa.Index(None, "device_id", "id"),
    sa.Index(None, "serial_number", "id"),
    sa.Index(None, "claim_name", "id"),
    sa.Index(None, "kind", "id"),
)

REPLY: Final = sa.Table(
    "reply",
    METADATA,
    sa.Column("position", _NUMBER, primary_key=True),
    _text("id"),
    _text("zone"),
    _text("topic"),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    _moment("created_at"),
    sa.UniqueConstraint("id"),
)

COUNTER: Final = sa.Table(
    "counter",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

RETAINED: Final = sa.Table(
    "retained",
    METADATA,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("stamp", sa.BigInteger, nullable=False),
    sa.Index(None, "stamp", "topic"),
    sa.Index("ix_retained_empty", "stamp", sqlite_where=IS_EMPTY, postgresql_where=IS_EMPTY),
)

AUDIT_SEAL: Final = sa.Table(
    "audit_seal",
    METADATA,
    # 0 is the floor: what was dropped before the first of the others.
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("last_id", sa.BigInteger, nullable=False),
    _text("statement"),
    _text("signature"),
)

TRUST_BUNDLE: Final = sa.Table(
    "trust_bundle",
    METADATA,
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    _moment("published_at"),
)
