"""What the device says in each zone: asking for a certificate, and proving it."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from broker.protocol.messages import (
    ConfirmAccepted,
    ConfirmRequest,
    EnrollAccepted,
    EnrollRequest,
    RecoverRequest,
    RenewRequest,
    TrustBundle,
)
from broker.protocol.names import ClaimName, ClientId, SerialNumber
from broker.protocol.statements import (
    confirmation_statement,
    recovery_statement,
    renewal_statement,
)
from broker.protocol.topics import ClaimOrigin, DeviceOrigin, Operation, claim_topic, device_topic
from broker.protocol.zones import Zone
from device_client import exchange, keys, signatures, tls
from device_client.answers import Grant, check_answer
from device_client.disk import on_disk
from device_client.enrollment import Enrollment
from device_client.errors import RequestRejected, ServerNotTrusted
from device_client.exchange import Question
from device_client.identity import Identity, leaf_pem, signing_key
from device_client.keys import PrivateKey
from device_client.keystore import PendingKey
from device_client.settings import Timing
from device_client.succession import NextKey
from device_client.timekeeping import Timekeeper
from device_client.transport import Address, Connection, connected
from device_client.trust import TrustStore
from device_client.validity import ServerDates


@dataclass(frozen=True)
class Line:
    """A connection, and what its server is known by."""

    connection: Connection
    dates: ServerDates
    trust: TrustBundle


@dataclass(frozen=True)
class Conversations:
    """Everything that this device asks of the service. All raise DeviceError: it isn't granted."""

    timing: Timing
    timekeeper: Timekeeper
    trust: TrustStore

    async def enroll(self, claim: Enrollment, pending: PendingKey) -> Grant:
        """Asks the claim zone for a certificate about the pending key, and checks the answer.

        Raises:
            DeviceError: there is none; BundleInvalid, AnswerInvalid, or what `connected` and `ask`
                say.
        """
        origin = _claimant(claim, pending.serial)
        request = EnrollRequest(
            request_id=exchange.new_request_id(),
            serial=pending.serial,
            csr=keys.signing_request(pending.key),
            parameters=claim.parameters,
        )
        topic = claim_topic(origin, Operation.ENROLL)
        question = Question(topic, request.request_id, request, EnrollAccepted)
        async with self.at_claim_broker(claim, origin) as line:
            return await self._granted(line, question, pending.key, pending.made_at)

    async def recover(self, claim: Enrollment, expired: Identity, key: NextKey) -> Grant:
        """Asks the claim zone for the successor of an expired certificate, by its key.

        Raises:
            DeviceError: there is none.
        """
        origin = _claimant(claim, expired.serial)
        csr = keys.signing_request(key.key)
        request_id = exchange.new_request_id()
        statement = recovery_statement(request_id, keys.request_sha256(csr))
        old_key = await on_disk(signing_key, expired)
        request = RecoverRequest(
            request_id=request_id,
            csr=csr,
            certificate=await on_disk(leaf_pem, expired),
            signature=signatures.sign(old_key, statement),
        )
        topic = claim_topic(origin, Operation.RECOVER)
        question = Question(topic, request_id, request, EnrollAccepted)
        async with self.at_claim_broker(claim, origin) as line:
            grant = await self._granted(line, question, key.key, key.made_at)
        return grant.for_device(expired.device_id, order=expired.order)

    async def renew(self, line: Line, identity: Identity, key: NextKey, order: int) -> Grant:
        """Asks for the successor of the certificate that the connection was made with.

        `order` is the version of the newest rotation order that is known; 0 for none.

        Raises:
            DeviceError: there is none.
        """
        request = await on_disk(_renewal, identity, key, order if order > identity.order else None)
        topic = device_topic(DeviceOrigin(identity.device_id), Operation.RENEW)
        question = Question(topic, request.request_id, request, EnrollAccepted)
        grant = await self._granted(line, question, key.key, key.made_at)
        return grant.for_device(identity.device_id, order=max(order, identity.order))

    async def confirm(self, line: Line, identity: Identity) -> None:
        """Proves the certificate by the fleet connection made with it; harmless when repeated.

        Raises:
            DeviceError: it isn't confirmed, for what `ask` says.
        """
        request = await on_disk(_confirmation, identity)
        topic = device_topic(DeviceOrigin(identity.device_id), Operation.CONFIRM)
        question = Question(topic, request.request_id, request, ConfirmAccepted)
        await exchange.ask(line.connection, question, self.timing.answers_s)

    @asynccontextmanager
    async def at_claim_broker(self, claim: Enrollment, origin: ClaimOrigin) -> AsyncIterator[Line]:
        """A connection to the claim broker, with the bundle's certificate.

        Raises:
            DeviceError: what `connected` says, or BundleInvalid.
        """
        trust = await on_disk(self.trust.newest, claim.bundle.trust_bundle)
        dates = ServerDates(trust, self.timekeeper)
        address = Address(
            zone=Zone.CLAIM,
            endpoint=claim.bundle.claim,
            client_id=origin.client_id,
            context=tls.claim_context(claim.bundle, trust),
            timeout_s=self.timing.connect_s,
            keepalive_s=self.timing.keepalive_s,
            dates=dates,
        )
        async with connected(address) as connection:
            yield Line(connection, dates, trust)

    @asynccontextmanager
    async def at_fleet_broker(self, identity: Identity) -> AsyncIterator[Line]:
        """A connection to the fleet broker, which knows a device by its certificate's name only.

        Raises:
            DeviceError: what `connected` says, or StateUnusable.
        """
        trust = await on_disk(self.trust.newest, identity.trust_bundle)
        dates = ServerDates(trust, self.timekeeper)
        address = Address(
            zone=Zone.FLEET,
            endpoint=identity.fleet,
            client_id=identity.device_id,
            context=await on_disk(tls.fleet_context, identity, trust),
            timeout_s=self.timing.connect_s,
            keepalive_s=self.timing.keepalive_s,
            dates=dates,
        )
        async with connected(address) as connection:
            yield Line(connection, dates, trust)

    async def line_of(self, connection: Connection, identity: Identity) -> Line:
        """An accepted connection to the fleet broker, whose dates have been judged already."""
        trust = await on_disk(self.trust.newest, identity.trust_bundle)
        judged = connection.dates
        dates = judged if isinstance(judged, ServerDates) else ServerDates(trust, self.timekeeper)
        return Line(connection, dates, trust)

    async def _granted(
        self,
        line: Line,
        question: Question[EnrollAccepted],
        key: PrivateKey,
        made_at: datetime | None,
    ) -> Grant:
        is_provisional = line.connection.is_provisional
        try:
            answer = await exchange.ask(line.connection, question, self.timing.answers_s)
        except RequestRejected as error:
            if not is_provisional:
                raise
            raise ServerNotTrusted(
                "By this device's clock the server's certificate is over, and it refuses to prove "
                f"the contrary: {error}",
                "Set the device's clock; if it's right, don't trust the server.",
            ) from error
        now = self.timekeeper.floor() if is_provisional else self.timekeeper.now()
        grant = check_answer(answer, keys.fingerprint(key.public_key()), line.trust, now)
        line.dates.settle(grant, made_at)
        if is_provisional:
            await on_disk(self.timekeeper.save)
        return grant


