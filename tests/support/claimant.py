"""Clients that send any bytes in either zone, and read what the service says to them."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from broker.protocol import codec, limits
from broker.protocol.messages import (
    ConfirmAccepted,
    EnrollAccepted,
    EnrollRequest,
    Rejected,
)
from broker.protocol.names import ClaimName, ClientId
from broker.protocol.topics import (
    ClaimOrigin,
    DeviceOrigin,
    Operation,
    Outcome,
    answer_topic,
    claim_topic,
    device_topic,
)
from broker.protocol.zones import Zone
from device_client.identity import Identity, signing_key
from tests.support.certificates import Client
from tests.support.csrs import PrivateKey, csr_pem, fresh_key
from tests.support.installation import BATCH
from tests.support.peers import Heard, Peer, peer
from tests.support.signing import confirmation
from tests.support.stack import Stack

_ids = itertools.count(1)


def enroll_request(serial: str, key: PrivateKey | None = None, **changes: Any) -> EnrollRequest:
    """A good request, but for the fields in `changes`."""
    fields: dict[str, Any] = {
        "request_id": f"r{next(_ids)}",
        "serial": serial,
        "csr": csr_pem(key or fresh_key()),
        **changes,
    }
    return EnrollRequest(**fields)


class Claimant:
    """A connection to the claim broker that listens to its own answers."""

    def __init__(self, connection: Peer, origin: ClaimOrigin) -> None:
        self.peer = connection
        self.topic = claim_topic(origin, Operation.ENROLL)

    async def send(self, payload: bytes) -> None:
        """Publishes on its own topic."""
        await self.peer.say(self.topic, payload)

    async def answer(self, within: float = 60.0) -> EnrollAccepted | Rejected:
        """The next answer."""
        return read_answer(await self.peer.next(within))

    async def ask(self, payload: bytes, within: float = 60.0) -> EnrollAccepted | Rejected:
        """Publishes, and returns the next answer."""
        await self.send(payload)
        return await self.answer(within)

    async def enroll(self, request: EnrollRequest) -> EnrollAccepted | Rejected:
        """Asks, and returns the answer to this very request."""
        answer = await self.ask(codec.encode(request))
        assert answer.request_id == request.request_id
        return answer


class Member:
    """A connection to the fleet broker that listens to its own answers."""

    def __init__(self, connection: Peer, identity: Identity) -> None:
        self.peer = connection
        self.topic = device_topic(DeviceOrigin(identity.device_id), Operation.CONFIRM)
        self._identity = identity

    async def ask(self, payload: bytes, within: float = 60.0) -> ConfirmAccepted | Rejected:
        """Publishes on its own topic, and returns the next answer."""
        await self.peer.say(self.topic, payload)
        return read_confirmation(await self.peer.next(within))

    async def confirm(self, certificate: str) -> ConfirmAccepted | Rejected:
        """Names a certificate by its fingerprint, and signs by the device's key."""
        key = signing_key(self._identity)
        request = confirmation(key, self._identity.device_id, certificate, f"r{next(_ids)}")
        return await self.ask(codec.encode(request))


def read_answer(heard: Heard) -> EnrollAccepted | Rejected:
    """An answer of the claim zone."""
    if heard.topic.endswith(f"/{Outcome.REJECTED}"):
        return codec.decode(heard.payload, Rejected, limits.MAX_ANSWER)
    return codec.decode(heard.payload, EnrollAccepted, limits.MAX_ANSWER)


def read_confirmation(heard: Heard) -> ConfirmAccepted | Rejected:
    """An answer of the fleet zone."""
    if heard.topic.endswith(f"/{Outcome.REJECTED}"):
        return codec.decode(heard.payload, Rejected, limits.MAX_ANSWER)
    return codec.decode(heard.payload, ConfirmAccepted, limits.MAX_ANSWER)


@asynccontextmanager
async def claimant(
    stack: Stack, client_id: str, name: ClaimName = BATCH
) -> AsyncIterator[Claimant]:
    """Connected with a claim certificate and listening."""
    origin = ClaimOrigin(name, ClientId(client_id))
    async with peer(stack.ports[Zone.CLAIM], stack.claim_client(name), client_id) as connection:
        topic = claim_topic(origin, Operation.ENROLL)
        await connection.hear(*(answer_topic(topic, outcome) for outcome in Outcome))
        yield Claimant(connection, origin)


@asynccontextmanager
async def member(stack: Stack, identity: Identity) -> AsyncIterator[Member]:
    """Connected with a device's certificate and listening."""
    client = Client(
        identity.device_id, identity.chain_file, identity.key_file, stack.home.server_anchors
    )
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        asking = Member(connection, identity)
        await connection.hear(*(answer_topic(asking.topic, outcome) for outcome in Outcome))
        yield asking
