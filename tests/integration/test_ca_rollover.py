"""The operational authority is replaced under a living fleet, on both kinds of broker."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from broker.core.ca_rollover import Phase
from broker.core.lifecycle import DeviceInput
from broker.core.records import EventKind, RevocationReason
from broker.protocol.codes import Code
from broker.protocol.messages import Rejected
from broker.protocol.names import DeviceId
from broker.protocol.zones import Zone
from broker.services.problems import Problem, ProblemCode
from broker.settings import BrokerKind
from device_client.keystore import Keystore
from tests.support.acting import act, as_client, is_admitted, joined, run_muster
from tests.support.certificates import Client
from tests.support.claimant import claimant, enroll_request
from tests.support.csrs import fresh_key
from tests.support.device_agents import device
from tests.support.members import Holder, connected, join, prove, recover
from tests.support.members import as_client as holder_client
from tests.support.peers import peer
from tests.support.rolling import (
    assert_sound,
    issuer_of,
    look,
    moved,
    operate,
    reached,
    roll,
    start,
)
from tests.support.stack import Plan, Stack, prepared_stack
from tests.support.waiting import eventually


@pytest.fixture
def plan(on_both_databases: Plan) -> Plan:
    return on_both_databases


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    async with prepared_stack(tmp_path, plan) as prepared:
        await prepared.start_service()
        await prepared.installation.standard(["A1", "B2", "C3", "D4"])
        yield prepared


async def admits(stack: Stack, holder: Holder, place: Path) -> bool:
    """Whether the fleet's broker lets it in now."""
    client = await asyncio.to_thread(holder_client, stack, holder, place)
    return await is_admitted(stack, client)


async def renewed(stack: Stack, holder: Holder, place: Path) -> Holder:
    """The same device with a new certificate that it has proven."""
    key = fresh_key()
    async with connected(stack, holder, place) as connection:
        answer = await connection.renew(key)
    successor = holder.given(key, answer)
    await prove(stack, successor, place)
    return successor


def issuer(holder: Holder) -> x509.Name:
    return holder.leaf.issuer


@asynccontextmanager
async def running_agents(stack: Stack, place: Path, *serials: str) -> AsyncIterator[list[Keystore]]:
    """Real devices that live on; what they keep."""
    async with AsyncExitStack() as ending:
        tasks, stores = [], []
        for serial in serials:
            agent, store = ending.enter_context(device(place / serial, stack.bundle(), serial))
            tasks.append(asyncio.create_task(agent.run()))
            stores.append(store)
        try:
            yield stores
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_fleet_moves_by_itself_and_the_old_authority_is_dropped(
    stack: Stack, tmp_path: Path
) -> None:
    serials = ("A1", "B2")
    old = await joined(stack, tmp_path, *serials)
    kept = [await asyncio.to_thread(_copied, client, tmp_path) for client in old]
    async with running_agents(stack, old[0].certificate.parents[3], *serials) as stores:
        said = await roll(stack, "start", "--per-minute", "6000")
        assert (said["old"], said["new"]) == (1, 2)
        standing = await moved(stack)
        assert (standing.moved, standing.left) == (2, 0)
        for client in kept:  # in its time of grace; the device itself comes back for its name
            await eventually(partial(is_admitted, stack, client))
        assert (await roll(stack, "finish"))["phase"] in ("leaving", "done")
        await reached(stack, Phase.DONE)
        for client in kept:
            assert not await is_admitted(stack, client)
    for store in stores:
        identity = await asyncio.to_thread(store.current)
        assert identity is not None
        client = as_client(stack, identity)
        assert client.leaf.issuer == issuer_of(stack, 2)
        assert await is_admitted(stack, client)
    for serial in serials:
        first, last = await stack.certificates_of(serial)
        assert (first.generation, last.generation) == (1, 2)
    kinds = [event.code for event in await stack.events_of(EventKind.CA_ROLLOVER)]
    assert kinds == ["introducing", "switching", "moving", "leaving", "done"]


