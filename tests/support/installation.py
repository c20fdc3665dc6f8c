"""A whole installation in a temporary folder, made the way an operator makes one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.adapters.ca.bundles import make_bundle, read_trust_bundle
from broker.adapters.ca.claim_authority import IssuedClaimCertificate, issue_claim_certificate
from broker.adapters.ca.home import MusterHome
from broker.composition.registries import open_registry
from broker.core.keys import KeyType
from broker.core.records import (
    Certificate,
    ClaimCertificate,
    Device,
    Enrollment,
    EnrollmentGroup,
    Event,
    Reply,
    Reprovision,
    Serials,
)
from broker.ports.registry import DeviceFilter, EventFilter, ReadTransaction
from broker.protocol.bundle import ClaimBundle
from broker.protocol.messages import Endpoint
from broker.protocol.names import ClaimName, GroupName, SerialNumber
from broker.settings import Settings, load_settings
from tests.support.templates import copied_home, prepare

GROUP = GroupName("lamps")
BATCH = ClaimName("batch-7")
ALL_KEYS = frozenset(KeyType)


@dataclass
class Installation:
    """Its files, and what an operator does to it; the service isn't part of it."""

    home: MusterHome
    settings: Settings
    claims: dict[ClaimName, IssuedClaimCertificate] = field(default_factory=dict)

    async def add_claim_certificate(
        self,
        name: ClaimName = BATCH,
        max_claims: int = 10_000,
        lifetime: timedelta = timedelta(days=1),
    ) -> None:
        """Issues and registers a claim certificate."""
        now = datetime.now(UTC)
        issued = await asyncio.to_thread(
            issue_claim_certificate, self.home, name, now + lifetime, now, None
        )
        self.claims[name] = issued
        record = ClaimCertificate(
            name, issued.serial, issued.not_before, issued.not_after, max_claims
        )
        async with open_registry(self.home, self.settings) as registry:
            await registry.write(lambda tx: tx.save_claim_certificate(record))

    async def save_group(
        self,
        name: GroupName = GROUP,
        claims: frozenset[ClaimName] = frozenset({BATCH}),
        device_name: str = "lamp-{serial}",
        reprovision: Reprovision = Reprovision.REFUSE,
        serials: Serials = Serials.LISTED,
        quota: int = 10_000,
        allowed_keys: frozenset[KeyType] = ALL_KEYS,
        lifetime: timedelta = timedelta(days=90),
        rotation_grace: timedelta = timedelta(hours=1),
        recover_within: timedelta = timedelta(days=30),
    ) -> None:
        """Adds or replaces an enrollment group."""
        group = EnrollmentGroup(
            name,
            claims,
            device_name,
            allowed_keys,
            lifetime,
            quota,
            serials,
            reprovision,
            rotation_grace=rotation_grace,
            recover_within=recover_within,
        )
        async with open_registry(self.home, self.settings) as registry:
            await registry.write(lambda tx: tx.save_group(group))

    async def enroll(self, serials: Sequence[str], group: GroupName = GROUP) -> None:
        """Puts serial numbers on a group's allow-list."""
        now = datetime.now(UTC)
        lines = [Enrollment(group, SerialNumber(serial), now) for serial in serials]
        async with open_registry(self.home, self.settings) as registry:
            await registry.write(lambda tx: tx.add_enrollments(lines))

    async def standard(self, serials: Sequence[str]) -> None:
        """One claim certificate, one group, and these serial numbers on its list."""
        await self.add_claim_certificate()
        await self.save_group()
        await self.enroll(serials)

    def bundle(self, claim: Endpoint, name: ClaimName = BATCH) -> ClaimBundle:
        """What would be flashed on the batch."""
        return make_bundle(self.claims[name], claim, read_trust_bundle(self.home))

    async def devices(self) -> list[Device]:
        """All devices, as the registry has them."""
        async with open_registry(self.home, self.settings) as registry:
            return await registry.read(lambda tx: tx.devices(DeviceFilter(limit=100_000)))

    async def certificates(self) -> list[Certificate]:
        """All certificates that were ever issued to devices."""
        async with open_registry(self.home, self.settings) as registry:
            return await registry.read(_all_certificates)

    async def group(self, name: GroupName = GROUP) -> EnrollmentGroup:
        """One group, with its count of devices."""
        async with open_registry(self.home, self.settings) as registry:
            group = await registry.read(lambda tx: tx.group(name))
        assert group is not None
        return group

    async def claim_certificate(self, name: ClaimName = BATCH) -> ClaimCertificate:
        """One claim certificate, with its count of claims."""
        async with open_registry(self.home, self.settings) as registry:
            claim = await registry.read(lambda tx: tx.claim_certificate(name))
        assert claim is not None
        return claim

    async def replies(self) -> list[Reply]:
        """What waits in the outbox."""
        async with open_registry(self.home, self.settings) as registry:
            return await registry.read(lambda tx: tx.pending_replies(100_000))

    async def events(self) -> list[Event]:
        """The audit log, newest first."""
        async with open_registry(self.home, self.settings) as registry:
            return await registry.read(lambda tx: tx.events(EventFilter(limit=100_000)))


def _all_certificates(tx: ReadTransaction) -> list[Certificate]:
    return tx.certificates_of([d.id for d in tx.devices(DeviceFilter(limit=100_000))])


async def make_home(path: Path) -> MusterHome:
    """A home with real authorities and no settings; all that brokers need to start."""
    return await asyncio.to_thread(copied_home, path)


async def install(home: MusterHome, settings_toml: str) -> Installation:
    """The installation in a home that exists, with these settings and an empty registry."""
    home.settings.write_text(settings_toml, encoding="utf-8")
    settings = load_settings(home.path)
    await asyncio.to_thread(prepare, open_registry(home, settings).url)
    return Installation(home, settings)


async def make_installation(path: Path, settings_toml: str) -> Installation:
    """An installation with these settings and an empty registry of the newest schema."""
    return await install(await make_home(path), settings_toml)
