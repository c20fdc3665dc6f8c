"""Renewing and recovering at a desk, as the device that holds the keys."""

import base64
import hashlib
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from broker.core.campaign import (
    Campaign,
    CampaignId,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
)
from broker.core.records import Certificate, Reply
from broker.protocol import codec, limits
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import EnrollAccepted, RecoverRequest
from broker.protocol.names import DeviceId
from broker.protocol.statements import recovery_statement
from broker.protocol.topics import ClaimOrigin, DeviceOrigin
from tests.support.csrs import PrivateKey, csr_pem, der_of
from tests.support.desk import ORIGIN, Desk
from tests.support.operating import NOW
from tests.support.signing import renewal, sign


async def renew(
    desk: Desk,
    key: PrivateKey,
    device: str = "lamp-A1",
    by: PrivateKey | None = None,
    **changes: Any,
) -> Reply:
    """Asks for a certificate for `key`, by the key in use or the key `by`."""
    signing = by or await desk.key_in_use(device)
    request = renewal(signing, desk.keep(key), device, **{"request_id": "r3", **changes})
    return await desk.renewing.renew(DeviceOrigin(DeviceId(device)), request)


async def give_order(desk: Desk, version: int, device: str = "lamp-A1") -> None:
    """As a campaign does."""
    every = Selection(SelectionKind.ALL)
    campaign = Campaign(CampaignId(version), every, 60, None, NOW, NOW, NOW)
    row = Rotation(campaign.id, DeviceId(device), RotationState.ORDERED, version=version)
    await desk.write(("save_campaign", campaign), ("save_rotation", row))


async def recover(
    desk: Desk,
    old: PrivateKey,
    key: PrivateKey,
    certificate: Certificate,
    origin: ClaimOrigin = ORIGIN,
    **changes: Any,
) -> Reply:
    """Asks for a certificate for `key`, proving `certificate` by the key `old`."""
    csr = csr_pem(desk.keep(key))
    fields = {
        "request_id": "r4",
        "csr": csr,
        "certificate": certificate.pem,
        "signature": signature(old, "r4", csr),
    }
    return await desk.recovering.recover(origin, RecoverRequest(**{**fields, **changes}))


async def rotate(desk: Desk, key: PrivateKey, device: str = "lamp-A1") -> Certificate:
    """Renews and confirms; the new certificate as the registry has it then."""
    await renew(desk, key, device)
    newest = (await desk.certificates(device))[-1]
    await desk.confirm(device, newest.certificate_sha256)
    return (await desk.certificates(device))[-1]


def accepted(reply: Reply) -> EnrollAccepted:
    """The answer as the device reads it."""
    return codec.decode(reply.payload, EnrollAccepted, limits.MAX_ANSWER)


async def code_of(asking: Awaitable[object]) -> Code:
    """Why it's refused."""
    with pytest.raises(Refused) as refused:
        await asking
    return refused.value.code


def signature(key: PrivateKey, request_id: str, csr: str) -> str:
    """A recovery's signature by a key of any type, as the wire wants it."""
    statement = recovery_statement(request_id, hashlib.sha256(der_of(csr)).hexdigest())
    return base64.b64encode(sign(key, statement)).decode()


def self_signed(key: PrivateKey, name: str = "anybody") -> x509.Certificate:
    """Anybody can make one; the registry says whether it counts."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=90))
    plain = isinstance(key, ed25519.Ed25519PrivateKey)
    return builder.sign(key, None if plain else hashes.SHA256())
