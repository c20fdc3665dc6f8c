"""An authority's replacement: what is kept of it, who has moved, and who is left."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.ca_rollover import Phase, Rollover
from broker.core.lifecycle import CertificateState
from broker.core.records import Certificate, RevocationReason
from broker.ports.authorities import Revocation
from broker.ports.registry import WriteTransaction
from broker.protocol.names import CertificateSerial, DeviceId
from tests.support.records import NOW, a_fingerprint
from tests.support.registries import add_batch, certificate_number, device_number

ROLLOVER = Rollover(
    old=1,
    new=2,
    phase=Phase.MOVING,
    started_at=NOW,
    is_return=True,
    campaign=7,
    per_minute=90,
    wave_size=12,
)
DAY = timedelta(days=1)


@pytest.fixture
async def members(registry: SqlRegistry) -> SqlRegistry:
    """A registry that knows `lamp-1` to `lamp-3`, each with a proven certificate."""

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        for number in (1, 2, 3):
            tx.save_device(device_number(number))
            tx.save_certificate(proven(number))

    await registry.write(work)
    return registry


def proven(number: int, **changes: Any) -> Certificate:
    """The device's first certificate, but for the changes."""
    first = replace(
        certificate_number(number),
        state=CertificateState.ACTIVE,
        confirmed_at=NOW,
        not_after=NOW + DAY,
    )
    return replace(first, **changes)


def second(number: int, **changes: Any) -> Certificate:
    """Its next one, by the next authority."""
    return proven(
        number,
        **{
            "serial": CertificateSerial(f"b{number}"),
            "key_sha256": a_fingerprint(f"second key {number}"),
            "certificate_sha256": a_fingerprint(f"second {number}"),
            "generation": 2,
            **changes,
        },
    )


async def save(registry: SqlRegistry, *certificates: Certificate) -> None:
    def work(tx: WriteTransaction) -> None:
        for each in certificates:
            tx.save_certificate(each)

    await registry.write(work)


async def left(registry: SqlRegistry, after: str = "", limit: int = 10) -> list[str]:
    return list(await registry.read(lambda tx: tx.left_behind(1, 2, NOW, after, limit)))


async def counted(registry: SqlRegistry) -> tuple[int, int]:
    return await registry.read(lambda tx: tx.count_moved(1, 2, NOW))


async def test_there_is_none_at_first(registry: SqlRegistry) -> None:
    assert await registry.read(lambda tx: tx.ca_rollover()) is None


async def test_it_is_kept_whole_and_replaced(registry: SqlRegistry) -> None:
    await registry.write(lambda tx: tx.save_ca_rollover(ROLLOVER))
    assert await registry.read(lambda tx: tx.ca_rollover()) == ROLLOVER
    following = replace(ROLLOVER, phase=Phase.DONE, campaign=None, wave_size=None)

    def work(tx: WriteTransaction) -> Rollover | None:
        tx.save_ca_rollover(following)
        return tx.ca_rollover()

    assert await registry.write(work) == following
    assert await registry.read(lambda tx: tx.ca_rollover()) == following


async def test_a_certificate_s_authority_is_kept(members: SqlRegistry) -> None:
    await save(members, second(1))
    found = await members.read(lambda tx: tx.certificates_of([DeviceId("lamp-1")]))
    assert [each.generation for each in found] == [1, 2]


async def test_a_revocation_names_its_authority(members: SqlRegistry) -> None:
    out = {
        "state": CertificateState.REVOKED,
        "revoked_at": NOW,
        "revoked_for": RevocationReason.OPERATOR,
    }
    await save(members, proven(1, **out), second(2, **out), second(3, held_at=NOW))
    found = await members.read(lambda tx: tx.revocations(NOW))
    assert [each.generation for each in found] == [1, 2, 2]
    assert all(isinstance(each, Revocation) for each in found)


async def test_who_has_proven_the_next_one_has_moved(members: SqlRegistry) -> None:
    assert await counted(members) == (0, 3)
    await save(members, second(1))
    assert await counted(members) == (1, 2)
    assert await left(members) == ["lamp-2", "lamp-3"]


@pytest.mark.parametrize(
    "changes",
    [
        {"confirmed_at": None, "state": CertificateState.ISSUED},
        {"not_after": NOW},
        {
            "state": CertificateState.REVOKED,
            "revoked_at": NOW,
            "revoked_for": RevocationReason.REPLACED,
        },
        {"generation": 3},
        {"state": CertificateState.SUPERSEDED, "grace_until": NOW + DAY},
    ],
)
async def test_what_would_not_let_it_in_does_not_count_as_moved(
    members: SqlRegistry, changes: dict[str, Any]
) -> None:
    await save(members, second(1, **changes))
    assert (await left(members))[0] == "lamp-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"not_after": NOW},
        {
            "state": CertificateState.REVOKED,
            "revoked_at": NOW,
            "revoked_for": RevocationReason.OPERATOR,
        },
    ],
)
async def test_whom_nothing_lets_in_any_more_is_not_left(
    members: SqlRegistry, changes: dict[str, Any]
) -> None:
    await save(members, proven(1, **changes))
    assert await left(members) == ["lamp-2", "lamp-3"]
    assert await counted(members) == (0, 2)


async def test_the_suspended_and_those_who_just_claim_are_left(members: SqlRegistry) -> None:
    issued = {"confirmed_at": None, "state": CertificateState.ISSUED}
    await save(members, proven(1, held_at=NOW), proven(2, **issued), second(3))
    assert await left(members) == ["lamp-1", "lamp-2"]


async def test_those_who_are_left_come_in_pages(members: SqlRegistry) -> None:
    assert await left(members, limit=2) == ["lamp-1", "lamp-2"]
    assert await left(members, after="lamp-2", limit=2) == ["lamp-3"]


async def test_what_an_authority_issued_and_still_counts(members: SqlRegistry) -> None:
    await save(members, second(1), proven(2, not_after=NOW))
    found = await members.read(lambda tx: tx.certificates_by(1, NOW, 10))
    assert [each.device_id for each in found] == ["lamp-1", "lamp-3"]
    assert len(await members.read(lambda tx: tx.certificates_by(1, NOW, 1))) == 1


async def test_who_has_not_renewed_since(members: SqlRegistry) -> None:
    since = NOW + timedelta(hours=1)
    await save(
        members,
        second(1, not_before=since),
        second(2, not_before=since, confirmed_at=None, state=CertificateState.ISSUED),
        proven(3, not_after=NOW),
    )
    assert await members.read(lambda tx: tx.not_renewed_since(since, NOW, 10)) == ["lamp-2"]
    assert await members.read(lambda tx: tx.count_not_renewed_since(since, NOW)) == 1
    later = since + timedelta(hours=1)
    assert await members.read(lambda tx: tx.not_renewed_since(later, NOW, 1)) == ["lamp-1"]
    assert await members.read(lambda tx: tx.count_not_renewed_since(later, NOW)) == 2
