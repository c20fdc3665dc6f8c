"""Members of the fleet who speak the wire by hand: what they hold, and what they ask for."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.protocol import codec, limits
from broker.protocol.messages import (
    ConfirmAccepted,
    EnrollAccepted,
    RecoverRequest,
    Rejected,
    RenewRequest,
)
from broker.protocol.names import ClaimName, ClientId, DeviceId
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
from tests.support.certificates import Client
from tests.support.claimant import claimant, enroll_request
from tests.support.csrs import csr_pem, fresh_key
from tests.support.installation import BATCH
from tests.support.peers import Heard, Peer, peer
from tests.support.signing import confirmation, renewal
from tests.support.stack import Stack
from tests.support.succeeding import signature

_ids = itertools.count(1)
Key = ec.EllipticCurvePrivateKey
AcceptedT = TypeVar("AcceptedT", EnrollAccepted, ConfirmAccepted)


@dataclass(frozen=True)
class Holder:
    """A device with one key and its certificate; a renewal makes another holder of the name."""

    device_id: DeviceId
    key: Key
    chain: str

    @property
    def pem(self) -> str:
        """The certificate alone."""
        end = "-----END CERTIFICATE-----\n"
        return self.chain[: self.chain.index(end) + len(end)]

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate, parsed."""
        return x509.load_pem_x509_certificate(self.pem.encode())

    @property
    def sha256(self) -> str:
        """The certificate's fingerprint."""
        return hashlib.sha256(self.leaf.public_bytes(Encoding.DER)).hexdigest()

    def given(self, key: Key, answer: EnrollAccepted | Rejected) -> "Holder":
        """The same device with what it was granted for `key`."""
        assert isinstance(answer, EnrollAccepted), answer
        return replace(self, key=key, chain=answer.certificate_chain)

    def recovery(self, key: Key, **changes: Any) -> RecoverRequest:
        """A good request for another certificate, but for the fields in `changes`."""
        csr, request_id = csr_pem(key), f"recovery-{next(_ids)}"
        fields = {
            "request_id": request_id,
            "csr": csr,
            "certificate": self.pem,
            "signature": signature(self.key, request_id, csr),
        }
        return RecoverRequest(**{**fields, **changes})


class Connected:
    """A connection to the fleet broker that listens to the answers of some operations."""

    def __init__(self, connection: Peer, holder: Holder) -> None:
        self.peer = connection
        self._holder = holder
        self._origin = DeviceOrigin(holder.device_id)

    async def renew(
        self, key: Key, by: Key | None = None, **changes: Any
    ) -> EnrollAccepted | Rejected:
        """Asks for a certificate for `key`, signed by the holder's or the key `by`."""
        changes = {"request_id": f"renewal-{next(_ids)}", **changes}
        request = renewal(by or self._holder.key, key, self._holder.device_id, **changes)
        return await self.send_renewal(request)

    async def send_renewal(self, request: RenewRequest | bytes) -> EnrollAccepted | Rejected:
        """Asks with this very request, or whatever else it is."""
        payload = request if isinstance(request, bytes) else codec.encode(request)
        heard = await self._ask(Operation.RENEW, payload)
        return _read(heard, EnrollAccepted)

    async def confirm(self, sha256: str, by: Key | None = None) -> ConfirmAccepted | Rejected:
        """Names a certificate by its fingerprint, and signs by the holder's or the key `by`."""
        key, device = by or self._holder.key, self._holder.device_id
        request = confirmation(key, device, sha256, f"proof-{next(_ids)}")
        heard = await self._ask(Operation.CONFIRM, codec.encode(request))
        return _read(heard, ConfirmAccepted)

    async def _ask(self, operation: Operation, payload: bytes) -> Heard:
        """The answer to this very request: a service that was killed answers older ones, too."""
        topic = device_topic(self._origin, operation)
        await self.peer.say(topic, payload)
        while True:
            heard = await self.peer.next()
            is_about_it = codec.request_id_of(heard.payload) == codec.request_id_of(payload)
            if heard.topic.startswith(topic) and is_about_it:
                return heard


def _read(heard: Heard, accepted: type[AcceptedT]) -> AcceptedT | Rejected:
    if heard.topic.endswith(f"/{Outcome.REJECTED}"):
        return codec.decode(heard.payload, Rejected, limits.MAX_ANSWER)
    return codec.decode(heard.payload, accepted, limits.MAX_ANSWER)


@asynccontextmanager
async def connected(stack: Stack, holder: Holder, place: Path) -> AsyncIterator[Connected]:
    """In the fleet zone with the holder's certificate; its files are in `place`."""
    client = await asyncio.to_thread(as_client, stack, holder, place)
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        origin = DeviceOrigin(holder.device_id)
        for operation in (Operation.CONFIRM, Operation.RENEW):
            topic = device_topic(origin, operation)
            await connection.hear(*(answer_topic(topic, outcome) for outcome in Outcome))
        yield Connected(connection, holder)


def as_client(stack: Stack, holder: Holder, place: Path) -> Client:
    """The holder's certificate and key in files."""
    key, chain = place / f"{holder.sha256}.key", place / f"{holder.sha256}.pem"
    if not chain.exists():
        key.touch(0o600)
        key.write_bytes(holder.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        chain.write_text(holder.chain)
    return Client(holder.device_id, chain, key, stack.home.server_anchors)


async def join(stack: Stack, place: Path, serial: str) -> Holder:
    """A device claims and confirms."""
    key = fresh_key()
    async with claimant(stack, f"claims-{serial}") as asking:
        answer = await asking.enroll(enroll_request(serial, key))
    assert isinstance(answer, EnrollAccepted), answer
    holder = Holder(DeviceId(answer.device_id), key, answer.certificate_chain)
    await prove(stack, holder, place)
    return holder


async def prove(stack: Stack, holder: Holder, place: Path) -> None:
    """Connects with the certificate and confirms it."""
    async with connected(stack, holder, place) as connection:
        answer = await connection.confirm(holder.sha256)
        assert isinstance(answer, ConfirmAccepted), answer


async def recover(
    stack: Stack, request: RecoverRequest, name: ClaimName = BATCH, client_id: str = "recovers"
) -> EnrollAccepted | Rejected:
    """Asks in the claim zone."""
    topic = claim_topic(ClaimOrigin(name, ClientId(client_id)), Operation.RECOVER)
    async with peer(stack.ports[Zone.CLAIM], stack.claim_client(name), client_id) as connection:
        await connection.hear(*(answer_topic(topic, outcome) for outcome in Outcome))
        await connection.say(topic, codec.encode(request))
        return _read(await connection.next(), EnrollAccepted)
