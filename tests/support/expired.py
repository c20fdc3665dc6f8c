"""Members whose certificates have ended, without waiting until one does."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.loading import load_signer
from broker.core.records import Certificate
from broker.ports import WriteTransaction
from broker.protocol.names import Fingerprint
from broker.registries import open_registry
from tests.support.members import Holder, join
from tests.support.stack import Stack

_AGO: Final = timedelta(minutes=1)


async def expired(stack: Stack, place: Path, serial: str) -> Holder:
    """A member whose certificate ended a minute ago, to its authority and to the registry.

    It joins with one that is good; the other is the same in all but its dates.
    """
    joined = await join(stack, place, serial)
    ended = await asyncio.to_thread(_ended, stack, joined.leaf)
    pem = ended.public_bytes(Encoding.PEM).decode()
    (record,) = [c for c in await stack.certificates() if c.pem == joined.pem]
    over = replace(
        record,
        not_before=ended.not_valid_before_utc,
        not_after=ended.not_valid_after_utc,
        certificate_sha256=Fingerprint(ended.fingerprint(hashes.SHA256()).hex()),
        pem=pem,
    )
    await _save(stack, over)
    return replace(joined, chain=joined.chain.replace(joined.pem, pem))


def _ended(stack: Stack, good: x509.Certificate) -> x509.Certificate:
    authority = load_signer(stack.home.operational, None)
    end = datetime.now(UTC).replace(microsecond=0) - _AGO
    builder = x509.CertificateBuilder(
        good.issuer,
        good.subject,
        good.public_key(),
        good.serial_number,
        end - (good.not_valid_after_utc - good.not_valid_before_utc),
        end,
        list(good.extensions),
    )
    return builder.sign(authority.key, good.signature_hash_algorithm)


async def _save(stack: Stack, certificate: Certificate) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.save_certificate(certificate)

    async with open_registry(stack.home, stack.installation.settings) as registry:
        await registry.write(work)
