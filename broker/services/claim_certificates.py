"""Claim certificates, as an operator makes them and takes them back."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from broker.core.records import ClaimCertificate, Event, EventKind, RevocationReason
from broker.ports.authorities import Revocation
from broker.ports.brokers import CrlFile
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol.bundle import ClaimBundle, write_bundle
from broker.protocol.names import CertificateSerial, ClaimName, GroupName, is_issuable
from broker.services.crl import ClaimCrl
from broker.services.problems import Problem, ProblemCode, unknown_claim_certificate

CRL_NUMBER = "crl.claim.number"
"""Registry counter: the number of the claim CRL that was signed last."""


@dataclass(frozen=True)
class NewClaim:
    """A claim certificate that was just signed, in the bundle that alone holds its key."""

    bundle: ClaimBundle
    serial: CertificateSerial
    not_before: datetime
    not_after: datetime


class ClaimAuthority(Protocol):
    """Signs claim certificates and their CRL; its key may be out of reach. Blocks."""

    def issue(self, name: ClaimName, not_after: datetime, now: datetime) -> NewClaim:
        """A new key and its certificate; it never outlives the authority's own."""

    def sign_crl(self, revoked: Sequence[Revocation], number: int, now: datetime) -> bytes:
        """The claim zone's whole CRL file in PEM."""


class BundleFile(Protocol):
    """Where a bundle goes; it never replaces a file. Blocks."""

    def write(self, text: bytes) -> None:
        """Durable on return, and readable by its owner only."""

    def discard(self) -> None:
        """Takes back what `write` wrote."""


@dataclass(frozen=True)
class Wanted:
    """The claim certificate that the operator asks for."""

    name: str
    max_claims: int
    lifetime: timedelta


@dataclass(frozen=True)
class ClaimUse:
    """A claim certificate and the group that accepts it."""

    claim: ClaimCertificate
    group: GroupName | None


async def create(
    registry: Registry, clock: Clock, authority: ClaimAuthority, wanted: Wanted, file: BundleFile
) -> ClaimCertificate:
    """Signs it, writes its bundle, and registers it last: what isn't registered may not claim.

    Raises:
        Problem: NAME_INVALID, VALUE_INVALID or NAME_USED.
        Exception: what the authority or the file raised; then there is no bundle either.
    """
    name = _checked_name(wanted)
    await registry.read(lambda view: _refuse_used(view, name))
    now = clock.now()
    new = await asyncio.to_thread(authority.issue, name, now + wanted.lifetime, now)
    claim = ClaimCertificate(name, new.serial, new.not_before, new.not_after, wanted.max_claims)
    await asyncio.to_thread(file.write, write_bundle(new.bundle))
    try:
        await registry.write(lambda view: _register(view, claim, now))
    except BaseException:
        file.discard()
        raise
    return claim


async def uses(registry: Registry) -> list[ClaimUse]:
    """All claim certificates, by name."""

    def work(view: ReadTransaction) -> list[ClaimUse]:
        claims = sorted(view.claim_certificates(), key=lambda claim: claim.name)
        return [ClaimUse(claim, view.group_of_claim(claim.name)) for claim in claims]

    return await registry.read(work)


async def find(registry: Registry, name: str) -> ClaimUse:
    """One claim certificate.

    Raises:
        Problem: CLAIM_CERTIFICATE_UNKNOWN.
    """

    def work(view: ReadTransaction) -> ClaimUse:
        return ClaimUse(_known(view, name), view.group_of_claim(ClaimName(name)))

    return await registry.read(work)


