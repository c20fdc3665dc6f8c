"""Replacing the infrastructure authority, step by step, as the operator's command does it.

The state is one file of the home, replaced whole; what follows from it is written after it, and the
registry's counters tell the service, which has the brokers read it. The same step again completes
what a kill has left.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.adapters.ca.bundles import read_trust_bundle
from broker.adapters.ca.files import read_file
from broker.adapters.ca.loading import load_signer
from broker.adapters.ca.server_files import put_in_place
from broker.adapters.ca.server_trust import (
    ServerTrust,
    read_server_trust,
    sign_bundle,
    write_server_trust,
)
from broker.adapters.ca.successor import make_infrastructure
from broker.authorities import RootKey, alone
from broker.core.ca_rollover import RolloverError
from broker.core.certificate_profile import BACKDATING
from broker.core.infrastructure_rollover import (
    ServerPhase,
    ServerRollover,
    begin_servers,
    reach,
)
from broker.core.infrastructure_rollover import cancel as cancel_rollover
from broker.core.infrastructure_rollover import finish as finish_rollover
from broker.core.records import Event, EventKind
from broker.installation import Installation
from broker.ports import ReadTransaction, Registry, WriteTransaction
from broker.services.crl import ClaimCrl
from broker.services.problems import Problem, ProblemCode
from broker.services.revoking import FLEET_CRL_WANTED
from broker.services.trust_bundles import published_version

SHOWN_AT_MOST: Final = 1000


@dataclass(frozen=True)
class ServerStanding:
    """How far it is, and whom the next steps would shut out."""

    rollover: ServerRollover | None
    version: int
    """The bundle's."""
    in_use_since: datetime | None
    """Since when the service gives it with every certificate; none when it doesn't yet."""
    left: int = 0
    """Devices that have proven no certificate that came with it."""
    devices: Sequence[str] = ()
    """The first of them."""
    claims: Sequence[str] = ()
    """Claim certificates that were flashed with an older one and may still claim."""


async def standing(installation: Installation, registry: Registry) -> ServerStanding:
    """How far it is."""
    trust = await asyncio.to_thread(read_server_trust, installation.home)
    now = installation.clock.now()
    return await registry.read(lambda tx: _standing(tx, trust, now))


async def start(installation: Installation, registry: Registry, root: RootKey) -> ServerStanding:
    """A new infrastructure authority, and a bundle that holds both.

    Raises:
        Problem: ROLLOVER_STATE.
        AuthorityError: a key isn't here or can't be opened.
    """
    with alone(installation):
        newest = await registry.read(published_version)
        await asyncio.to_thread(_start, installation, root, newest or 0)
        return await _tell(installation, registry)


async def move_broker(
    installation: Installation, registry: Registry, phase: ServerPhase, abandon: int
) -> ServerStanding:
    """The fleet's broker (FLEET) or the claim broker (CLAIM) changes to the new authority.

    Args:
        abandon: how many devices, or claim certificates, may be shut out by it.

    Raises:
        Problem: ROLLOVER_STATE, or DEVICES_LEFT when it would be more.
        AuthorityError: the new authority's key isn't here or can't be opened.
    """
    with alone(installation):
        stands = await standing(installation, registry)
        if stands.rollover is None or stands.rollover.phase is not phase:
            _check(stands, phase, abandon)
        await asyncio.to_thread(_reach, installation, phase)
        return await _tell(installation, registry)


async def finish(installation: Installation, registry: Registry, root: RootKey) -> ServerStanding:
    """A bundle that holds the new authority only, or, after `cancel`, the old one only.

    Raises:
        Problem: ROLLOVER_STATE.
        AuthorityError: the root's key isn't here or can't be opened.
    """
    with alone(installation):
        newest = await registry.read(published_version)
        await asyncio.to_thread(_end, installation, root, newest or 0, finish_rollover)
        return await _tell(installation, registry)


async def cancel(installation: Installation, registry: Registry, root: RootKey) -> ServerStanding:
    """Brokers serve with the old authority's certificates again; `finish` ends it. Where they never
    served with others it's over at once.

    Raises:
        Problem: ROLLOVER_STATE.
        AuthorityError: a key isn't here or can't be opened.
    """
    with alone(installation):
        newest = await registry.read(published_version)
        await asyncio.to_thread(_end, installation, root, newest or 0, cancel_rollover)
        return await _tell(installation, registry)


def _rollover(trust: ServerTrust | None) -> ServerRollover | None:
    return None if trust is None else trust.rollover


def _start(installation: Installation, root: RootKey, newest: int) -> None:
    home, now = installation.home, installation.clock.now()
    known = read_server_trust(home)
    if known is None or known.rollover.phase is not ServerPhase.INTRODUCED:
        rollover = _allowed(lambda: begin_servers(_rollover(known), now))
        signer = root.signer(home)
        successor = make_infrastructure(home, rollover.new, installation.passphrase, now)
        old = read_file(home.infrastructure_of(rollover.old).certificate)
        version = max(newest, read_trust_bundle(home).version) + 1
        bundle = sign_bundle(signer, version, [old, successor])
        # From this moment on claim bundles hold both.
        rollover = replace(rollover, since=installation.clock.now())
        known = ServerTrust(rollover=rollover, bundle=bundle)
        write_server_trust(home, known)
    put_in_place(home, known.rollover, installation.passphrase, now)