def _copied(client: Client, place: Path) -> Client:
    """The identity as a thief would have it who copied it."""
    certificate, key = place / f"{client.name}.copy.crt", place / f"{client.name}.copy.key"
    shutil.copyfile(client.certificate, certificate)
    shutil.copyfile(client.key, key)
    return replace(client, certificate=certificate, key=key)


async def test_certificates_of_both_authorities_are_let_in_and_revoked_at_once(
    stack: Stack, tmp_path: Path
) -> None:
    old = await join(stack, tmp_path, "A1")
    await start(stack)
    await reached(stack, Phase.MOVING)
    new = await join(stack, tmp_path, "B2")
    await assert_sound(stack)
    assert issuer(old) == issuer_of(stack, 1)
    assert issuer(new) == issuer_of(stack, 2)
    for holder in (old, new):
        client = await asyncio.to_thread(holder_client, stack, holder, tmp_path)
        async with peer(stack.ports[Zone.FLEET], client) as connection:
            await act(stack, DeviceInput.REVOKE, holder.device_id)
            await connection.ended()
        assert not await is_admitted(stack, client)


async def test_nothing_is_issued_by_an_authority_that_the_broker_does_not_know(
    tmp_path: Path,
) -> None:
    async with prepared_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as stack:
        await stack.start_service()
        await stack.installation.standard(["A1", "B2"])
        old = await join(stack, tmp_path, "A1")
        await stack.brokers[Zone.FLEET].kill()
        await start(stack)
        # The claim zone lives on, and what it issues now is by the old authority.
        await stack.installation.enroll(["C3"])
        claimed = await _claimed(stack, "C3")
        assert issuer(claimed) == issuer_of(stack, 1)
        assert (await look(stack)).rollover is not None
        assert (await _phase(stack)) is Phase.INTRODUCING
        await stack.brokers[Zone.FLEET].restart()
        await reached(stack, Phase.MOVING)
        await prove(stack, claimed, tmp_path)
        new = await join(stack, tmp_path, "B2")
        assert issuer(new) == issuer_of(stack, 2)
        for holder in (old, new, claimed):
            assert await admits(stack, holder, tmp_path)


async def _phase(stack: Stack) -> Phase:
    rollover = (await look(stack)).rollover
    assert rollover is not None
    return rollover.phase


async def _claimed(stack: Stack, serial: str) -> Holder:
    """Without its proof, for which the fleet's broker is needed."""
    key = fresh_key()
    async with claimant(stack, f"claims-{serial}") as asking:
        answer = await asking.enroll(enroll_request(serial, key))
    holder = Holder(DeviceId(f"lamp-{serial}"), key, "")
    return holder.given(key, answer)


async def test_a_cancelled_rollover_brings_everybody_back(stack: Stack, tmp_path: Path) -> None:
    stayed = await join(stack, tmp_path, "A1")
    await start(stack)
    await reached(stack, Phase.MOVING)
    went = await join(stack, tmp_path, "B2")
    await operate(stack, lambda rollovers: rollovers.cancel())
    standing = await reached(stack, Phase.MOVING)
    assert standing.rollover is not None
    assert (standing.rollover.old, standing.rollover.new) == (2, 1)
    assert standing.left_names == (went.device_id,)
    newcomer = await join(stack, tmp_path, "C3")
    assert issuer(newcomer) == issuer_of(stack, 1)
    with pytest.raises(Problem) as refused:
        await operate(stack, lambda rollovers: rollovers.finish(0))
    assert refused.value.code is ProblemCode.DEVICES_LEFT
    back = await renewed(stack, went, tmp_path)
    await moved(stack)
    await operate(stack, lambda rollovers: rollovers.finish(0))
    await reached(stack, Phase.DONE)
    for holder in (stayed, newcomer, back):
        assert await admits(stack, holder, tmp_path)
    assert not await admits(stack, went, tmp_path)
    assert (await start(stack)).new == 3


