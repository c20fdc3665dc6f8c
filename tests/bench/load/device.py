"""One simulated device: from its bootstrap certificate to a confirmed member."""

import asyncio
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from broker.protocol import codec
from broker.protocol.messages import ConfirmAccepted, ConfirmRequest, EnrollAccepted
from broker.protocol.names import DeviceId
from broker.protocol.statements import confirmation_statement
from broker.protocol.topics import DeviceOrigin, Operation, Outcome, answer_topic, device_topic
from device_client import keys, signatures
from tests.bench.load.mqtt import connected
from tests.bench.load.plan import Plan, PlannedDevice

_WITHIN_S: Final = 60.0


@dataclass(frozen=True)
class Site:
    """What all devices of a load have in common."""

    plan: Plan
    claim_context: ssl.SSLContext
    anchors: str
    folder: Path
    """Where a device's key and certificate become files: TLS loads them from there."""

    @classmethod
    def of(cls, plan: Plan, folder: Path) -> Self:
        """Writes the devices' keys, which isn't part of what is measured."""
        claim = ssl.create_default_context(cafile=str(plan.anchors))
        claim.load_cert_chain(plan.claim_certificate, plan.claim_key)
        for device in plan.devices:
            (folder / f"{device.client_id}.key").write_text(device.key)
        return cls(plan, claim, plan.anchors.read_text(), folder)


async def become_member(site: Site, device: PlannedDevice) -> None:
    """Claims, connects with the new certificate and confirms it.

    Raises:
        Exception: a broker or the service refused, or it took too long.
    """
    async with asyncio.timeout(_WITHIN_S):
        accepted = await _claim(site, device)
        await _confirm(site, device, accepted)


async def _claim(site: Site, device: PlannedDevice) -> EnrollAccepted:
    async with connected(site.plan.claim_port, site.claim_context, device.client_id) as connection:
        await connection.subscribe(_answers_of(device.topic))
        answer = await connection.ask(device.topic, device.payload)
    _check_accepted(answer.topic, device.topic, answer.payload)
    return codec.decode(answer.payload, EnrollAccepted, limit=len(answer.payload))


async def _confirm(site: Site, device: PlannedDevice, accepted: EnrollAccepted) -> None:
    context = _operational_context(site, device, accepted.certificate_chain)
    topic = device_topic(DeviceOrigin(DeviceId(accepted.device_id)), Operation.CONFIRM)
    request = _confirmation(device, accepted)
    async with connected(site.plan.fleet_port, context, accepted.device_id) as connection:
        await connection.subscribe(_answers_of(topic))
        answer = await connection.ask(topic, codec.encode(request))
    _check_accepted(answer.topic, topic, answer.payload)
    codec.decode(answer.payload, ConfirmAccepted)


def _confirmation(device: PlannedDevice, accepted: EnrollAccepted) -> ConfirmRequest:
    leaf = ssl.PEM_cert_to_DER_cert(_first_of(accepted.certificate_chain))
    sha256 = hashlib.sha256(leaf).hexdigest()
    request_id = f"confirm-{device.client_id}"
    statement = confirmation_statement(request_id, accepted.device_id, sha256)
    signature = signatures.sign(keys.from_pem(device.key), statement)
    return ConfirmRequest(request_id=request_id, certificate_sha256=sha256, signature=signature)


def _operational_context(site: Site, device: PlannedDevice, chain: str) -> ssl.SSLContext:
    certificate = site.folder / f"{device.client_id}.crt"
    certificate.write_text(chain)
    context = ssl.create_default_context(cadata=site.anchors)
    context.load_cert_chain(certificate, site.folder / f"{device.client_id}.key")
    return context


def _answers_of(topic: str) -> list[str]:
    return [answer_topic(topic, outcome) for outcome in Outcome]


def _check_accepted(found: str, asked: str, payload: bytes) -> None:
    if found != answer_topic(asked, Outcome.ACCEPTED):
        raise ValueError(f"not accepted: {payload[:300].decode(errors='replace')}")


def _first_of(chain: str) -> str:
    end = "-----END CERTIFICATE-----\n"
    return chain[: chain.index(end) + len(end)]