async def revoke(
    registry: Registry, clock: Clock, name: str, reason: str | None = None
) -> ClaimCertificate:
    """From now on no claim with it is accepted; the claim broker's CRL is `publish_crl`'s.

    Doing it again changes nothing.

    Args:
        reason: why, in the operator's words, for the audit log.

    Raises:
        Problem: CLAIM_CERTIFICATE_UNKNOWN.
    """

    def work(view: WriteTransaction) -> ClaimCertificate:
        claim = _known(view, name)
        if claim.revoked_at is not None:
            return claim
        revoked = replace(claim, revoked_at=clock.now())
        view.save_claim_certificate(revoked)
        used = f"after {claim.claims} of {claim.max_claims} claims"
        view.add_event(
            Event(
                clock.now(),
                EventKind.CLAIM_CERTIFICATE_REVOKED,
                claim_name=claim.name,
                group=view.group_of_claim(claim.name),
                code=RevocationReason.OPERATOR,
                detail=f"{used}: {reason}" if reason else used,
            )
        )
        return revoked

    return await registry.write(work)


async def publish_crl(
    registry: Registry, clock: Clock, authority: ClaimAuthority, file: CrlFile
) -> int:
    """Signs the claim CRL from the registry and puts it in place; returns its number.

    Two operators may do so at once. Who finds that a higher number was given out meanwhile signs
    again: the file that stays is then never the older one.

    Raises:
        Exception: what the authority or the file raised; the CRL in force stays.
    """
    while (number := await _publish_once(registry, clock.now(), authority, file)) is None:
        pass
    return number


async def _publish_once(
    registry: Registry, now: datetime, authority: ClaimAuthority, file: CrlFile
) -> int | None:
    number, revoked = await registry.write(lambda view: _number_and_revoked(view, now))
    pem = await asyncio.to_thread(authority.sign_crl, revoked, number, now)
    await file.swap(pem, now)
    detail = f"claim number {number}, {len(revoked)} lines"
    event = Event(now, EventKind.CRL_PUBLISHED, detail=detail)
    is_newest = await registry.write(lambda view: _announce(view, number, event))
    return number if is_newest else None


def _checked_name(wanted: Wanted) -> ClaimName:
    if not is_issuable(wanted.name):
        raise Problem(
            ProblemCode.NAME_INVALID,
            f"{wanted.name[:80]!r} can't be the name of a claim certificate.",
            "Use 1 to 64 letters, digits, '_' or '-'; names beginning with 'muster-' are reserved.",
        )
    if wanted.max_claims < 1:
        raise Problem(
            ProblemCode.VALUE_INVALID,
            "A claim certificate must be good for one claim at least.",
            "Give --max-claims the number of devices in the batch, with a few to spare.",
        )
    return ClaimName(wanted.name)


def _refuse_used(view: ReadTransaction, name: ClaimName) -> None:
    if view.claim_certificate(name) is not None:
        raise Problem(
            ProblemCode.NAME_USED,
            f"There is, or was, a claim certificate called {name}.",
            "Choose another name: the audit log must tell batches apart for ever.",
        )


def _register(view: WriteTransaction, claim: ClaimCertificate, now: datetime) -> None:
    known = view.claim_certificate(claim.name)
    if known is not None and known.serial == claim.serial:
        return  # by this very work, whose commit was done although nobody heard of it
    _refuse_used(view, claim.name)
    view.save_claim_certificate(claim)
    detail = f"{claim.max_claims} claims until {claim.not_after:%Y-%m-%d}; serial {claim.serial}"
    view.add_event(
        Event(now, EventKind.CLAIM_CERTIFICATE_CREATED, claim_name=claim.name, detail=detail)
    )


def _known(view: ReadTransaction, name: str) -> ClaimCertificate:
    claim = view.claim_certificate(ClaimName(name))
    if claim is None:
        raise unknown_claim_certificate(name)
    return claim


def _number_and_revoked(view: WriteTransaction, now: datetime) -> tuple[int, list[Revocation]]:
    revoked = [
        Revocation(claim.serial, claim.revoked_at, RevocationReason.OPERATOR)
        for claim in view.claim_certificates()
        if claim.revoked_at is not None and now < claim.not_after
    ]
    return view.raise_counter(CRL_NUMBER), revoked


def _announce(view: WriteTransaction, number: int, event: Event) -> bool:
    """Tells the running service that the file has changed, unless a newer one is on its way."""
    if view.counter(CRL_NUMBER) != number:
        return False
    view.raise_counter(ClaimCrl.COUNTER)
    view.add_event(event)
    return True
