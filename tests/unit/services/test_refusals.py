"""Refusals leave an event with the exact reason; a flood of them leaves a few."""

from datetime import timedelta
from typing import Any

import pytest

from broker.core.records import EventKind
from broker.ports.registry import RegistryError
from broker.protocol.codes import Code, Refused
from broker.protocol.names import ClientId, DeviceId
from broker.protocol.topics import ClaimOrigin, DeviceOrigin
from broker.services.refusals import RefusalLog
from tests.support.desk import BATCH, ORIGIN, Desk
from tests.support.operating import NOW

DEVICE = DeviceOrigin(DeviceId("lamp-A1"))


@pytest.fixture
def log(desk: Desk) -> RefusalLog:
    return RefusalLog(desk.registry, desk.clock)


async def test_the_event_has_the_exact_code_and_detail(desk: Desk, log: RefusalLog) -> None:
    refused = Refused(Code.SERIAL_TAKEN, "Another key holds it.")
    assert await log.record(refused, ORIGIN, "A1")
    (event,) = await desk.events()
    assert (event.kind, event.at) == (EventKind.CLAIM_REFUSED, NOW)
    assert (event.code, event.detail) == ("serial_taken", "Another key holds it.")
    assert (event.claim_name, event.client_id) == ("batch-7", "client-1")
    assert (event.serial_number, event.repeated) == ("A1", 1)


async def test_a_device_s_refusal_names_the_device(desk: Desk, log: RefusalLog) -> None:
    await log.record(Refused(Code.CERTIFICATE_UNKNOWN), DEVICE, None)
    (event,) = await desk.events()
    assert event.kind is EventKind.REQUEST_REFUSED
    assert (event.device_id, event.claim_name, event.detail) == ("lamp-A1", None, None)


async def test_a_claim_s_refusal_names_the_device_that_the_registry_knows(
    desk: Desk, log: RefusalLog
) -> None:
    refused = Refused(Code.RECOVERY_WINDOW_PASSED)
    refused.device_id = "lamp-A1"
    await log.record(refused, ORIGIN, "A1")
    (event,) = await desk.events()
    assert (event.kind, event.device_id) == (EventKind.CLAIM_REFUSED, "lamp-A1")


async def test_a_refusal_of_an_unknown_origin_names_nobody(desk: Desk, log: RefusalLog) -> None:
    await log.record(Refused(Code.ORIGIN_INVALID), None, None)
    (event,) = await desk.events()
    assert event.kind is EventKind.REQUEST_REFUSED
    assert (event.device_id, event.claim_name, event.client_id) == (None, None, None)


async def test_repetitions_are_folded_and_counted(desk: Desk, log: RefusalLog) -> None:
    refused = Refused(Code.SERIAL_UNKNOWN)
    outcomes = [await log.record(refused, ORIGIN, "A1") for _ in range(10)]
    assert outcomes == [True] + [False] * 9
    await log.flush()
    assert len(await desk.events()) == 1
    desk.clock.at += timedelta(minutes=1)
    await log.flush()
    first, folded = await desk.events()
    assert (first.repeated, folded.repeated) == (1, 9)
    assert folded.code == "serial_unknown"
    assert folded.at == desk.clock.at
    await log.flush()
    assert len(await desk.events()) == 2


async def test_other_serial_numbers_clients_and_codes_are_told_apart(
    desk: Desk, log: RefusalLog
) -> None:
    other_client = ClaimOrigin(BATCH, ClientId("client-2"))
    for code, origin, serial in [
        (Code.SERIAL_UNKNOWN, ORIGIN, "A1"),
        (Code.SERIAL_UNKNOWN, ORIGIN, "A2"),
        (Code.SERIAL_UNKNOWN, other_client, "A1"),
        (Code.SERIAL_TAKEN, ORIGIN, "A1"),
    ]:
        assert await log.record(Refused(code), origin, serial)
    assert len(await desk.events()) == 4


@pytest.mark.parametrize("code", [Code.RATE_LIMITED, Code.BUSY])
async def test_a_flooder_that_invents_client_ids_leaves_one_event(
    desk: Desk, log: RefusalLog, code: Code
) -> None:
    for number in range(50):
        origin = ClaimOrigin(BATCH, ClientId(f"c{number}"))
        await log.record(Refused(code), origin, f"S{number}")
    (event,) = await desk.events()
    assert (event.claim_name, event.client_id, event.serial_number) == ("batch-7", None, None)


async def test_the_registry_s_failure_is_the_caller_s(desk: Desk, log: RefusalLog) -> None:
    registry: Any = desk.registry
    await registry.stop()
    with pytest.raises(RegistryError):
        await log.record(Refused(Code.SERIAL_UNKNOWN), ORIGIN, "A1")


async def test_what_could_not_be_written_is_written_the_next_time(
    desk: Desk, log: RefusalLog
) -> None:
    registry: Any = desk.registry
    refused = Refused(Code.SERIAL_UNKNOWN)
    await registry.stop()
    with pytest.raises(RegistryError):
        await log.record(refused, ORIGIN, "A1")
    await registry.start()
    assert await log.record(refused, ORIGIN, "A1")


async def test_serial_numbers_made_up_without_end_leave_a_bounded_log(
    desk: Desk, log: RefusalLog
) -> None:
    """Each is another refusal to the eye; beyond a hundred a minute they share a line."""
    refused = Refused(Code.SERIAL_UNKNOWN)
    for number in range(300):
        await log.record(refused, ORIGIN, f"made-up-{number}")
    assert len(await desk.events()) <= 102
