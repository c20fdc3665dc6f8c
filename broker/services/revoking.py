"""Revoking one certificate inside a transaction; the CRL follows from the registry, and so does
the end of connections."""

from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.core.lifecycle import CertificateInput, DeviceInput, next_certificate_state
from broker.core.records import Certificate, Device, Event, EventKind, LockOut, RevocationReason
from broker.ports.registry import WriteTransaction
from broker.protocol.names import ClaimName

FLEET_CRL_WANTED = "crl.fleet.wanted"
"""Registry counter: raised with each revocation; the CRL in force says which value it covers."""
_BY_TIME: Final = {RevocationReason.SUPERSEDED, RevocationReason.NEVER_CONFIRMED}


def lock_out_of(certificate: Certificate, because: str, crl_wanted: int, now: datetime) -> LockOut:
    """Who copied the old key may be connected in the device's absence: a connection that was made
    with the certificate ends, and the device comes back with what it has else.

    Args:
        because: begins the id, so that each certificate has one of each kind.
    """
    return LockOut(
        id=f"{because}-{certificate.serial}",
        device_id=certificate.device_id,
        act=DeviceInput.CONFIRM,
        serials=(certificate.serial,),
        requested_at=now,
        crl_wanted=crl_wanted,
    )


def revoke_certificate(
    tx: WriteTransaction,
    device: Device,
    certificate: Certificate,
    reason: RevocationReason,
    now: datetime,
) -> None:
    """Marks it revoked with an audit event; one that lapsed gives its claim back, as often as the
    claim certificate has claims: each leaves a line on the CRL, which mustn't grow without end.

    It asks for a CRL, but for what time brings about: who revokes those asks for one for all.

    One that was replaced before it was proven doesn't: else the number of claims would bound
    nothing in a group that allows replacement.
    """
    has_lapsed = reason is RevocationReason.NEVER_CONFIRMED
    tx.save_certificate(
        replace(
            certificate,
            state=next_certificate_state(certificate.state, CertificateInput.REVOKE),
            revoked_at=now,
            revoked_for=reason,
        )
    )
    if has_lapsed and certificate.claim_name is not None:
        _give_back(tx, certificate.claim_name)
    if reason not in _BY_TIME:
        tx.raise_counter(FLEET_CRL_WANTED)
    tx.add_event(
        Event(
            at=now,
            kind=EventKind.CERTIFICATE_REVOKED,
            device_id=device.id,
            serial_number=device.serial,
            claim_name=certificate.claim_name,
            group=device.group,
            code=reason,
            detail=f"certificate {certificate.serial}",
        )
    )


def _give_back(tx: WriteTransaction, name: ClaimName) -> None:
    claim = tx.claim_certificate(name)
    lapses = tx.raise_counter(f"lapses.{name}")
    if claim is not None and lapses <= claim.max_claims:
        tx.count_claim(name, -1)
