"""Both brokers as shipped, and a service that answers devices by a script instead of a registry."""

import asyncio
import base64
import dataclasses
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiomqtt
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from broker.adapters.ca.bundles import read_trust_bundle
from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.ca.home import MusterHome
from broker.protocol import codec
from broker.protocol.bundle import ClaimBundle, write_bundle
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import (
    ConfirmAccepted,
    ConfirmRequest,
    Endpoint,
    EnrollAccepted,
    EnrollRequest,
    RecoverRequest,
    Rejected,
    RenewRequest,
    TrustBundle,
)
from broker.protocol.names import DeviceId
from broker.protocol.statements import confirmation_statement, recovery_statement, renewal_statement
from broker.protocol.topics import CLAIM_REQUESTS, DEVICE_REQUESTS, Outcome, answer_topic
from broker.protocol.zones import Zone
from device_client import keys, signatures
from tests.support.certificates import Certificates, Client
from tests.support.mosquitto import RunningMosquitto, run_mosquitto

SILENCE = object()
"""In a script: no answer at all."""

Twist = Callable[[EnrollAccepted], EnrollAccepted]
"""In a script: what would have been answered, falsified."""


def key_of(csr: str) -> bytes:
    """The public key in a request."""
    key = x509.load_pem_x509_csr(csr.encode()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pinned(home: MusterHome) -> TrustBundle:
    """The installation's anchors, with the root that devices pin."""
    root = home.root.certificate.read_text()
    return dataclasses.replace(read_trust_bundle(home), root=root)


def _proven_name(request: RecoverRequest) -> DeviceId:
    """Whose certificate the signature proves."""
    certificate = x509.load_pem_x509_certificate(request.certificate.encode())
    digest = hashlib.sha256(
        x509.load_pem_x509_csr(request.csr.encode()).public_bytes(Encoding.DER)
    ).hexdigest()
    statement = recovery_statement(request.request_id, digest)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(base64.b64decode(request.signature), statement, ec.ECDSA(hashes.SHA256()))
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return DeviceId(str(name.value))


def _refusal(refusal: Refused | Rejected, request_id: str) -> tuple[Outcome, bytes]:
    if isinstance(refusal, Refused):
        refusal = codec.rejection(refusal, request_id)
    return Outcome.REJECTED, codec.encode(dataclasses.replace(refusal, request_id=request_id))


class FakeService:
    """Accepts everybody as `device-{serial}`, with the same certificate for the same key while it
    lasts.

    While a script has entries, a request takes one: `Refused`, `Rejected`, `SILENCE`, or a `Twist`.
    """

    def __init__(self, certificates: Certificates, fleet: Endpoint) -> None:
        self.enrolls: list[EnrollRequest] = []
        self.claim_topics: list[str] = []
        self.confirms: list[ConfirmRequest] = []
        self.renews: list[RenewRequest] = []
        self.recovers: list[RecoverRequest] = []
        self.enroll_script: deque[object] = deque()
        self.confirm_script: deque[object] = deque()
        self.renew_script: deque[object] = deque()
        self.recover_script: deque[object] = deque()
        self.lifetime = timedelta(hours=1)
        self.age = timedelta(minutes=1)
        """How long before now certificates begin."""
        self.issued: dict[str, EnrollAccepted] = {}
        self._certified: dict[DeviceId, list[CertificatePublicKeyTypes]] = {}
        self.ready = asyncio.Event()
        self._listening: set[Zone] = set()
        self._clients: dict[Zone, aiomqtt.Client] = {}
        self._certificates = certificates
        self._authority = FileAuthority.load(certificates.home)
        self.trust_bundle = pinned(certificates.home)
        self._fleet = fleet

    def keys_seen(self) -> set[bytes]:
        """The public keys that were sent."""
        return {key_of(request.csr) for request in self.enrolls}

    async def retain(self, topic: str, message: object | None) -> None:
        """Has the fleet broker retain it; None for nothing."""
        payload = b"" if message is None else codec.encode(message)
        await self._clients[Zone.FLEET].publish(topic, payload, qos=1, retain=True)

    def forget_certificates(self) -> None:
        """From now on every key gets a fresh certificate, once."""
        self.issued.clear()

    async def serve(self, broker: RunningMosquitto) -> None:
        """Answers in one zone until cancelled; comes back when the broker does."""
        while True:
            with suppress(aiomqtt.MqttError):
                await self._serve(broker.zone, broker.service_port)
            await asyncio.sleep(0.05)

    async def _serve(self, zone: Zone, port: int) -> None:
        client = self._certificates.service(zone)
        async with aiomqtt.Client(
            "localhost",
            port,
            identifier=client.name,
            protocol=aiomqtt.ProtocolVersion.V311,
            tls_context=client.context(),
        ) as mqtt:
            self._clients[zone] = mqtt
            await mqtt.subscribe(CLAIM_REQUESTS if zone is Zone.CLAIM else DEVICE_REQUESTS, 1)
            self._listening.add(zone)
            if self._listening == set(Zone):
                self.ready.set()
            async for message in mqtt.messages:
                topic, payload = str(message.topic), message.payload
                assert isinstance(payload, bytes)
                answer = self._answer(topic, payload)
                if answer is not None:
                    await mqtt.publish(answer_topic(topic, answer[0]), answer[1], qos=1)

    def _answer(self, topic: str, payload: bytes) -> tuple[Outcome, bytes] | None:
        match topic.rsplit("/", 1)[1]:
            case "enroll":
                self.claim_topics.append(topic)
                enroll = codec.decode(payload, EnrollRequest)
                self.enrolls.append(enroll)
                name = DeviceId(f"device-{enroll.serial}")
                return self._grant(enroll, name, self.enroll_script)
            case "recover":
                recover = codec.decode(payload, RecoverRequest)
                self.recovers.append(recover)
                return self._grant(recover, _proven_name(recover), self.recover_script)
            case "renew":
                renew = codec.decode(payload, RenewRequest)
                self.renews.append(renew)
                name = DeviceId(topic.split("/")[3])
                self._check_signed(renew, name)
                return self._grant(renew, name, self.renew_script)
            case _:
                return self._confirm(payload)

    def _check_signed(self, request: RenewRequest, name: DeviceId) -> None:
        """By one of the keys that the device ever had a certificate for."""
        digest = keys.request_sha256(request.csr)
        statement = renewal_statement(request.request_id, name, digest, request.order)
        for key in self._certified[name]:
            with suppress(InvalidSignature):
                return signatures.verify(key, request.signature, statement)
        raise AssertionError(f"{name} signs by a key that it never had")

    def _grant(
        self,
        request: EnrollRequest | RecoverRequest | RenewRequest,
        name: DeviceId,
        script: deque[object],
    ) -> tuple[Outcome, bytes] | None:
        step = script.popleft() if script else None
        if step is SILENCE:
            return None
        if isinstance(step, Refused | Rejected):
            return _refusal(step, request.request_id)
        answer = self._accept(request, name)
        if callable(step):
            answer = step(answer)
        return Outcome.ACCEPTED, codec.encode(answer)

    def _accept(
        self, request: EnrollRequest | RecoverRequest | RenewRequest, name: DeviceId
    ) -> EnrollAccepted:
        csr = x509.load_pem_x509_csr(request.csr.encode())
        key = key_of(request.csr).hex()
        now = datetime.now(UTC)
        if key not in self.issued or self.issued[key].not_after <= now:
            issued = self._authority.issue(
                name, csr.public_key(), now - self.age, now + self.lifetime
            )
            self._certified.setdefault(name, []).append(csr.public_key())
            self.issued[key] = EnrollAccepted(
                request_id="",
                device_id=name,
                certificate_chain=issued.pem + self._authority.chain_pem,
                not_after=now + self.lifetime,
                confirm_by=now + self.lifetime,
                fleet=self._fleet,
                trust_bundle=self.trust_bundle,
            )
        return dataclasses.replace(self.issued[key], request_id=request.request_id)

    def _confirm(self, payload: bytes) -> tuple[Outcome, bytes] | None:
        request = codec.decode(payload, ConfirmRequest)
        self.confirms.append(request)
        step = self.confirm_script.popleft() if self.confirm_script else None
        if step is SILENCE:
            return None
        if isinstance(step, Refused | Rejected):
            return _refusal(step, request.request_id)
        for answer in self.issued.values():
            leaf = x509.load_pem_x509_certificate(answer.certificate_chain.encode())
            if leaf.fingerprint(hashes.SHA256()).hex() == request.certificate_sha256:
                statement = confirmation_statement(
                    request.request_id, answer.device_id, request.certificate_sha256
                )
                signatures.verify(leaf.public_key(), request.signature, statement)
                return Outcome.ACCEPTED, codec.encode(
                    ConfirmAccepted(
                        request_id=request.request_id,
                        device_id=answer.device_id,
                        certificate_sha256=request.certificate_sha256,
                        not_after=answer.not_after,
                    )
                )
        return _refusal(Refused(Code.CERTIFICATE_UNKNOWN), request.request_id)


class FakeFleet:
    """What a device meets: two brokers, the service, and the maker's bundle."""

    def __init__(
        self,
        place: Path,
        certificates: Certificates,
        claim: RunningMosquitto,
        fleet: RunningMosquitto,
    ) -> None:
        self.certificates = certificates
        self.claim = claim
        self.fleet = fleet
        self.service = FakeService(certificates, Endpoint(host="localhost", port=fleet.port))
        self._place = place

    def bundle(self, name: str = "batch-7") -> ClaimBundle:
        """A bundle with a fresh claim certificate."""
        client = self.certificates.claim(name)
        return ClaimBundle(
            claim_name=name,
            certificate=client.certificate.read_text(),
            private_key=client.key.read_text(),
            claim=Endpoint(host="localhost", port=self.claim.port),
            trust_bundle=self.service.trust_bundle,
        )

    def bundle_file(self, bundle: ClaimBundle | None = None) -> Path:
        """The same as a file."""
        path = self._place / "bundle.json"
        path.write_bytes(write_bundle(bundle or self.bundle()))
        return path

    async def revoke(self, chain_pem: str, name: str) -> None:
        """The fleet broker refuses this certificate from now on; live connections stay."""
        file = self._place / "revoked.crt"
        file.write_text(chain_pem)
        home = self.certificates.home
        revoked = Client(name, file, file, home.server_anchors)
        replacement = self._place / "crl.new"
        replacement.write_bytes(self.certificates.revoke(Zone.FLEET, [revoked]))
        replacement.replace(home.crl_file(Zone.FLEET))
        await self.fleet.control.apply_crl()


@asynccontextmanager
async def fake_fleet(place: Path) -> AsyncIterator[FakeFleet]:
    """Everything up and answering; ended at the end."""
    certificates = await asyncio.to_thread(Certificates, place)
    run = place / "run"
    run.mkdir()
    home = certificates.home.path
    async with (
        run_mosquitto(Zone.CLAIM, home, run) as claim,
        run_mosquitto(Zone.FLEET, home, run) as fleet,
    ):
        world = FakeFleet(place, certificates, claim, fleet)
        serving = [asyncio.create_task(world.service.serve(one)) for one in (claim, fleet)]
        try:
            await world.service.ready.wait()
            yield world
        finally:
            for task in serving:
                task.cancel()
            ended = await asyncio.gather(*serving, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise AssertionError("the scripted service failed") from error
