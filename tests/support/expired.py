"""Members whose certificates have ended, without waiting until one does."""

import asyncio
import shutil
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
from broker.composition.registries import open_registry
from device_client import answers, identity
from device_client.answers import Grant
from device_client.identity import Identity
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


async def sleep_past_expiry(stack: Stack, state: Path) -> None:
    """Every certificate in the state directory of a device that is off ended a minute ago."""
    for slot in sorted((state / "credentials").iterdir()):
        await asyncio.to_thread(_end_slot, stack, identity.read_slot(slot))


def _end_slot(stack: Stack, good: Identity) -> None:
    """The slot as before, with a certificate that is the same in all but its dates."""
    key_pem, old = identity.read_key(good.directory), identity.leaf_pem(good)
    ended = _ended(stack, x509.load_pem_x509_certificate(old.encode()))
    _rewrite(stack, ended)
    new = ended.public_bytes(Encoding.PEM).decode()
    grant = Grant(
        device_id=good.device_id,
        chain=good.chain_file.read_text("ascii").replace(old, new),
        certificate_sha256=answers.fingerprint(ended),
        fleet=good.fleet,
        trust_bundle=good.trust_bundle,
        not_before=ended.not_valid_before_utc,
        order=good.order,
    )
    shutil.rmtree(good.directory)
    good.directory.mkdir(0o700)
    identity.write_slot(good.directory, grant, good.serial, key_pem, good.origin)
    if good.confirmed_at is not None:
        identity.record_confirmation(identity.read_slot(good.directory), good.confirmed_at)


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
