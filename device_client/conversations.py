"""What the device says in each zone: asking for a certificate, and proving it."""

import hashlib
import ssl
from collections.abc import Callable
from datetime import datetime

from broker.protocol.messages import (
    ConfirmAccepted,
    ConfirmRequest,
    EnrollAccepted,
    EnrollRequest,
)
from broker.protocol.names import ClaimName, ClientId, SerialNumber
from broker.protocol.topics import ClaimOrigin, DeviceOrigin, Operation, claim_topic, device_topic
from broker.protocol.zones import Zone
from device_client import exchange, keys, tls
from device_client.answers import Grant, check_answer
from device_client.enrollment import Enrollment
from device_client.exchange import Question
from device_client.identity import Identity
from device_client.keystore import PendingKey
from device_client.settings import Timing
from device_client.transport import Address, Connection, connected


async def enroll(
    claim: Enrollment, pending: PendingKey, timing: Timing, clock: Callable[[], datetime]
) -> Grant:
    """Asks the claim zone for a certificate about the pending key, and checks the answer.

    Raises:
        DeviceError: there is none; BundleInvalid, AnswerInvalid, or what `connected` and `ask` say.
    """
    origin = ClaimOrigin(ClaimName(claim.bundle.claim_name), claim_client_id(pending.serial))
    request = EnrollRequest(
        request_id=exchange.new_request_id(),
        serial=pending.serial,
        csr=keys.signing_request(pending.key),
        parameters=claim.parameters,
    )
    topic = claim_topic(origin, Operation.ENROLL)
    question = Question(topic, request.request_id, request, EnrollAccepted)
    address = Address(
        zone=Zone.CLAIM,
        endpoint=claim.bundle.claim,
        client_id=origin.client_id,
        context=tls.claim_context(claim.bundle),
        timeout_s=timing.connect_s,
        keepalive_s=timing.keepalive_s,
    )
    async with connected(address) as connection:
        answer = await exchange.ask(connection, question, timing.answers_s)
    key_sha256 = keys.fingerprint(pending.key.public_key())
    return check_answer(answer, key_sha256, claim.bundle.trust_bundle, clock())


async def confirm(connection: Connection, identity: Identity, timing: Timing) -> None:
    """Proves the certificate by the fleet connection made with it; harmless when repeated.

    Raises:
        DeviceError: it isn't confirmed, for what `ask` says.
    """
    request = ConfirmRequest(
        request_id=exchange.new_request_id(), certificate_sha256=identity.certificate_sha256
    )
    topic = device_topic(DeviceOrigin(identity.device_id), Operation.CONFIRM)
    question = Question(topic, request.request_id, request, ConfirmAccepted)
    await exchange.ask(connection, question, timing.answers_s)


def fleet_address(identity: Identity, context: ssl.SSLContext, timing: Timing) -> Address:
    """The fleet broker, which knows a device by its certificate's name only."""
    return Address(
        zone=Zone.FLEET,
        endpoint=identity.fleet,
        client_id=identity.device_id,
        context=context,
        timeout_s=timing.connect_s,
        keepalive_s=timing.keepalive_s,
    )


def claim_client_id(serial: SerialNumber) -> ClientId:
    """Always the same for one device, so that after a restart it takes over its own connection."""
    return ClientId(f"device-{hashlib.sha256(serial.encode()).hexdigest()[:32]}")
