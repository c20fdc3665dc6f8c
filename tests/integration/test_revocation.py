"""Taking an identity away in one act: refused, disconnected, and reported; on every broker."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.composition.registries import open_registry
from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.core.records import EventKind, RevocationReason
from broker.ports.registry import WriteTransaction
from broker.protocol.codes import Code
from broker.protocol.messages import EnrollAccepted, Rejected
from broker.protocol.zones import Zone
from broker.services.device_acts import Effect
from broker.settings import BrokerKind
from device_client.keys import from_pem
from tests.support.acting import (
    act,
    as_client,
    is_admitted,
    is_complete,
    joined,
    lock_outs,
    run_muster,
)
from tests.support.claimant import claimant, enroll_request
from tests.support.knocking import Answer, approach
from tests.support.peers import peer
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually

OUT = [DeviceInput.SUSPEND, DeviceInput.REVOKE, DeviceInput.RETIRE]


@pytest.fixture
def plan(on_both_databases: Plan) -> Plan:
    return on_both_databases


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, plan) as running:
        await running.installation.standard([])
        yield running


@pytest.mark.parametrize("out", OUT, ids=str)
async def test_who_is_put_out_is_disconnected_and_refused(
    stack: Stack, tmp_path: Path, out: DeviceInput
) -> None:
    lamp, neighbour = await joined(stack, tmp_path, "A1", "B2")
    port = stack.ports[Zone.FLEET]
    async with peer(port, lamp) as connection, peer(port, neighbour) as other:
        (acted,) = await act(stack, out, lamp.name)
        assert acted.effect is Effect.DONE
        await connection.ended()
        assert not await is_admitted(stack, lamp)
        await other.hear(f"muster/v1/device/{neighbour.name}/desired/#")
    assert await is_admitted(stack, neighbour)
    (done,) = await lock_outs(stack, lamp.name)
    assert done.is_complete
    assert done.crl_at is not None
    assert done.disconnected_at is not None
    assert done.requested_at <= done.crl_at <= done.disconnected_at
    (event,) = await stack.events_of(EventKind.DEVICE_LOCKED_OUT)
    assert event.device_id == lamp.name
    assert "disconnected after" in (event.detail or "")


async def test_a_suspended_device_comes_back_with_what_it_has(stack: Stack, tmp_path: Path) -> None:
    (lamp,) = await joined(stack, tmp_path, "A1")
    await act(stack, DeviceInput.SUSPEND, lamp.name)
    assert not await is_admitted(stack, lamp)
    assert (await stack.device("A1")).state is DeviceState.SUSPENDED
    await act(stack, DeviceInput.RESUME, lamp.name)
    assert await is_admitted(stack, lamp)
    (certificate,) = await stack.certificates_of("A1")
    assert certificate.state is CertificateState.ACTIVE
    assert certificate.held_at is None
    async with peer(stack.ports[Zone.FLEET], lamp) as connection:
        # Its lock-out isn't repeated any more.
        with pytest.raises(TimeoutError):
            await connection.ended(within=2.5)


async def test_who_was_revoked_and_reclaimed_needs_a_new_key(stack: Stack, tmp_path: Path) -> None:
    (lamp,) = await joined(stack, tmp_path, "A1")
    await act(stack, DeviceInput.REVOKE, lamp.name)
    old_key = from_pem(lamp.key.read_text())
    async with claimant(stack, "thief") as asking:
        answer = await asking.enroll(enroll_request("A1"))
        assert isinstance(answer, Rejected)
        assert answer.code == Code.SERIAL_REFUSED
        await act(stack, DeviceInput.RECLAIM, lamp.name)
        assert not await is_admitted(stack, lamp)
        answer = await asking.enroll(enroll_request("A1", old_key))
        assert isinstance(answer, Rejected)
        assert answer.code == Code.KEY_IN_USE
    fresh = as_client(stack, await stack.claim_device("A1", tmp_path / "fresh"))
    assert await is_admitted(stack, fresh)
    assert not await is_admitted(stack, lamp)
    (live,) = await stack.live_certificates("A1")
    assert live.state is CertificateState.ACTIVE


async def test_a_retired_device_never_comes_back(stack: Stack, tmp_path: Path) -> None:
    (lamp,) = await joined(stack, tmp_path, "A1")
    assert (await stack.installation.group()).devices == 1
    await act(stack, DeviceInput.RETIRE, lamp.name)
    assert (await stack.installation.group()).devices == 0
    (again,) = await act(stack, DeviceInput.RECLAIM, lamp.name)
    assert again.effect is Effect.IMPOSSIBLE
    async with claimant(stack, "A1") as asking:
        answer = await asking.enroll(enroll_request("A1"))
    assert isinstance(answer, Rejected)
    (certificate,) = await stack.certificates_of("A1")
    assert certificate.revoked_for is RevocationReason.RETIRED


async def test_who_waits_with_connect_at_an_open_door_is_thrown_off_again(
    stack: Stack, tmp_path: Path
) -> None:
    """Its handshake was over before the CRL came into force, so no CRL stops it."""
    (lamp,) = await joined(stack, tmp_path, "A1")
    door = await approach(stack.ports[Zone.FLEET], lamp)
    try:
        assert await is_admitted(stack, lamp)
        await act(stack, DeviceInput.REVOKE, lamp.name)
        if await door.knock(lamp.name) is Answer.ADMITTED:
            assert stack.plan.brokers is BrokerKind.MOSQUITTO
        await door.ended()
    finally:
        door.close()
    assert not await is_admitted(stack, lamp)


async def test_who_waits_for_longer_than_lock_outs_are_repeated_is_thrown_off_too(
    stack: Stack, tmp_path: Path
) -> None:
    """A thief keeps Mosquitto waiting for as long as he likes, by a CONNECT that comes in bytes."""
    (lamp,) = await joined(stack, tmp_path, "A1")
    door = await approach(stack.ports[Zone.FLEET], lamp)
    try:
        await act(stack, DeviceInput.REVOKE, lamp.name)
        # As long ago as a service forgets that it carried it out.
        async with open_registry(stack.home, stack.installation.settings) as registry:
            await registry.write(_forget_lock_outs)
        if await door.knock(lamp.name) is Answer.ADMITTED:
            assert stack.plan.brokers is BrokerKind.MOSQUITTO
        await door.ended()
    finally:
        door.close()


def _forget_lock_outs(tx: WriteTransaction) -> None:
    for each in tx.open_lock_outs(100):
        tx.save_lock_out(replace(each, ended_at=datetime.now(UTC)))


async def test_many_are_put_out_by_one_crl(stack: Stack, tmp_path: Path) -> None:
    lamps = await joined(stack, tmp_path, *(f"M{n}" for n in range(12)))
    before = len(await stack.events_of(EventKind.CRL_PUBLISHED))
    async with AsyncExitStack() as connected:
        connections = [
            await connected.enter_async_context(peer(stack.ports[Zone.FLEET], lamp))
            for lamp in lamps
        ]
        await act(stack, DeviceInput.REVOKE, *(lamp.name for lamp in lamps))
        for connection in connections:
            await connection.ended()
    assert len(await stack.events_of(EventKind.CRL_PUBLISHED)) <= before + 3
    for lamp in lamps:
        assert not await is_admitted(stack, lamp)


async def test_without_the_service_it_waits_says_so_and_is_completed_later(
    stack: Stack, tmp_path: Path
) -> None:
    (lamp,) = await joined(stack, tmp_path, "A1")
    await stack.stop_service()
    status, out, err = await run_muster(
        stack, "devices", "revoke", lamp.name, "--timeout", "0.2", "--json", "--reason", "stolen"
    )
    assert status == 1
    (told,) = [json.loads(line) for line in out.splitlines()]
    assert (told["effect"], told["after"]) == ("done", "revoked")
    assert told["lock_out"]["complete"] is False
    assert told["lock_out"]["reason"] == "stolen"
    assert "completes it by itself" in err
    await stack.start_service()
    await eventually(lambda: is_complete(stack, lamp.name))
    assert not await is_admitted(stack, lamp)
    status, out, _ = await run_muster(stack, "devices", "revoke", lamp.name, "--json")
    (told,) = [json.loads(line) for line in out.splitlines()]
    assert (status, told["effect"], told["lock_out"]["complete"]) == (0, "unchanged", True)


async def test_the_command_reports_how_long_it_took(stack: Stack, tmp_path: Path) -> None:
    lamp, other = await joined(stack, tmp_path, "A1", "B2")
    status, out, _ = await run_muster(stack, "devices", "suspend", "--group", "lamps", "--dry-run")
    assert status == 0
    assert await is_admitted(stack, lamp)
    status, out, err = await run_muster(stack, "devices", "suspend", lamp.name)
    assert status == 0, err
    row = out.splitlines()[1].split("\t")
    assert row[:3] == [lamp.name, "done", "active → suspended"]
    assert all(cell.endswith(" ms") for cell in row[4:])
    assert not await is_admitted(stack, lamp)
    assert await is_admitted(stack, other)
    status, _, err = await run_muster(stack, "devices", "reclaim", lamp.name)
    assert status == 1
    assert "1 impossible" in err
    status, _, err = await run_muster(stack, "devices", "revoke", "nobody")
    assert status == 1
    assert "[device_unknown]" in err


async def test_a_leaked_claim_certificate_takes_its_devices_along(
    stack: Stack, tmp_path: Path
) -> None:
    lamp, other = await joined(stack, tmp_path, "A1", "B2")
    status, out, err = await run_muster(stack, "claim-cert", "show", "batch-7", "--json")
    assert status == 0, err
    assert [device["id"] for device in json.loads(out)["devices"]] == [lamp.name, other.name]
    status, out, err = await run_muster(
        stack, "claim-cert", "revoke", "batch-7", "--revoke-devices"
    )
    assert status == 0, err
    assert not await is_admitted(stack, lamp)
    assert not await is_admitted(stack, other)
    assert (await stack.device("A1")).state is DeviceState.REVOKED


async def test_the_client_of_a_claim_is_not_a_device(stack: Stack, tmp_path: Path) -> None:
    """A revoked device's claim certificate still asks for others."""
    (lamp,) = await joined(stack, tmp_path, "A1")
    await act(stack, DeviceInput.REVOKE, lamp.name)
    await stack.installation.enroll(["B2"])
    async with claimant(stack, "B2") as asking:
        assert isinstance(await asking.enroll(enroll_request("B2")), EnrollAccepted)


async def test_a_claim_connection_from_before_its_certificate_s_revocation_gets_nothing(
    stack: Stack,
) -> None:
    """Mosquitto may keep it; the embedded broker ends it."""
    await stack.installation.enroll(["A1"])
    async with claimant(stack, "board-1") as asking:
        status, _, err = await run_muster(stack, "claim-cert", "revoke", "batch-7")
        assert status == 0, err
        if stack.plan.brokers is BrokerKind.EMBEDDED:
            await asking.peer.ended()
        else:
            answer = await asking.enroll(enroll_request("A1"))
            assert isinstance(answer, Rejected)
            assert answer.code == Code.CLAIM_REVOKED
    assert await stack.devices() == []
