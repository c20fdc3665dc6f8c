"""Members renew their certificate over their own connection; on every broker and database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.core.lifecycle import CertificateState, DeviceInput
from broker.core.records import Certificate, EventKind, RevocationReason
from broker.protocol.codes import Code
from broker.protocol.messages import ConfirmAccepted, EnrollAccepted, Rejected
from broker.protocol.zones import Zone
from tests.support.acting import act, is_admitted
from tests.support.csrs import fresh_key, named_csr
from tests.support.members import Holder, as_client, connected, join, prove
from tests.support.peers import peer
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually

BRIEF = timedelta(seconds=1)


@pytest.fixture
def plan(on_both_databases: Plan) -> Plan:
    return on_both_databases


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, plan) as running:
        await running.installation.standard(["A1", "B2"])
        yield running


async def record(stack: Stack, holder: Holder) -> Certificate:
    """What the registry says of the holder's certificate."""
    found = await stack.certificates()
    (own,) = [c for c in found if c.certificate_sha256 == holder.sha256]
    return own


async def renewed(stack: Stack, holder: Holder, place: Path) -> Holder:
    """The device with its next certificate, which isn't proven yet."""
    key = fresh_key()
    async with connected(stack, holder, place) as connection:
        return holder.given(key, await connection.renew(key))


def code_of(answer: object) -> str:
    assert isinstance(answer, Rejected), answer
    return answer.code


async def test_a_renewed_certificate_takes_over_and_the_old_one_has_its_grace(
    stack: Stack, tmp_path: Path
) -> None:
    old = await join(stack, tmp_path, "A1")
    new = await renewed(stack, old, tmp_path)
    assert (await record(stack, old)).state is CertificateState.ACTIVE
    await prove(stack, new, tmp_path)
    before, after = await record(stack, old), await record(stack, new)
    assert (before.state, after.state) == (CertificateState.SUPERSEDED, CertificateState.ACTIVE)
    assert before.grace_until is not None
    assert after.confirmed_at is not None
    assert before.grace_until - after.confirmed_at == timedelta(hours=1)
    assert after.claim_name is None
    assert old.leaf.serial_number not in stack.revoked_serials()
    async with connected(stack, old, tmp_path) as connection:
        assert code_of(await connection.confirm(old.sha256)) == Code.CERTIFICATE_SUPERSEDED
    assert (await stack.installation.claim_certificate()).claims == 1


async def test_after_the_grace_nobody_is_in_by_the_old_certificate(
    stack: Stack, tmp_path: Path
) -> None:
    await stack.installation.save_group(rotation_grace=BRIEF)
    old = await join(stack, tmp_path, "A1")
    new = await renewed(stack, old, tmp_path)
    await prove(stack, new, tmp_path)
    # Whoever copied the old key uses the time in which the device is away.
    async with peer(stack.ports[Zone.FLEET], as_client(stack, old, tmp_path)) as thief:
        await thief.ended()
    assert not await is_admitted(stack, as_client(stack, old, tmp_path))
    assert await is_admitted(stack, as_client(stack, new, tmp_path))
    assert (await record(stack, old)).revoked_for is RevocationReason.SUPERSEDED
    assert stack.revoked_serials() == {old.leaf.serial_number}
    assert await stack.events_of(EventKind.DEVICE_LOCKED_OUT) == []


async def test_what_is_superseded_shares_a_crl_and_an_operator_s_revocation_doesn_t_wait(
    stack: Stack, tmp_path: Path
) -> None:
    await stack.installation.save_group(rotation_grace=BRIEF)
    lamps = [await join(stack, tmp_path, serial) for serial in ("A1", "B2")]
    first, second = (lamp.leaf.serial_number for lamp in lamps)
    await prove(stack, await renewed(stack, lamps[0], tmp_path), tmp_path)
    await eventually(lambda: first in stack.revoked_serials())
    await prove(stack, await renewed(stack, lamps[1], tmp_path), tmp_path)
    count = len(await stack.events_of(EventKind.CRL_PUBLISHED))

    async def is_over() -> bool:
        return not (await record(stack, lamps[1])).is_live(datetime.now(UTC))

    await eventually(is_over)
    assert second not in stack.revoked_serials()
    await act(stack, DeviceInput.REVOKE, lamps[0].device_id)
    assert len(await stack.events_of(EventKind.CRL_PUBLISHED)) == count + 1


async def test_a_repeated_renewal_gets_the_same_certificate(stack: Stack, tmp_path: Path) -> None:
    old, key = await join(stack, tmp_path, "A1"), fresh_key()
    async with connected(stack, old, tmp_path) as connection:
        answers = [await connection.renew(key) for _ in range(3)]
    assert len({a.certificate_chain for a in answers if isinstance(a, EnrollAccepted)}) == 1
    assert len(await stack.certificates()) == 2


async def test_a_renewal_that_is_replayed_later_is_refused(stack: Stack, tmp_path: Path) -> None:
    first = await join(stack, tmp_path, "A1")
    second = await renewed(stack, first, tmp_path)
    await prove(stack, second, tmp_path)
    third = await renewed(stack, second, tmp_path)
    await prove(stack, third, tmp_path)
    async with connected(stack, third, tmp_path) as connection:
        for old in (first, second):
            assert code_of(await connection.renew(old.key)) == Code.KEY_RETIRED
        assert code_of(await connection.renew(third.key)) == Code.KEY_NOT_NEW
    assert len(await stack.certificates()) == 3


async def test_nobody_renews_in_another_s_name_or_with_another_s_key(
    stack: Stack, tmp_path: Path
) -> None:
    lamp, other = await join(stack, tmp_path, "A1"), await join(stack, tmp_path, "B2")
    key = fresh_key()
    async with connected(stack, lamp, tmp_path) as connection:
        theirs = await connection.renew(key, csr=named_csr(key, other.device_id))
        assert code_of(theirs) == Code.CSR_NAME_MISMATCH
        assert code_of(await connection.renew(other.key)) == Code.KEY_IN_USE
        own = await connection.renew(key, csr=named_csr(key, lamp.device_id))
    assert isinstance(own, EnrollAccepted)
    assert own.device_id == lamp.device_id


async def test_a_new_key_takes_the_place_of_one_that_is_given_up(
    stack: Stack, tmp_path: Path
) -> None:
    lamp = await join(stack, tmp_path, "A1")
    lost = await renewed(stack, lamp, tmp_path)
    kept = await renewed(stack, lamp, tmp_path)
    async with connected(stack, lamp, tmp_path) as connection:
        assert code_of(await connection.renew(lost.key)) == Code.KEY_RETIRED
    await prove(stack, kept, tmp_path)

    async def is_revoked() -> bool:
        return (await record(stack, lost)).state is CertificateState.REVOKED

    await eventually(is_revoked)
    assert (await record(stack, kept)).state is CertificateState.ACTIVE


async def test_the_old_certificate_lives_on_when_the_new_one_never_comes(
    stack: Stack, tmp_path: Path
) -> None:
    lamp = await join(stack, tmp_path, "A1")
    await renewed(stack, lamp, tmp_path)
    async with connected(stack, lamp, tmp_path) as connection:
        assert isinstance(await connection.confirm(lamp.sha256), ConfirmAccepted)
    assert (await record(stack, lamp)).state is CertificateState.ACTIVE