def _reach(installation: Installation, phase: ServerPhase) -> None:
    home = installation.home
    known = read_server_trust(home)
    rollover = _allowed(lambda: reach(_rollover(known), phase))
    if known is not None and known.rollover != rollover:
        load_signer(home.infrastructure_of(rollover.new), installation.passphrase)
        write_server_trust(home, ServerTrust(rollover=rollover, bundle=known.bundle))
    put_in_place(home, rollover, installation.passphrase, installation.clock.now())


def _end(
    installation: Installation,
    root: RootKey,
    newest: int,
    step: Callable[[ServerRollover | None], ServerRollover],
) -> None:
    home = installation.home
    known = read_server_trust(home)
    rollover = _allowed(lambda: step(_rollover(known)))
    if known is not None and known.rollover != rollover:
        bundle = known.bundle
        if rollover.is_over:
            signer = root.signer(home)
            anchors = [read_file(home.infrastructure_of(rollover.remaining).certificate)]
            bundle = sign_bundle(signer, max(newest, known.contents.version) + 1, anchors)
        load_signer(home.infrastructure_of(rollover.remaining), installation.passphrase)
        write_server_trust(home, ServerTrust(rollover=rollover, bundle=bundle))
    put_in_place(home, rollover, installation.passphrase, installation.clock.now())


async def _tell(installation: Installation, registry: Registry) -> ServerStanding:
    """The service has both brokers read their files when these counters have risen."""
    trust = await asyncio.to_thread(read_server_trust, installation.home)
    now = installation.clock.now()

    rollover = _rollover(trust)

    def work(tx: WriteTransaction) -> None:
        tx.raise_counter(FLEET_CRL_WANTED)
        tx.raise_counter(ClaimCrl.COUNTER)
        if rollover is not None:
            detail = f"infrastructure authority {rollover.new}"
            tx.add_event(Event(now, EventKind.CA_ROLLOVER, code=rollover.phase, detail=detail))

    await registry.write(work)
    # A large fleet isn't counted while others wait to write.
    return await registry.read(lambda tx: _standing(tx, trust, now))


def _standing(view: ReadTransaction, trust: ServerTrust | None, now: datetime) -> ServerStanding:
    if trust is None:
        return ServerStanding(None, 1, None)
    rollover, version = trust.rollover, trust.contents.version
    in_use = _in_use_since(view, version)
    if rollover.is_over or rollover.phase is ServerPhase.RETURNING:
        return ServerStanding(rollover, version, in_use)
    since = _introduced_at(view, rollover) or now
    from_then_on = since - BACKDATING
    left = view.count_not_renewed_since(from_then_on, now)
    devices = view.not_renewed_since(from_then_on, now, SHOWN_AT_MOST) if left else []
    claims = [
        claim.name
        for claim in view.claim_certificates()
        if claim.revoked_at is None
        and claim.not_after > now
        and claim.not_before < rollover.since - BACKDATING
    ]
    return ServerStanding(rollover, version, in_use, left, devices, claims)


def _in_use_since(view: ReadTransaction, version: int) -> datetime | None:
    published = view.bundle_publications()
    newest = max(published, default=0)
    return published[newest] if newest >= version else None


def _introduced_at(view: ReadTransaction, rollover: ServerRollover) -> datetime | None:
    """Since when every certificate comes with both anchors."""
    moments = [at for at in view.bundle_publications().values() if at >= rollover.since]
    return min(moments, default=None)


def _check(stands: ServerStanding, phase: ServerPhase, abandon: int) -> None:
    if stands.in_use_since is None:
        raise Problem(
            ProblemCode.ROLLOVER_STATE,
            "The service hasn't taken up the trust bundle yet.",
            "See that it runs, and try again.",
        )
    if phase is ServerPhase.FLEET and stands.left > abandon:
        raise Problem(
            ProblemCode.DEVICES_LEFT,
            f"{stands.left:,} devices may not know the new authority: they have proven no "
            "certificate that came with it.",
            "Have all devices renew with 'muster rotate start --all' and wait; or give them up "
            f"with --abandon {stands.left}.",
        )
    if phase is ServerPhase.CLAIM and len(stands.claims) > abandon:
        raise Problem(
            ProblemCode.DEVICES_LEFT,
            f"{len(stands.claims):,} claim certificates that may still claim were flashed with "
            f"bundles that don't name the new authority: {', '.join(stands.claims[:10])}.",
            "Wait until they have expired, revoke them with 'muster claim-cert revoke', or give "
            f"their devices up with --abandon {len(stands.claims)}.",
        )


def _allowed(step: Callable[[], ServerRollover]) -> ServerRollover:
    try:
        return step()
    except RolloverError as error:
        raise Problem(
            ProblemCode.ROLLOVER_STATE,
            f"That doesn't go now: {error}.",
            "See 'muster ca infrastructure status' for what comes next.",
        ) from error
