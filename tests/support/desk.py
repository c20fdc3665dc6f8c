"""The use cases of both zones on a real registry and a real authority, without any broker."""

import atexit
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from broker.adapters.ca.fleet_authorities import FleetAuthorities
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.adapters.registry import SqlRegistry
from broker.core.ca_rollover import in_force
from broker.core.lifecycle import CertificateState
from broker.core.records import Certificate, ClaimCertificate, Device, Enrollment, Event, Reply
from broker.ports.registry import EventFilter, ReadTransaction, Registry, WriteTransaction
from broker.protocol import codec, limits
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import (
    ConfirmAccepted,
    Endpoint,
    EnrollAccepted,
    EnrollRequest,
    TrustBundle,
)
from broker.protocol.names import (
    ClaimName,
    ClientId,
    DeviceId,
    Fingerprint,
    GroupName,
    SerialNumber,
)
from broker.protocol.topics import ClaimOrigin, DeviceOrigin
from broker.services.confirm import ConfirmService
from broker.services.enroll import EnrollService
from broker.services.issuing import Issuing, Welcome
from broker.services.lapse import LapseService
from broker.services.recover import RecoverService
from broker.services.renew import RenewService
from broker.services.reports import ReportService
from broker.services.superseded import SupersededService
from tests.support.csrs import PrivateKey, csr_pem, fresh_key, spki_of
from tests.support.operating import NOW, SetClock
from tests.support.signing import confirmation
from tests.support.templates import with_schema

ResultT = TypeVar("ResultT")

BATCH = ClaimName("batch-7")
GROUP = GroupName("lamps")
CONFIRM_WITHIN = timedelta(minutes=15)
ORIGIN = ClaimOrigin(BATCH, ClientId("client-1"))
WELCOME = Welcome(
    Endpoint(host="fleet.example", port=8883), TrustBundle(version=3, anchors="ANCHORS")
)


@cache
def authority() -> FleetAuthorities:
    """The same one for all tests of a run."""
    folder = tempfile.mkdtemp(prefix="muster-desk-")
    atexit.register(shutil.rmtree, folder)
    home = MusterHome(Path(folder) / "home")
    create_home(home, hosts=[], passphrase=None, now=NOW)
    return FleetAuthorities.load(home, None, in_force(None))


