"""Simulated devices that follow assignments by the wire: told by the broker, heard by the service.

They install nothing. What they say is what a test wants them to say.
"""

import base64
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.core.metadata_lifetime import Lifetimes
from broker.protocol import codec, limits
from broker.protocol.messages import Rejected
from broker.protocol.names import DeviceId
from broker.protocol.statements import report_statement
from broker.protocol.topics import (
    Desired,
    DeviceOrigin,
    Operation,
    Outcome,
    answer_topic,
    desired_topic,
    device_topic,
)
from broker.protocol.updates import (
    Assignment,
    Phase,
    ReportAccepted,
    ReportRequest,
    SignedAssignment,
    UpdateReport,
)
from broker.protocol.zones import Zone
from tests.support.certificates import Client
from tests.support.peers import Heard, Peer, peer
from tests.support.stack import Stack
from tests.support.update_workshop import Workshop

_ids = itertools.count(1)


class UpdateDevice:
    """One connected device."""

    def __init__(self, connection: Peer, client: Client) -> None:
        self.id = DeviceId(client.name)
        self.peer = connection
        self._key = load_pem_private_key(client.key.read_bytes(), None)
        self._desired = desired_topic(self.id, Desired.UPDATE)
        self._report = device_topic(DeviceOrigin(self.id), Operation.REPORT)
        self._heard: deque[Heard] = deque()

    async def listen(self) -> None:
        """Subscribes to what it is told and to its answers."""
        answers = [answer_topic(self._report, outcome) for outcome in Outcome]
        await self.peer.hear(*answers, self._desired)

    async def told(self, within: float = 60.0) -> Assignment | None:
        """The next thing that it's told; none when it's told that there is nothing any more."""
        heard = await self._next([self._desired], within)
        if not heard.payload:
            return None
        signed = codec.decode(heard.payload, SignedAssignment, limits.MAX_METADATA)
        return codec.decode(signed.assignment.encode(), Assignment, limits.MAX_ASSIGNMENT)

    async def say(
        self, assignment: Assignment, phase: Phase, within: float = 60.0, **changes: Any
    ) -> ReportAccepted | Rejected:
        """Reports, and returns the answer."""
        fields: dict[str, Any] = {
            "report_id": f"report-{next(_ids)}",
            "device_id": self.id,
            "rollout": assignment.rollout,
            "sequence": assignment.sequence,
            "phase": phase,
            "at": datetime.now(UTC),
        }
        return await self.send(UpdateReport(**{**fields, **changes}), within)

    async def send(self, report: UpdateReport, within: float = 60.0) -> ReportAccepted | Rejected:
        """This very report."""
        text = codec.encode(report).decode()
        request = ReportRequest(
            request_id=f"r{next(_ids)}", report=text, signature=self._signature(text)
        )
        await self.peer.say(self._report, codec.encode(request))
        answers = [answer_topic(self._report, outcome) for outcome in Outcome]
        heard = await self._next(answers, within)
        if heard.topic.endswith(Outcome.REJECTED):
            return codec.decode(heard.payload, Rejected)
        return codec.decode(heard.payload, ReportAccepted)

    def _signature(self, text: str) -> str:
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        signed = self._key.sign(report_statement(text), ec.ECDSA(hashes.SHA256()))
        return base64.b64encode(signed).decode()

    async def _next(self, topics: list[str], within: float) -> Heard:
        """The oldest message on one of these; the others wait."""
        for waiting in self._heard:
            if waiting.topic in topics:
                self._heard.remove(waiting)
                return waiting
        while (heard := await self.peer.next(within)).topic not in topics:
            self._heard.append(heard)
        return heard


@asynccontextmanager
async def update_device(stack: Stack, client: Client) -> AsyncIterator[UpdateDevice]:
    """Connected with the device's certificate, and listening."""
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        device = UpdateDevice(connection, client)
        await device.listen()
        yield device


def workshop_of(stack: Stack, place: Path) -> Workshop:
    """The installation's update repository, signed and published; its offline keys in `place`."""
    keys = place / "update-keys"
    keys.mkdir()
    workshop = Workshop(stack.home, keys)
    workshop.create(targets_threshold=1, algorithm="ed25519", lifetimes=Lifetimes())
    workshop.sign("root-1", "root-2", "targets-1", "targets-2")
    workshop.desk.publish()
    return workshop
