"""Rollouts, each device's part in them, assignments, reports, and what devices run."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Spelled out, not taken from `schema_updates`: this file never changes again."""
    _rollout()
    _parts()
    _tally()
    _assignments()
    _reports()
    _devices()


def _rollout() -> None:
    op.create_table(
        "rollout",
        _text("name"),
        _number("number"),
        _text("state"),
        _number("moving"),
        _text("plan"),
        _number("started_at"),
        _number("state_at", nullable=True),
        _text("reason", nullable=True),
        _number("wave"),
        _text("tokens", nullable=True),
        _number("tokens_at", nullable=True),
        _number("enlisted"),
        _text("enlisted_to"),
        _number("joined_to"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rollout")),
        sa.UniqueConstraint("number", name=op.f("uq_rollout_number")),
    )
    _partial_index("ix_rollout_moving", "rollout", "number", "moving = 1")


def _parts() -> None:
    op.create_table(
        "rollout_part",
        _text("rollout"),
        _text("device_id"),
        _text("progress"),
        _number("changed_at"),
        _number("wave"),
        _number("draw"),
        _number("sequence", nullable=True),
        _text("code", nullable=True),
        _text("detail", nullable=True),
        _of("rollout", "name", "rollout_part", "rollout"),
        _of("device", "id", "rollout_part", "device_id"),
        sa.PrimaryKeyConstraint("rollout", "device_id", name=op.f("pk_rollout_part")),
    )
    queue = ["rollout", "progress", "wave", "draw"]
    op.create_index(op.f("ix_rollout_part_rollout_progress_wave_draw"), "rollout_part", queue)
    for last in ("device_id", "changed_at"):
        columns = ["rollout", "progress", last]
        op.create_index(f"ix_rollout_part_progress_{last}", "rollout_part", columns)
    op.create_index(op.f("ix_rollout_part_device_id"), "rollout_part", ["device_id"])


def _tally() -> None:
    op.create_table(
        "rollout_tally",
        _text("rollout"),
        _number("wave"),
        _text("progress"),
        _text("code"),
        _number("devices"),
        _of("rollout", "name", "rollout_tally", "rollout"),
        sa.PrimaryKeyConstraint(
            "rollout", "wave", "progress", "code", name=op.f("pk_rollout_tally")
        ),
    )


def _assignments() -> None:
    op.create_table(
        "assignment",
        _text("device_id"),
        _number("sequence"),
        _text("rollout"),
        _text("nonce"),
        _number("issued_at"),
        _number("expires"),
        _text("targets"),
        _number("calls_back", nullable=True),
        _number("settled_at", nullable=True),
        _of("device", "id", "assignment", "device_id"),
        sa.PrimaryKeyConstraint("device_id", "sequence", name=op.f("pk_assignment")),
    )
    name = op.f("ix_assignment_expires")
    _partial_index(name, "assignment", "expires", "settled_at IS NULL")


def _reports() -> None:
    op.create_table(
        "update_report",
        _text("device_id"),
        _text("report_id"),
        _text("sha256"),
        _text("rollout"),
        _number("sequence"),
        _text("phase"),
        _number("at"),
        _number("received_at"),
        _text("code", nullable=True),
        _text("detail", nullable=True),
        _of("device", "id", "update_report", "device_id"),
        sa.PrimaryKeyConstraint("device_id", "report_id", name=op.f("pk_update_report")),
        sa.UniqueConstraint(
            "device_id", "sequence", name=op.f("uq_update_report_device_id_sequence")
        ),
    )


def _devices() -> None:
    op.create_table(
        "device_update",
        _text("device_id"),
        _number("sequence"),
        _text("rollout", nullable=True),
        _number("rollout_number"),
        _text("running"),
        _number("security_counter", nullable=True),
        _number("support_until", nullable=True),
        _number("reported_at", nullable=True),
        _text("phase", nullable=True),
        _text("code", nullable=True),
        _text("rolled_back"),
        _of("device", "id", "device_update", "device_id"),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_device_update")),
    )
    op.create_index(op.f("ix_device_update_support_until"), "device_update", ["support_until"])


def _text(name: str, *, nullable: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _of(table: str, key: str, owner: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{table}.{key}"], name=f"fk_{owner}_{column}")


def _partial_index(name: str, table: str, column: str, where: str) -> None:
    only = sa.text(where)
    op.create_index(name, table, [column], sqlite_where=only, postgresql_where=only)
