"""Assignments that are signed before their devices' turn comes, as values."""

from dataclasses import dataclass

from broker.core.records import Device
from broker.core.update_records import DeviceUpdate, GivenAssignment, Part


@dataclass(frozen=True)
class Candidate:
    """A device whose turn comes, with all that decides on what it's told."""

    part: Part
    device: Device
    known: DeviceUpdate
    as_of: str
    """Another text as soon as one of them is another; the registry's own."""


@dataclass(frozen=True)
class Prepared:
    """An assignment that was signed before its device's turn came; nothing of it counts yet."""

    given: GivenAssignment
    payload: bytes
    as_of: str
    """Of the candidate for whom it was decided; it's good for no other."""
    signed_as: str
    """With which keys and sources; it's good for as long as these are the ones to use."""