async def test_who_is_abandoned_is_thrown_off_and_the_others_live_on(
    stack: Stack, tmp_path: Path
) -> None:
    slow = await join(stack, tmp_path, "A1")
    quick = await join(stack, tmp_path, "B2")
    await start(stack)
    await reached(stack, Phase.MOVING)
    quick = await renewed(stack, quick, tmp_path)
    client = await asyncio.to_thread(holder_client, stack, slow, tmp_path)
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        with pytest.raises(Problem) as refused:
            await operate(stack, lambda rollovers: rollovers.finish(0))
        assert refused.value.code is ProblemCode.DEVICES_LEFT
        await operate(stack, lambda rollovers: rollovers.finish(1))
        await connection.ended()
    await reached(stack, Phase.DONE)
    assert not await is_admitted(stack, client)
    assert await admits(stack, quick, tmp_path)
    (lost,) = await stack.certificates_of("A1")
    assert lost.revoked_for is RevocationReason.ABANDONED
    assert await let_in_until(stack) == {"lamp-A1": None, "lamp-B2": quick.leaf.not_valid_after_utc}
    _, shown, _ = await run_muster(stack, "devices", "show", "lamp-A1")
    assert "let in until\tno certificate\n" in shown
    key = fresh_key()
    found = slow.given(key, await recover(stack, slow.recovery(key)))
    assert issuer(found) == issuer_of(stack, 2)
    await prove(stack, found, tmp_path)
    again = await recover(stack, slow.recovery(fresh_key()))
    assert isinstance(again, Rejected)
    assert again.known_code is Code.RECOVERY_REFUSED


async def test_who_was_abandoned_while_switched_off_comes_back_by_itself(
    stack: Stack, tmp_path: Path
) -> None:
    """Its certificate has months to go, and no broker knows its issuer any more."""
    (lamp,) = await joined(stack, tmp_path, "A1")
    await start(stack)
    await reached(stack, Phase.MOVING)
    await operate(stack, lambda rollovers: rollovers.finish(1))
    await reached(stack, Phase.DONE)
    async with running_agents(stack, lamp.certificate.parents[3], "A1") as (store,):
        await eventually(lambda: _is_of(store, stack, 2))
    (*_, newest) = await stack.certificates_of("A1")
    assert newest.generation == 2


def _is_of(store: Keystore, stack: Stack, generation: int) -> bool:
    current = store.current()
    if current is None or current.confirmed_at is None:
        return False
    leaf = x509.load_pem_x509_certificate(current.directory.joinpath("chain.pem").read_bytes())
    return leaf.issuer == issuer_of(stack, generation)


async def let_in_until(stack: Stack) -> dict[str, datetime | None]:
    """As 'muster devices list' says it."""
    _, out, _ = await run_muster(stack, "devices", "list", "--json")
    told = {each["id"]: each["let_in_until"] for each in map(json.loads, out.splitlines())}
    return {name: at and datetime.fromisoformat(at) for name, at in told.items()}


async def test_a_service_that_was_down_takes_it_up(stack: Stack, tmp_path: Path) -> None:
    holder = await join(stack, tmp_path, "A1")
    await stack.stop_service()
    await start(stack)
    await stack.start_service()
    await reached(stack, Phase.MOVING)
    holder = await renewed(stack, holder, tmp_path)
    await stack.stop_service()
    await operate(stack, lambda rollovers: rollovers.finish(0))
    await stack.start_service()
    await reached(stack, Phase.DONE)
    assert await admits(stack, holder, tmp_path)
    await eventually(lambda: _has_one_operational_crl(stack))
    await assert_sound(stack)


def _has_one_operational_crl(stack: Stack) -> bool:
    return stack.home.crl_file(Zone.FLEET).read_bytes().count(b"BEGIN X509 CRL") == 1
