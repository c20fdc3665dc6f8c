"""What tests put into a registry, and how they make works share a batch."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from broker.core.records import Certificate, Device, Event, EventKind, Reply
from broker.ports.registry import DeviceFilter, Registry, WriteTransaction
from broker.protocol.names import CertificateSerial, DeviceId, SerialNumber
from broker.protocol.zones import Zone
from tests.support.records import (
    NOW,
    a_certificate,
    a_claim_certificate,
    a_device,
    a_fingerprint,
    a_group,
)
from tests.support.waiting import eventually

_HELD_AT_MOST_S = 30

_EVENT = Event(
    at=NOW,
    kind=EventKind.CLAIM_ACCEPTED,
    device_id="lamp-A1",
    serial_number="A1",
    claim_name="batch-7",
    client_id="board-1",
    group="lamps",
    detail="certificate d1",
)
_REPLY = Reply(
    id="r1",
    zone=Zone.CLAIM,
    topic="muster/v1/claim/batch-7/board-1/enroll/accepted",
    payload=b'{"request_id":"1"}',
    created_at=NOW,
)


def an_event(**changes: Any) -> Event:
    """`lamp-A1`'s accepted claim."""
    return replace(_EVENT, **changes)


def a_reply(**changes: Any) -> Reply:
    """The answer to `board-1`'s claim."""
    return replace(_REPLY, **changes)


def device_number(number: int, **changes: Any) -> Device:
    """`lamp-N` with the serial number `SN`."""
    return a_device(id=DeviceId(f"lamp-{number}"), serial=SerialNumber(f"S{number}"), **changes)


def certificate_number(number: int, **changes: Any) -> Certificate:
    """The certificate `N` (in hexadecimal) of `lamp-N`, with a key of its own."""
    fields: dict[str, Any] = {
        "serial": CertificateSerial(f"{number:x}"),
        "device_id": DeviceId(f"lamp-{number}"),
        "key_sha256": a_fingerprint(f"key {number}"),
        "certificate_sha256": a_fingerprint(f"certificate {number}"),
    }
    return a_certificate(**{**fields, **changes})


def add_batch(tx: WriteTransaction) -> None:
    """The claim certificate `batch-7` and the group `lamps` that lists it."""
    tx.save_claim_certificate(a_claim_certificate())
    tx.save_group(a_group())


def add_member(tx: WriteTransaction, number: int) -> None:
    """All that a claim writes: device, certificate, counts, event and reply; once only."""
    if tx.device(device_number(number).id) is not None:
        return
    tx.save_device(device_number(number))
    tx.save_certificate(certificate_number(number))
    tx.count_claim(a_claim_certificate().name, 1)
    tx.count_device(a_group().name, 1)
    tx.add_event(an_event(device_id=f"lamp-{number}"))
    tx.add_reply(a_reply(id=str(number)))


async def members(registry: Registry) -> list[DeviceId]:
    """The ids of all devices, in their order."""
    devices = await registry.read(lambda tx: tx.devices(DeviceFilter()))
    return [device.id for device in devices]


def member_ids(*numbers: int) -> list[DeviceId]:
    """The ids that `add_member` gives these numbers, as `members` orders them."""
    return sorted(device_number(number).id for number in numbers)


@asynccontextmanager
async def held_writer(registry: Registry) -> AsyncIterator[None]:
    """The writer does nothing in the block; all that is written there forms one batch after it."""
    gate, reached = threading.Event(), threading.Event()

    def hold(_: WriteTransaction) -> None:
        reached.set()
        assert gate.wait(_HELD_AT_MOST_S)

    holding = asyncio.create_task(registry.write(hold))
    try:
        await eventually(reached.is_set)
        yield
    finally:
        gate.set()
        await holding
