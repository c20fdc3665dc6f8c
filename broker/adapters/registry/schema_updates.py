"""The tables about updates; the rules of `schema` hold."""

from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.schema import DEVICE, METADATA

# As text and not as parameters: a partial index serves only a query that says the same words.
IS_UNSETTLED: Final = sa.text("settled_at IS NULL")
IS_MOVING: Final = sa.text("moving = 1")


def _moment(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=nullable)


ROLLOUT: Final = sa.Table(
    "rollout",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    _number("number"),
    _text("state"),
    _number("moving"),
    _text("plan"),
    _moment("started_at"),
    _moment("state_at", nullable=True),
    _text("reason", nullable=True),
    _number("wave"),
    sa.Column("tokens", sa.Text, nullable=True),
    _moment("tokens_at", nullable=True),
    _number("enlisted"),
    _text("enlisted_to"),
    _number("joined_to"),
    sa.UniqueConstraint("number"),
    sa.Index("ix_rollout_moving", "number", sqlite_where=IS_MOVING, postgresql_where=IS_MOVING),
)

ROLLOUT_PART: Final = sa.Table(
    "rollout_part",
    METADATA,
    sa.Column("rollout", sa.ForeignKey(ROLLOUT.c.name), primary_key=True),
    sa.Column("device_id", sa.ForeignKey(DEVICE.c.id), primary_key=True),
    _text("progress"),
    _moment("changed_at"),
    _number("wave"),
    _number("draw"),
    _number("sequence", nullable=True),
    _text("code", nullable=True),
    _text("detail", nullable=True),
    # The queue, and who stands where, in a fleet of any size.
    sa.Index(None, "rollout", "progress", "wave", "draw"),
    sa.Index("ix_rollout_part_progress_device_id", "rollout", "progress", "device_id"),
    sa.Index("ix_rollout_part_progress_changed_at", "rollout", "progress", "changed_at"),
    sa.Index(None, "device_id"),
)

ROLLOUT_TALLY: Final = sa.Table(
    "rollout_tally",
    METADATA,
    sa.Column("rollout", sa.ForeignKey(ROLLOUT.c.name), primary_key=True),
    sa.Column("wave", sa.BigInteger, primary_key=True),
    sa.Column("progress", sa.Text, primary_key=True),
    sa.Column("code", sa.Text, primary_key=True),
    _number("devices"),
)

ASSIGNMENT: Final = sa.Table(
    "assignment",
    METADATA,
    sa.Column("device_id", sa.ForeignKey(DEVICE.c.id), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    _text("rollout"),
    _text("nonce"),
    _moment("issued_at"),
    _moment("expires"),
    _text("targets"),
    _number("calls_back", nullable=True),
    _moment("settled_at", nullable=True),
    sa.Index(None, "expires", sqlite_where=IS_UNSETTLED, postgresql_where=IS_UNSETTLED),
)

PREPARED: Final = sa.Table(
    "prepared_assignment",
    METADATA,
    sa.Column("rollout", sa.ForeignKey(ROLLOUT.c.name), primary_key=True),
    sa.Column("device_id", sa.ForeignKey(DEVICE.c.id), primary_key=True),
    _number("sequence"),
    _text("nonce"),
    _moment("issued_at"),
    _moment("expires"),
    _text("targets"),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    _text("as_of"),
    _text("signed_as"),
)

UPDATE_REPORT: Final = sa.Table(
    "update_report",
    METADATA,
    sa.Column("device_id", sa.ForeignKey(DEVICE.c.id), primary_key=True),
    # Within the device's: nobody can use up the id of another's report.
    sa.Column("report_id", sa.Text, primary_key=True),
    _text("sha256"),
    _text("rollout"),
    _number("sequence"),
    _text("phase"),
    _moment("at"),
    _moment("received_at"),
    _text("code", nullable=True),
    _text("detail", nullable=True),
    # The rule that each assignment ends once, however often that is reported.
    sa.UniqueConstraint("device_id", "sequence"),
)

DEVICE_UPDATE: Final = sa.Table(
    "device_update",
    METADATA,
    sa.Column("device_id", sa.ForeignKey(DEVICE.c.id), primary_key=True),
    _number("sequence"),
    _text("rollout", nullable=True),
    _number("rollout_number"),
    _text("running"),
    _number("security_counter", nullable=True),
    _moment("support_until", nullable=True),
    _moment("reported_at", nullable=True),
    _text("phase", nullable=True),
    _text("code", nullable=True),
    _text("rolled_back"),
    sa.Index(None, "support_until"),
)