def claim_client_id(serial: SerialNumber) -> ClientId:
    """Always the same for one device, so that after a restart it takes over its own connection."""
    return ClientId(f"device-{hashlib.sha256(serial.encode()).hexdigest()[:32]}")


def _confirmation(identity: Identity) -> ConfirmRequest:
    """Signed by the identity's key; reads the disk."""
    request_id = exchange.new_request_id()
    statement = confirmation_statement(request_id, identity.device_id, identity.certificate_sha256)
    return ConfirmRequest(
        request_id=request_id,
        certificate_sha256=identity.certificate_sha256,
        signature=signatures.sign(signing_key(identity), statement),
    )


def _renewal(identity: Identity, key: NextKey, order: int | None) -> RenewRequest:
    """Signed by the identity's key; reads the disk."""
    csr = keys.signing_request(key.key)
    request_id = exchange.new_request_id()
    statement = renewal_statement(request_id, identity.device_id, keys.request_sha256(csr), order)
    return RenewRequest(
        request_id=request_id,
        csr=csr,
        signature=signatures.sign(signing_key(identity), statement),
        order=order,
    )


def _claimant(claim: Enrollment, serial: SerialNumber) -> ClaimOrigin:
    return ClaimOrigin(ClaimName(claim.bundle.claim_name), claim_client_id(serial))
