"""Answers made before: what the service would say to each device, with a real certificate."""

import hashlib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.server_trust import FIRST_VERSION
from broker.protocol import codec
from broker.protocol.messages import ConfirmAccepted, Endpoint, EnrollAccepted, TrustBundle
from broker.protocol.names import DeviceId
from broker.protocol.topics import DeviceOrigin, Operation, claim_topic, device_topic
from tests.bench.devices import Device

_LIFETIME = timedelta(days=90)


def canned_answers(
    home: MusterHome, fleet: Endpoint, devices: Sequence[Device]
) -> dict[str, bytes]:
    """By the topic of the request, both answers of every device."""
    authority = FileAuthority.load(home)
    trust = TrustBundle(version=FIRST_VERSION, anchors=home.server_anchors.read_text())
    now = datetime.now(UTC)
    answers = {}
    for device in devices:
        name = DeviceId(f"lamp-{device.request.serial}")
        issued = authority.issue(name, device.key.public_key(), now, now + _LIFETIME)
        accepted = EnrollAccepted(
            request_id=device.request.request_id,
            device_id=name,
            certificate_chain=issued.pem + authority.chain_pem,
            not_after=issued.not_after,
            confirm_by=now,
            fleet=fleet,
            trust_bundle=trust,
        )
        confirmed = ConfirmAccepted(
            request_id=f"confirm-{device.origin.client_id}",
            device_id=name,
            certificate_sha256=hashlib.sha256(ssl.PEM_cert_to_DER_cert(issued.pem)).hexdigest(),
            not_after=issued.not_after,
        )
        answers[claim_topic(device.origin, Operation.ENROLL)] = codec.encode(accepted)
        answers[device_topic(DeviceOrigin(name), Operation.CONFIRM)] = codec.encode(confirmed)
    return answers
