"""What the load generator is told, and what it tells back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec


@dataclass(frozen=True)
class PlannedDevice:
    """One device of the load: everything that it sends first was made before."""

    client_id: str
    topic: str
    """Where it enrolls."""
    payload: bytes
    key: str
    """Its private key in PEM."""


@dataclass(frozen=True)
class Plan:
    """A load."""

    claim_port: int
    fleet_port: int
    anchors: Path
    """By what devices know brokers."""
    claim_certificate: Path
    claim_key: Path
    concurrent: int
    warm_up: int
    """How many of the devices go first and aren't counted."""
    devices: list[PlannedDevice]


@dataclass(frozen=True)
class Result:
    """How it went."""

    failures: list[str]
    latencies_s: list[float]
    """Of each device that became a member: from its first connect to the end of its last."""
    cpu_s: float
    """What the generator itself used."""


def write_plan(path: Path, plan: Plan) -> None:
    """Keys are in it: for the owner only."""
    path.touch(0o600)
    path.write_bytes(msgspec.json.encode(plan, enc_hook=str))


def read_plan(path: Path) -> Plan:
    """The plan in a file."""
    return msgspec.json.decode(path.read_bytes(), type=Plan, dec_hook=_made_from_text)


def write_result(result: Result) -> bytes:
    """The result as one line."""
    return msgspec.json.encode(result) + b"\n"


def read_result(line: bytes) -> Result:
    """The result on a line."""
    return msgspec.json.decode(line, type=Result)


def _made_from_text(kind: type, text: Any) -> Any:
    return kind(text)
