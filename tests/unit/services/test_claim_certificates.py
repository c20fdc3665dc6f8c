"""Making claim certificates and taking them back; the CRL in place is never the older one."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from broker.core.records import EventKind, RevocationReason
from broker.ports.authorities import Revocation
from broker.ports.registry import EventFilter, Registry
from broker.protocol.bundle import ClaimBundle, read_bundle
from broker.protocol.messages import Endpoint, TrustBundle
from broker.protocol.names import CertificateSerial, ClaimName
from broker.services import claim_certificates
from broker.services.claim_certificates import CRL_NUMBER, NewClaim, Wanted
from broker.services.crl import ClaimCrl
from broker.services.problems import Problem, ProblemCode
from tests.support.operating import NOW, SetClock, add_claims, fresh_registry

SERIALS = itertools.count(1)
WANTED = Wanted("batch-7", 500, timedelta(days=30))


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with fresh_registry(tmp_path) as opened:
        yield opened


@dataclass
class PaperAuthority:
    """Signs nothing, and notes what it was asked to sign."""

    signed: list[tuple[int, list[Revocation]]] = field(default_factory=list)
    fault: Exception | None = None

    def issue(self, name: ClaimName, not_after: datetime, now: datetime) -> NewClaim:
        bundle = ClaimBundle(
            claim_name=name,
            certificate="certificate",
            private_key="key",
            claim=Endpoint(host="localhost", port=8884),
            trust_bundle=TrustBundle(version=1, anchors="anchors"),
        )
        serial = CertificateSerial(f"{next(SERIALS):x}")
        return NewClaim(bundle, serial, now, not_after)

    def sign_crl(self, revoked: Sequence[Revocation], number: int, now: datetime) -> bytes:
        if self.fault:
            raise self.fault
        self.signed.append((number, list(revoked)))
        return f"crl {number}".encode()


@dataclass
class MemoryFile:
    """A bundle's file, and a CRL's."""

    text: bytes | None = None
    fault: Exception | None = None

    def write(self, text: bytes) -> None:
        if self.fault:
            raise self.fault
        self.text = text

    def discard(self) -> None:
        self.text = None

    async def swap(self, pem: bytes, now: datetime) -> None:
        self.text = pem


@dataclass
class HeldFile:
    """A CRL's file that is slow to change."""

    file: MemoryFile
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def swap(self, pem: bytes, now: datetime) -> None:
        await self.release.wait()
        await self.file.swap(pem, now)


async def create(
    registry: Registry, wanted: Wanted = WANTED, file: MemoryFile | None = None
) -> MemoryFile:
    file = file or MemoryFile()
    await claim_certificates.create(registry, SetClock(), PaperAuthority(), wanted, file)
    return file


async def counter(registry: Registry, name: str) -> int:
    return await registry.read(lambda view: view.counter(name))


async def test_it_is_registered_with_its_bundle_and_an_event(registry: Registry) -> None:
    file = await create(registry)
    assert file.text is not None
    assert read_bundle(file.text).claim_name == "batch-7"
    (use,) = await claim_certificates.uses(registry)
    assert use.group is None
    assert use.claim.max_claims == 500
    assert use.claim.claims == 0
    assert use.claim.not_after == NOW + timedelta(days=30)
    (event,) = await registry.read(lambda view: view.events(EventFilter()))
    assert event.kind is EventKind.CLAIM_CERTIFICATE_CREATED
    assert event.claim_name == "batch-7"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a" * 65, "muster-service-claim", "Muster-x"])
async def test_a_name_that_no_certificate_may_bear_is_refused(
    registry: Registry, name: str
) -> None:
    with pytest.raises(Problem) as caught:
        await create(registry, Wanted(name, 1, timedelta(days=1)))
    assert caught.value.code is ProblemCode.NAME_INVALID


async def test_it_must_be_good_for_a_claim(registry: Registry) -> None:
    with pytest.raises(Problem) as caught:
        await create(registry, Wanted("batch-7", 0, timedelta(days=1)))
    assert caught.value.code is ProblemCode.VALUE_INVALID


