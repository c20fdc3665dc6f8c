"""Members whose certificates have ended, without waiting until one does."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.file_authority import serial_of
from broker.adapters.ca.loading import load_signer
from broker.adapters.registry.engine import writing_engine
from broker.adapters.registry.moments import stored
from broker.adapters.registry.schema import CERTIFICATE
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
    await asyncio.to_thread(_rewrite, stack, ended)
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
    return builder.sign(authority.key, hashes.SHA256())


def _rewrite(stack: Stack, ended: x509.Certificate) -> None:
    """What the registry never does: what a certificate says of itself doesn't change."""
    engine = writing_engine(open_registry(stack.home, stack.installation.settings).url)
    changed = CERTIFICATE.update().where(CERTIFICATE.c.serial == serial_of(ended))
    values = {
        "not_before": stored(ended.not_valid_before_utc),
        "not_after": stored(ended.not_valid_after_utc),
        "certificate_sha256": ended.fingerprint(hashes.SHA256()).hex(),
        "pem": ended.public_bytes(Encoding.PEM).decode(),
    }
    with engine.begin() as connection:
        assert connection.execute(changed.values(values)).rowcount == 1
    engine.dispose()
