"""The first schema: claim certificates, groups, devices, certificates, events, outbox, counters."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes every table. Spelled out, not taken from `schema`: this file never changes again."""
    _claim_certificate()
    _groups()
    _device()
    _certificate()
    _event()
    _reply()
    _counter()


def _number() -> "sa.types.TypeEngine[int]":
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _needed(kind: "sa.types.TypeEngine[Any]", *names: str) -> "list[sa.Column[Any]]":
    return [sa.Column(name, kind, nullable=False) for name in names]


def _optional(kind: "sa.types.TypeEngine[Any]", *names: str) -> "list[sa.Column[Any]]":
    return [sa.Column(name, kind, nullable=True) for name in names]


def _claim_certificate() -> None:
    op.create_table(
        "claim_certificate",
        *_needed(sa.Text(), "name", "serial"),
        *_needed(sa.BigInteger(), "not_before", "not_after", "max_claims", "claims"),
        *_optional(sa.BigInteger(), "revoked_at"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_claim_certificate")),
    )


def _groups() -> None:
    op.create_table(
        "enrollment_group",
        *_needed(sa.Text(), "name", "device_name", "allowed_keys"),
        *_needed(sa.BigInteger(), "certificate_lifetime", "quota"),
        *_needed(sa.Text(), "serials", "reprovision"),
        *_needed(sa.BigInteger(), "devices"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_enrollment_group")),
    )
    op.create_table(
        "group_claim",
        *_needed(sa.Text(), "claim_name", "group_name"),
        _in_group("fk_group_claim_group_name"),
        sa.PrimaryKeyConstraint("claim_name", name=op.f("pk_group_claim")),
    )
    op.create_index(op.f("ix_group_claim_group_name"), "group_claim", ["group_name"])
    op.create_table(
        "enrollment",
        *_needed(sa.Text(), "group_name", "serial"),
        *_needed(sa.BigInteger(), "imported_at"),
        _in_group("fk_enrollment_group_name"),
        sa.PrimaryKeyConstraint("group_name", "serial", name=op.f("pk_enrollment")),
    )


def _device() -> None:
    op.create_table(
        "device",
        *_needed(sa.Text(), "id", "group_name", "serial", "state"),
        *_needed(sa.BigInteger(), "registered_at"),
        *_optional(sa.BigInteger(), "activated_at"),
        *_needed(sa.Text(), "parameters"),
        _in_group("fk_device_group_name"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device")),
        sa.UniqueConstraint("group_name", "serial", name=op.f("uq_device_group_name_serial")),
    )
    op.create_index(op.f("ix_device_state_id"), "device", ["state", "id"])
    op.create_index(op.f("ix_device_group_name_id"), "device", ["group_name", "id"])


def _certificate() -> None:
    op.create_table(
        "certificate",
        sa.Column("id", _number(), nullable=False),
        *_needed(sa.Text(), "serial", "device_id", "state"),
        *_optional(sa.Text(), "claim_name"),
        *_needed(sa.Text(), "key_sha256", "certificate_sha256"),
        *_needed(sa.BigInteger(), "not_before", "not_after", "confirm_by"),
        *_optional(sa.BigInteger(), "confirmed_at", "revoked_at"),
        *_optional(sa.Text(), "revoked_for"),
        *_needed(sa.Text(), "pem"),
        sa.ForeignKeyConstraint(
            ["device_id"], ["device.id"], name=op.f("fk_certificate_device_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificate")),
        sa.UniqueConstraint("serial", name=op.f("uq_certificate_serial")),
        sa.UniqueConstraint("certificate_sha256", name=op.f("uq_certificate_certificate_sha256")),
        sa.CheckConstraint(
            "state <> 'revoked' OR (revoked_at IS NOT NULL AND revoked_for IS NOT NULL)",
            name=op.f("ck_certificate_revoked_when_and_why"),
        ),
    )
    op.create_index(op.f("ix_certificate_key_sha256_id"), "certificate", ["key_sha256", "id"])
    op.create_index(op.f("ix_certificate_device_id_id"), "certificate", ["device_id", "id"])
    _partial_index("ix_certificate_confirm_by_id", ["confirm_by", "id"], "state = 'issued'")
    _partial_index("ix_certificate_not_after", ["not_after"], "state = 'revoked'")


def _partial_index(name: str, columns: list[str], where: str) -> None:
    only = sa.text(where)
    op.create_index(op.f(name), "certificate", columns, sqlite_where=only, postgresql_where=only)


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("id", _number(), nullable=False),
        *_needed(sa.BigInteger(), "at"),
        *_needed(sa.Text(), "kind"),
        *_optional(sa.Text(), "device_id", "serial_number", "claim_name", "client_id"),
        *_optional(sa.Text(), "group_name", "code", "detail"),
        *_needed(sa.BigInteger(), "repeated"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    for column in ("device_id", "serial_number", "claim_name", "kind"):
        op.create_index(op.f(f"ix_event_{column}_id"), "event", [column, "id"])


def _reply() -> None:
    op.create_table(
        "reply",
        sa.Column("position", _number(), nullable=False),
        *_needed(sa.Text(), "id", "zone", "topic"),
        *_needed(sa.LargeBinary(), "payload"),
        *_needed(sa.BigInteger(), "created_at"),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_reply")),
        sa.UniqueConstraint("id", name=op.f("uq_reply_id")),
    )


def _counter() -> None:
    op.create_table(
        "counter",
        *_needed(sa.Text(), "name"),
        *_needed(sa.BigInteger(), "value"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counter")),
    )


def _in_group(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["group_name"], ["enrollment_group.name"], name=op.f(name))