async def test_a_name_is_never_used_twice_not_even_after_a_revocation(registry: Registry) -> None:
    await create(registry)
    await claim_certificates.revoke(registry, SetClock(), "batch-7")
    again = MemoryFile()
    with pytest.raises(Problem) as caught:
        await create(registry, file=again)
    assert caught.value.code is ProblemCode.NAME_USED
    assert again.text is None


async def test_without_a_bundle_nothing_is_registered(registry: Registry) -> None:
    with pytest.raises(OSError, match="full"):
        await create(registry, file=MemoryFile(fault=OSError("disk full")))
    assert await claim_certificates.uses(registry) == []


async def test_of_two_at_once_one_gets_the_name_and_the_other_no_bundle(
    registry: Registry,
) -> None:
    files = [MemoryFile(), MemoryFile()]
    results = await asyncio.gather(
        *(create(registry, file=file) for file in files), return_exceptions=True
    )
    assert sum(isinstance(result, Problem) for result in results) == 1
    assert sum(file.text is not None for file in files) == 1


async def test_revoking_is_on_record_once(registry: Registry) -> None:
    await add_claims(registry, "b1")
    first = await claim_certificates.revoke(registry, SetClock(), "b1")
    later = SetClock(NOW + timedelta(hours=1))
    assert await claim_certificates.revoke(registry, later, "b1") == first
    assert first.revoked_at == NOW
    found = await registry.read(
        lambda view: view.events(EventFilter(kind=EventKind.CLAIM_CERTIFICATE_REVOKED))
    )
    assert len(found) == 1


async def test_an_unknown_one_is_named(registry: Registry) -> None:
    with pytest.raises(Problem, match="nobody") as caught:
        await claim_certificates.revoke(registry, SetClock(), "nobody")
    assert caught.value.code is ProblemCode.CLAIM_CERTIFICATE_UNKNOWN
    with pytest.raises(Problem, match="nobody"):
        await claim_certificates.find(registry, "nobody")


async def test_the_crl_lists_what_is_revoked_and_has_not_expired(registry: Registry) -> None:
    await add_claims(registry, "b1", "b2", "b3")
    clock, authority, file = SetClock(), PaperAuthority(), MemoryFile()
    await claim_certificates.revoke(registry, clock, "b1")
    await claim_certificates.revoke(registry, clock, "b2")
    number = await claim_certificates.publish_crl(registry, clock, authority, file)
    assert file.text == f"crl {number}".encode()
    ((_, revoked),) = authority.signed
    assert {each.serial for each in revoked} == {"6231", "6232"}
    assert {each.reason for each in revoked} == {RevocationReason.OPERATOR}
    assert await counter(registry, ClaimCrl.COUNTER) == 1
    clock.at += timedelta(days=31)
    assert await claim_certificates.publish_crl(registry, clock, authority, file) == number + 1
    assert authority.signed[-1][1] == []


async def test_without_the_key_the_service_is_told_nothing(registry: Registry) -> None:
    authority = PaperAuthority(fault=OSError("offline"))
    with pytest.raises(OSError, match="offline"):
        await claim_certificates.publish_crl(registry, SetClock(), authority, MemoryFile())
    assert await counter(registry, ClaimCrl.COUNTER) == 0


async def test_who_is_overtaken_signs_again_and_the_newest_crl_stays(registry: Registry) -> None:
    await add_claims(registry, "b1", "b2")
    clock, slow, fast = SetClock(), PaperAuthority(), PaperAuthority()
    file = MemoryFile()
    held = HeldFile(file)
    await claim_certificates.revoke(registry, clock, "b1")
    overtaken = asyncio.create_task(claim_certificates.publish_crl(registry, clock, slow, held))
    while await counter(registry, CRL_NUMBER) < 1:
        await asyncio.sleep(0)
    await claim_certificates.revoke(registry, clock, "b2")
    await claim_certificates.publish_crl(registry, clock, fast, file)
    held.release.set()
    number = await overtaken
    assert [signed for signed, _ in slow.signed] == [1, 3]
    assert file.text == f"crl {number}".encode() == b"crl 3"
    assert len(slow.signed[-1][1]) == 2
