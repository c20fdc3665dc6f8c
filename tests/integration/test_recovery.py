"""Devices that were away for too long come back by the key of their last certificate."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from broker.core.lifecycle import CertificateState, DeviceInput
from broker.core.records import Certificate, EventKind
from broker.protocol.codes import Code
from broker.protocol.messages import EnrollAccepted, Rejected
from broker.protocol.names import ClaimName, GroupName
from tests.support.acting import act, is_admitted, run_muster
from tests.support.csrs import fresh_key
from tests.support.device_agents import device
from tests.support.expired import expired
from tests.support.members import as_client, connected, join, prove, recover
from tests.support.stack import STUBBORN, Plan, Stack, running_stack
from tests.support.strange_clocks import reads
from tests.support.succeeding import signature
from tests.support.waiting import eventually

OTHER = ClaimName("batch-8")
BRIEF, LONG = timedelta(seconds=8), timedelta(days=90)
SLOW: Final = timedelta(seconds=12)
"""So far behind, a device renews a brief certificate some seconds after its end."""


@pytest.fixture
def plan(on_both_databases: Plan) -> Plan:
    return on_both_databases


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, plan) as running:
        await running.installation.standard(["A1", "B2"])
        yield running


async def exact_reason(stack: Stack) -> str | None:
    """Of the last refusal, as the audit log has it."""
    (*_, last) = await stack.events_of(EventKind.CLAIM_REFUSED)
    assert (last.serial_number, last.device_id) == ("A1", "lamp-A1")
    return last.code


def code_of(answer: object) -> str:
    assert isinstance(answer, Rejected), answer
    return answer.code


async def test_an_expired_device_comes_back_and_its_old_key_doesn_t(
    stack: Stack, tmp_path: Path
) -> None:
    old = await expired(stack, tmp_path, "A1")
    assert not await is_admitted(stack, as_client(stack, old, tmp_path))
    assert "lamp-A1\tactive, expired\t" in await shown(stack, "list", "--expired")
    assert "state\tactive, expired\n" in await shown(stack, "show", "lamp-A1")
    key = fresh_key()
    request = old.recovery(key)
    new = old.given(key, await recover(stack, request))
    await prove(stack, new, tmp_path)
    first, second = await stack.certificates()
    assert (first.state, second.state) == (CertificateState.SUPERSEDED, CertificateState.ACTIVE)
    assert (await stack.installation.claim_certificate()).claims == 1
    # The very same request once more, and the old key with another one.
    for again in (request, old.recovery(fresh_key())):
        assert code_of(await recover(stack, again)) == Code.RECOVERY_REFUSED
        assert await exact_reason(stack) == Code.RECOVERY_SUPERSEDED
    assert len(await stack.certificates()) == 2
    (event,) = await stack.events_of(EventKind.RECOVERY_ACCEPTED)
    assert (event.device_id, event.serial_number) == (old.device_id, "A1")
    assert "lamp-A1" not in await shown(stack, "list", "--expired")
    assert "lamp-A1\tactive\t" in await shown(stack, "list")


async def shown(stack: Stack, *arguments: str) -> str:
    """By 'muster devices …'."""
    status, out, err = await run_muster(stack, "devices", *arguments)
    assert status == 0, err
    return out


async def test_a_replay_gets_nothing_but_the_same_certificate(stack: Stack, tmp_path: Path) -> None:
    old = await expired(stack, tmp_path, "A1")
    request = old.recovery(fresh_key())
    answers = [await recover(stack, request, client_id=f"c{n}") for n in range(3)]
    assert len({a.certificate_chain for a in answers if isinstance(a, EnrollAccepted)}) == 1
    assert len(await stack.certificates()) == 2


async def test_a_stolen_key_of_a_revoked_device_gets_nothing(stack: Stack, tmp_path: Path) -> None:
    lamp = await expired(stack, tmp_path, "A1")
    await expired(stack, tmp_path, "B2")
    await act(stack, DeviceInput.REVOKE, lamp.device_id)
    assert code_of(await recover(stack, lamp.recovery(fresh_key()))) == Code.RECOVERY_REFUSED
    assert await exact_reason(stack) == Code.RECOVERY_BLOCKED
    assert len(await stack.certificates()) == 2


async def test_who_has_no_key_gets_nothing(stack: Stack, tmp_path: Path) -> None:
    lamp = await expired(stack, tmp_path, "A1")
    other = await expired(stack, tmp_path, "B2")
    request = lamp.recovery(fresh_key())
    stranger = signature(other.key, request.request_id, request.csr)
    forged = lamp.recovery(fresh_key(), signature=stranger)
    assert code_of(await recover(stack, forged)) == Code.RECOVERY_SIGNATURE_INVALID
    # Another's key is another device: it can't be had for this one's certificate.
    theirs = other.recovery(lamp.key)
    assert code_of(await recover(stack, theirs)) == Code.KEY_IN_USE


async def test_a_good_certificate_isn_t_recovered_but_used(stack: Stack, tmp_path: Path) -> None:
    lamp = await join(stack, tmp_path, "A1")
    assert code_of(await recover(stack, lamp.recovery(fresh_key()))) == Code.RECOVERY_TOO_EARLY
    async with connected(stack, lamp, tmp_path) as connection:
        assert isinstance(await connection.renew(fresh_key()), EnrollAccepted)


async def test_another_claim_certificate_of_the_group_opens_the_door_and_no_other_does(
    stack: Stack, tmp_path: Path
) -> None:
    """As when the one that was flashed has leaked, and was revoked."""
    await stack.installation.add_claim_certificate(OTHER)
    lamp = await expired(stack, tmp_path, "A1")
    await stack.installation.save_group(GroupName("bulbs"), frozenset({OTHER}))
    asking = lamp.recovery(fresh_key())
    assert code_of(await recover(stack, asking, OTHER)) == Code.RECOVERY_REFUSED
    assert await exact_reason(stack) == Code.RECOVERY_OTHER_GROUP
    await stack.installation.save_group(GroupName("bulbs"), frozenset())
    await stack.installation.save_group(claims=frozenset({OTHER}))
    assert isinstance(await recover(stack, asking, OTHER), EnrollAccepted)


async def test_past_the_window_an_operator_s_word_is_needed_and_good_for_once(
    stack: Stack, tmp_path: Path
) -> None:
    old = await expired(stack, tmp_path, "A1")
    await stack.installation.save_group(recover_within=timedelta())
    key = fresh_key()
    assert code_of(await recover(stack, old.recovery(key))) == Code.RECOVERY_REFUSED
    assert await exact_reason(stack) == Code.RECOVERY_WINDOW_PASSED
    _, told, _ = await run_muster(stack, "events", "--device", old.device_id)
    assert f"'muster devices approve-recovery {old.device_id}'" in told
    status, _, err = await run_muster(stack, "devices", "approve-recovery", old.device_id)
    assert status == 0, err
    new = old.given(key, await recover(stack, old.recovery(key)))
    await prove(stack, new, tmp_path)
    assert code_of(await recover(stack, old.recovery(fresh_key()))) == Code.RECOVERY_REFUSED
    (given,) = await stack.events_of(EventKind.RECOVERY_APPROVED)
    (used,) = await stack.events_of(EventKind.RECOVERY_ACCEPTED)
    assert given.device_id == used.device_id == old.device_id
    assert used.detail is not None
    assert used.detail.endswith("approved by an operator")


async def test_whoever_stays_connected_beyond_the_expiry_renews_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    """Brokers keep the connection, but it's no way round the window and the operator's word."""
    await stack.installation.save_group(lifetime=BRIEF, recover_within=timedelta())
    old = await join(stack, tmp_path, "A1")
    async with connected(stack, old, tmp_path) as connection:
        await eventually(lambda: datetime.now(UTC) > old.leaf.not_valid_after_utc)
        assert code_of(await connection.renew(fresh_key())) == Code.CERTIFICATE_EXPIRED
        assert code_of(await connection.confirm(old.sha256)) == Code.CERTIFICATE_EXPIRED
    assert len(await stack.certificates()) == 1
    assert code_of(await recover(stack, old.recovery(fresh_key()))) == Code.RECOVERY_REFUSED


async def test_a_device_whose_connection_outlived_its_certificate_comes_back_by_itself(
    stack: Stack, tmp_path: Path
) -> None:
    """Its clock is slow."""
    await stack.installation.save_group(lifetime=BRIEF)
    async with living(stack, tmp_path / "state", "A1"):
        await eventually(partial(stack.is_active, "A1"))
        (old,) = await stack.certificates_of("A1")
        await stack.installation.save_group(lifetime=LONG)
        await eventually(partial(lives_on_another, stack, old))
    refused = await stack.events_of(EventKind.REQUEST_REFUSED)
    assert Code.CERTIFICATE_EXPIRED in [event.code for event in refused]
    (recovered,) = await stack.events_of(EventKind.RECOVERY_ACCEPTED)
    assert recovered.device_id == old.device_id


@asynccontextmanager
async def living(stack: Stack, state: Path, serial: str) -> AsyncIterator[None]:
    """A device agent with a slow clock, which runs until the end of the block."""
    bundle, clock = stack.bundle(), reads(datetime.now(UTC) - SLOW)
    with device(state, bundle, serial, timing=STUBBORN, clock=clock) as (agent, _):
        running = asyncio.create_task(agent.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])


async def lives_on_another(stack: Stack, old: Certificate) -> bool:
    found = await stack.certificates_of("A1")
    proven = [each for each in found if each.state is CertificateState.ACTIVE]
    return proven != [] and proven[0].serial != old.serial