@dataclass
class Desk:
    """What a device may ask for, and what the registry says afterwards."""

    registry: Registry
    clock: SetClock = field(default_factory=SetClock)

    def __post_init__(self) -> None:
        ids = (f"reply-{n}" for n in itertools.count())
        issuing = Issuing(authority(), WELCOME, CONFIRM_WITHIN, lambda: next(ids))
        self.enrolling = EnrollService(self.registry, self.clock, issuing)
        self.recovering = RecoverService(self.registry, self.clock, issuing)
        self.renewing = RenewService(self.registry, self.clock, issuing)
        self.superseding = SupersededService(self.registry, self.clock)
        self.confirming = ConfirmService(self.registry, self.clock, lambda: next(ids))
        self.reporting = ReportService(self.registry, self.clock, lambda: next(ids))
        self.lapsing = LapseService(self.registry, self.clock)
        self.keys: dict[Fingerprint, PrivateKey] = {}

    async def write(self, *changes: Any) -> None:
        """Calls each of (method, argument …) on one transaction."""

        def work(tx: WriteTransaction) -> None:
            for method, *arguments in changes:
                getattr(tx, method)(*arguments)

        await self.registry.write(work)

    async def open_group(self, group: Any, claim: ClaimCertificate | None, *serials: str) -> None:
        """A group with its claim certificate, unless that exists already, and its allow-list."""
        lines = [Enrollment(group.name, SerialNumber(serial), NOW) for serial in serials]
        if claim is not None:
            await self.write(("save_claim_certificate", claim))
        await self.write(("save_group", group), ("add_enrollments", lines))

    def keep(self, key: PrivateKey) -> PrivateKey:
        """The key, remembered as one of the devices'."""
        self.keys[Fingerprint(hashlib.sha256(spki_of(key)).hexdigest())] = key
        return key

    async def key_in_use(self, device_id: str = "lamp-A1") -> PrivateKey:
        """The key of the certificate that the device proved last; anybody's when there is none."""
        for certificate in reversed(await self.certificates(device_id)):
            if certificate.state is CertificateState.ACTIVE:
                return self.keys[certificate.key_sha256]
        return fresh_key()

    async def enroll(
        self, serial: str = "A1", key: PrivateKey | None = None, **changes: Any
    ) -> EnrollAccepted:
        """Claims; the accepted answer as the device reads it."""
        reply = await self.enroll_reply(serial, key, **changes)
        return codec.decode(reply.payload, EnrollAccepted, limits.MAX_ANSWER)

    async def enroll_reply(
        self, serial: str = "A1", key: PrivateKey | None = None, **changes: Any
    ) -> Reply:
        """The same, with its way to the device."""
        key = self.keep(key or fresh_key())
        fields = {"request_id": "r1", "serial": serial, "csr": csr_pem(key)}
        origin = changes.pop("origin", ORIGIN)
        return await self.enrolling.enroll(origin, EnrollRequest(**{**fields, **changes}))

    async def refused_enroll(self, *arguments: Any, **changes: Any) -> Code:
        """Why the claim isn't granted."""
        try:
            await self.enroll(*arguments, **changes)
        except Refused as refused:
            return refused.code
        raise AssertionError("the claim was granted")

    async def confirm(self, device_id: str, certificate_sha256: str) -> ConfirmAccepted:
        """Confirms by the certificate's key; the accepted answer as the device reads it."""
        named = await self.read("certificate_by_fingerprint", certificate_sha256)
        key = self.keys.get(named.key_sha256) if named else None
        request = confirmation(key or fresh_key(), device_id, certificate_sha256)
        reply = await self.confirming.confirm(DeviceOrigin(DeviceId(device_id)), request)
        return codec.decode(reply.payload, ConfirmAccepted, limits.MAX_ANSWER)

    async def join(self, serial: str, key: PrivateKey | None = None) -> Certificate:
        """Claims and confirms; the certificate as the registry has it then."""
        answer = await self.enroll(serial, key)
        newest = (await self.certificates(answer.device_id))[-1]
        await self.confirm(answer.device_id, newest.certificate_sha256)
        return (await self.certificates(answer.device_id))[-1]

    async def read(self, method: str, *arguments: Any) -> Any:
        """What a method of the registry's view returns."""

        def work(tx: ReadTransaction) -> Any:
            return getattr(tx, method)(*arguments)

        return await self.registry.read(work)

    async def device(self, device_id: str = "lamp-A1") -> Device:
        """The device of this name, which must exist."""
        found = await self.read("device", DeviceId(device_id))
        assert isinstance(found, Device)
        return found

    async def certificates(self, device_id: str = "lamp-A1") -> list[Certificate]:
        """All that it ever had, oldest first."""
        found: list[Certificate] = await self.read("certificates_of", [DeviceId(device_id)])
        return found

    async def events(self) -> list[Event]:
        """The audit log, oldest first."""
        found: list[Event] = await self.read("events", EventFilter(limit=10_000))
        return found[::-1]

    async def replies(self) -> list[Reply]:
        """What waits in the outbox, oldest first."""
        found: list[Reply] = await self.read("pending_replies", 10_000)
        return found

    async def counts(self) -> tuple[int, int]:
        """Claims that count against the claim certificate, and devices against the quota."""
        claim = await self.read("claim_certificate", BATCH)
        group = await self.read("group", GROUP)
        return claim.claims, group.devices

    async def everything(self) -> tuple[object, ...]:
        """All that a refused request must leave as it was."""
        return (
            await self.counts(),
            await self.events(),
            await self.replies(),
            await self.read("count_devices"),
            await self.read("counter", "crl.fleet.wanted"),
        )


@asynccontextmanager
async def open_desk(folder: Path) -> AsyncIterator[Desk]:
    """A desk whose registry is empty."""
    async with SqlRegistry(with_schema(folder / "registry.db")) as registry:
        yield Desk(registry)
