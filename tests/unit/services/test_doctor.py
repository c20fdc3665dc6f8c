"""What doctor finds in the registry: each fault by itself, and nothing where nothing is wrong."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from broker.core.claim_alarm import ClaimAlarm
from broker.core.findings import Finding, Level
from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.core.records import (
    ClaimCertificate,
    Device,
    Enrollment,
    EnrollmentGroup,
    Event,
    EventKind,
    LockOut,
    Reprovision,
    RevocationReason,
    Serials,
)
from broker.ports.registry import ReadTransaction, Registry, RegistryError, WriteTransaction
from broker.protocol.names import CertificateSerial, ClaimName, DeviceId, SerialNumber
from broker.services import doctor
from broker.services.doctor import examine_registry
from tests.support.operating import NOW, SetClock, fresh_registry
from tests.support.records import a_certificate
from tests.support.registries import add_batch, certificate_number, device_number
from tests.unit.services.test_groups import group

ResultT = TypeVar("ResultT")

CLAIM = ClaimCertificate(
    ClaimName("b1"), CertificateSerial("1"), NOW, NOW + timedelta(days=30), max_claims=100
)
LAMPS = group("lamps", "b1")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with fresh_registry(tmp_path) as opened:
        yield opened


async def keep(
    registry: Registry,
    claim: ClaimCertificate = CLAIM,
    lamps: EnrollmentGroup = LAMPS,
    *,
    claims: int = 0,
    devices: int = 0,
    serials: int = 1,
) -> None:
    await registry.write(lambda view: view.save_claim_certificate(claim))
    await registry.write(lambda view: view.save_group(lamps))
    await registry.write(lambda view: view.count_claim(claim.name, claims))
    await registry.write(lambda view: view.count_device(lamps.name, devices))
    lines = [Enrollment(lamps.name, SerialNumber(f"A{n}"), NOW) for n in range(serials)]
    await registry.write(lambda view: view.add_enrollments(lines))


async def troubles(registry: Registry) -> list[Finding]:
    found = await examine_registry(registry, SetClock())
    bad = [finding for finding in found if finding.level is not Level.OK]
    assert all(finding.remedy for finding in bad)
    return bad


async def test_where_nothing_is_wrong_nothing_is_found(registry: Registry) -> None:
    await keep(registry)
    assert await troubles(registry) == []


async def test_without_a_group_nobody_can_claim(registry: Registry) -> None:
    (finding,) = await troubles(registry)
    assert finding.check == "group"
    assert finding.level is Level.WARNING


@pytest.mark.parametrize(
    ("lamps", "words"),
    [
        (replace(LAMPS, serials=Serials.ANY), "OPEN TO ANY SERIAL NUMBER"),
        (replace(LAMPS, reprovision=Reprovision.REPLACE), "can take the place"),
        (replace(LAMPS, quota=0), "It is full"),
    ],
)
async def test_a_group_that_lets_in_too_many_or_none(
    registry: Registry, lamps: EnrollmentGroup, words: str
) -> None:
    await keep(registry, lamps=lamps)
    (finding,) = await troubles(registry)
    assert finding.subject == "lamps"
    assert words in finding.message


@pytest.mark.parametrize(("devices", "words"), [(9, "nearly full"), (10, "It is full")])
async def test_a_quota_that_runs_out(registry: Registry, devices: int, words: str) -> None:
    await keep(registry, devices=devices)
    (finding,) = await troubles(registry)
    assert words in finding.message


async def test_an_empty_allow_list(registry: Registry) -> None:
    await keep(registry, serials=0)
    (finding,) = await troubles(registry)
    assert "enroll import" in finding.remedy


async def test_a_group_and_a_claim_certificate_that_miss_each_other(registry: Registry) -> None:
    await keep(registry, lamps=replace(LAMPS, claim_certificates=frozenset()))
    assert {finding.subject for finding in await troubles(registry)} == {"lamps", "b1"}


@pytest.mark.parametrize(("claims", "words"), [(80, "nearly exhausted"), (100, "is exhausted")])
async def test_a_claim_certificate_that_is_used_up(
    registry: Registry, claims: int, words: str
) -> None:
    await keep(registry, claims=claims)
    (finding,) = await troubles(registry)
    assert finding.check == "claim_certificate"
    assert words in finding.message


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (replace(CLAIM, not_after=NOW + timedelta(days=3)), "expires at"),
        (replace(CLAIM, not_before=NOW - timedelta(days=9), not_after=NOW), "is expired"),
        (replace(CLAIM, revoked_at=NOW), "is revoked"),
    ],
)
async def test_a_claim_certificate_that_ends(
    registry: Registry, claim: ClaimCertificate, words: str
) -> None:
    await keep(registry, claim=claim)
    (finding,) = await troubles(registry)
    assert words in finding.message


async def test_a_revoked_claim_certificate_that_no_group_lists_is_as_it_should_be(
    registry: Registry,
) -> None:
    await keep(registry)
    old = replace(CLAIM, name=ClaimName("b0"), revoked_at=NOW)
    await registry.write(lambda view: view.save_claim_certificate(old))
    assert await troubles(registry) == []


@pytest.mark.parametrize(("ahead", "count"), [(timedelta(minutes=1), 0), (timedelta(hours=1), 1)])
async def test_a_clock_that_went_back(registry: Registry, ahead: timedelta, count: int) -> None:
    await keep(registry)
    event = Event(NOW + ahead, EventKind.SERVICE_STARTED)
    await registry.write(lambda view: view.add_event(event))
    found = await troubles(registry)
    assert [finding.check for finding in found] == ["clock"] * count


async def test_a_registry_that_fails_is_a_finding_not_a_failure() -> None:
    (finding,) = await examine_registry(Broken(), SetClock())
    assert finding.level is Level.ERROR
    assert "registry_full" in finding.message
    assert finding.remedy == "Make room."


class Broken:
    """A registry without room."""

    async def read(self, work: Callable[[ReadTransaction], ResultT]) -> ResultT:
        raise RegistryError("registry_full", "No room.", "Make room.")

    async def write(self, work: Callable[[WriteTransaction], ResultT]) -> ResultT:
        raise AssertionError("doctor changes nothing")


async def test_acts_that_a_broker_still_owes(registry: Registry) -> None:
    await keep(registry)
    device = Device(DeviceId("lamp-1"), LAMPS.name, SerialNumber("A0"), DeviceState.REVOKED, NOW)
    asked = NOW - timedelta(minutes=1)
    owed = LockOut("o1", device.id, DeviceInput.REVOKE, (), asked, 1)
    await registry.write(lambda view: view.save_device(device))
    await registry.write(lambda view: view.save_lock_out(owed))
    (finding,) = await troubles(registry)
    assert (finding.level, finding.check) == (Level.ERROR, "lock_out")
    assert "revoke of lamp-1" in finding.message
    done = replace(owed, crl_at=asked, disconnected_at=asked)
    await registry.write(lambda view: view.save_lock_out(done))
    assert await troubles(registry) == []


async def test_members_that_expired_are_counted(registry: Registry) -> None:
    await keep(registry)
    device = Device(DeviceId("lamp-A1"), LAMPS.name, SerialNumber("A0"), DeviceState.ACTIVE, NOW)
    last = a_certificate(
        state=CertificateState.ACTIVE, claim_name=CLAIM.name, not_before=NOW, not_after=NOW
    )
    await registry.write(lambda view: view.save_device(device))
    await registry.write(lambda view: view.save_certificate(last))
    (finding,) = await troubles(registry)
    assert (finding.level, finding.check) == (Level.WARNING, "expired")
    assert finding.message.startswith("The certificates of 1 members have expired")
    assert "approve-recovery" in finding.remedy


@pytest.mark.parametrize(("ago", "count"), [(timedelta(hours=2), 1), (timedelta(days=2), 0)])
async def test_claims_that_came_too_fast(registry: Registry, ago: timedelta, count: int) -> None:
    await keep(registry)
    event = Event(
        NOW - ago,
        EventKind.CLAIM_CERTIFICATE_ALARM,
        claim_name=CLAIM.name,
        code=ClaimAlarm.RATE_LIMITED,
    )
    await registry.write(lambda view: view.add_event(event))
    found = await troubles(registry)
    assert [finding.subject for finding in found] == ["b1"] * count


async def test_a_crl_that_is_too_large_for_the_promise_of_a_second(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(registry)

    def revoke(tx: WriteTransaction) -> None:
        add_batch(tx)
        for number in range(1, 4):
            tx.save_device(device_number(number))
            tx.save_certificate(
                certificate_number(
                    number,
                    state=CertificateState.REVOKED,
                    revoked_at=NOW,
                    revoked_for=RevocationReason.SUPERSEDED,
                    not_after=NOW + timedelta(days=1),
                )
            )

    await registry.write(revoke)
    for largest, found in ((4, []), (3, ["crl_size"])):
        monkeypatch.setattr(doctor, "LARGE_CRL", largest)
        findings = await examine_registry(registry, SetClock())
        warned = [each for each in findings if each.check == "crl_size"]
        assert [each.check for each in warned] == found
        assert all("certificate_lifetime" in each.remedy for each in warned)
