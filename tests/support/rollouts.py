"""Rollouts on a desk: the director with a repository in memory, and devices without a wire."""

import base64
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.rollout import Progress, Rollout, Selection
from broker.core.rollout_pace import Pace, StopRule
from broker.core.update_records import Part
from broker.protocol import codec, limits
from broker.protocol.names import DeviceId
from broker.protocol.statements import report_statement, software_statement
from broker.protocol.topics import Desired, DeviceOrigin, desired_topic
from broker.protocol.updates import (
    Assignment,
    Phase,
    ReportAccepted,
    ReportKind,
    ReportRequest,
    SignedAssignment,
    SoftwareReport,
    UpdateReport,
)
from broker.services import rollouts
from broker.services.assigning import Assigner
from broker.services.assignment_renewal import AssignmentRenewal
from broker.services.assignment_signing import AssignmentSigner
from broker.services.reports import ReportService
from broker.services.rollout_director import Director
from broker.services.rollouts import Push, RolloutView
from tests.support.csrs import fresh_key
from tests.support.desk import GROUP, Desk, authority
from tests.support.fake_updates import FakeRepository
from tests.support.operating import NOW
from tests.support.records import a_certificate, a_device, a_fingerprint

EVERYONE = Selection(everyone=True)
NEVER = StopRule(above=1.0)
_KEY = fresh_key()


@dataclass
class UpdateDesk:
    """What an operator, the director and devices do, one after the other."""

    desk: Desk
    repository: FakeRepository = field(default_factory=FakeRepository)

    def __post_init__(self) -> None:
        ids = itertools.count()
        registry, clock = self.desk.registry, self.desk.clock
        self._numbers = itertools.count()
        signer = AssignmentSigner(self.repository, ("https://x/t",))
        assigner = Assigner(registry, signer, clock, lambda: f"nonce-{next(ids):026d}")
        renewal = AssignmentRenewal(registry, signer, clock)
        self.director = Director(registry, self.repository, clock, assigner, renewal)
        self.reports = ReportService(registry, clock, lambda: f"answer-{next(ids)}")

    async def add(self, *names: str, **changes: Any) -> None:
        """Members of the group, with certificates for one key."""
        pem = _certificate_pem()
        for name in names:
            fields = {"state": DeviceState.ACTIVE, "parameters": {"model": "lamp"}, **changes}
            device = a_device(id=DeviceId(name), serial=name, group=GROUP, **fields)
            certificate = a_certificate(
                serial=a_fingerprint(name)[:20],
                device_id=device.id,
                state=CertificateState.ACTIVE,
                key_sha256=a_fingerprint(f"key {name}"),
                certificate_sha256=a_fingerprint(f"certificate {name}"),
                pem=pem,
                not_after=self.desk.clock.now() + timedelta(days=3650),
            )
            await self.desk.write(("save_device", device), ("save_certificate", certificate))

    async def push(self, *paths: str, name: str = "r1", **changes: Any) -> Rollout:
        """Starts a rollout, by default to everybody at once."""
        push = Push(name, paths or ("lamp/2.0.bin",), EVERYONE)
        rollout = rollouts.planned(
            replace(push, **changes), self.repository.targets(), self.desk.clock.now()
        )
        return await rollouts.start(self.desk.registry, self.desk.clock, rollout)

    async def view(self, name: str = "r1") -> RolloutView:
        """Where it stands."""
        return await rollouts.look(self.desk.registry, name)

    async def part(self, device: str, name: str = "r1") -> Part:
        """Where one device stands."""
        found: Part = await self.desk.read("part", name, DeviceId(device))
        return found

    async def at(self, progress: Progress, name: str = "r1") -> list[str]:
        """Who stands there."""
        found: list[Part] = await self.desk.read("parts", name, [progress], None, 10_000)
        return [str(part.device_id) for part in found]

    async def told(self, device: str) -> Assignment | None:
        """What the broker would show the device now."""
        topic = desired_topic(DeviceId(device), Desired.UPDATE)
        kept = await self.desk.read("retained", topic)
        if kept is None or not kept.payload:
            return None
        signed = codec.decode(kept.payload, SignedAssignment, limits.MAX_ASSIGNMENT * 2)
        return codec.decode(signed.assignment.encode(), Assignment, limits.MAX_ASSIGNMENT)

    async def say(self, device: str, phase: Phase, **changes: Any) -> ReportAccepted:
        """Reports on what it was told last."""
        told = await self.told(device)
        assert told is not None, f"{device} was told nothing"
        return await self.send(device, a_report(told, phase, next(self._numbers), **changes))

    async def send(self, device: str, report: UpdateReport, key: Any = _KEY) -> ReportAccepted:
        """This very report, signed."""
        text = codec.encode(report).decode()
        return await self.send_text(device, text, ReportKind.UPDATE, report_statement, key)

    async def tell(
        self,
        device: str,
        running: dict[str, str],
        origin: str | None = None,
        key: Any = None,
        **changes: Any,
    ) -> ReportAccepted:
        """Says what runs on a device, as that device or as another."""
        said = SoftwareReport(
            report_id=f"software-{device}",
            device_id=device,
            at=self.desk.clock.now(),
            running=running,
            **changes,
        )
        text = codec.encode(said).decode()
        return await self.send_text(
            origin or device, text, ReportKind.SOFTWARE, software_statement, key or _KEY
        )

    async def send_text(
        self,
        device: str,
        text: str,
        kind: ReportKind,
        statement: Callable[[str], bytes],
        key: Any = _KEY,
    ) -> ReportAccepted:
        """This very text, signed as this statement."""
        signature = signed_by(key, statement(text))
        request = ReportRequest(request_id="q", report=text, signature=signature, kind=kind)
        reply = await self.reports.report(DeviceOrigin(DeviceId(device)), request)
        return codec.decode(reply.payload, ReportAccepted)

    async def everybody_says(self, phase: Phase, **changes: Any) -> int:
        """All that are told something say so; how many that were."""
        waiting = await self.at(Progress.ASSIGNED)
        for device in waiting:
            await self.say(device, phase, **changes)
        return len(waiting)


def a_report(told: Assignment, phase: Phase, number: int = 0, **changes: Any) -> UpdateReport:
    """What a device says about an assignment."""
    fields: dict[str, Any] = {
        "report_id": f"report-{number}",
        "device_id": told.device_id,
        "rollout": told.rollout,
        "sequence": told.sequence,
        "phase": phase,
        "at": told.issued_at,
    }
    return UpdateReport(**{**fields, **changes})


def signed_by(key: Any, statement: bytes) -> str:
    """The signature, by an ECDSA key."""
    signature = key.sign(statement, ec.ECDSA(hashes.SHA256()))
    return base64.b64encode(signature).decode()


def in_waves(*percent: float, **changes: Any) -> Pace:
    """So many per cent each."""
    return Pace(percent=percent, **changes)


def _certificate_pem() -> str:
    issued = authority().issue(
        DeviceId("somebody"), _KEY.public_key(), NOW, NOW + timedelta(days=365)
    )
    return issued.pem
