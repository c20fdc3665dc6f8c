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

from broker.adapters.ca.building import Signer
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
from broker.operating.authorities import RootKey, alone
from broker.operating.installation import Installation
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.services.crl import ClaimCrl
from broker.services.problems import Problem, ProblemCode
from broker.services.revoking import FLEET_CRL_WANTED
from broker.services.trust_bundles import published_version

SHOWN_AT_MOST: Final = 1000

_Ending = Callable[[ServerRollover | None], ServerRollover]


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


async def start(
    installation: Installation, registry: Registry, root: RootKey, *, dry_run: bool = False
) -> ServerStanding:
    """A new infrastructure authority, and a bundle that holds both.

    Args:
        root: where the root's key is.
        dry_run: whether to decide only, and open the keys; then it's how it would stand.

    Raises:
        Problem: ROLLOVER_STATE.
        AuthorityError: a key isn't here or can't be opened.
    """
    if dry_run:
        return await _planned(installation, registry, lambda: _starting(installation, root))
    with alone(installation):
        newest = await registry.read(published_version)
        await asyncio.to_thread(_start, installation, root, newest or 0)
        return await _tell(installation, registry)


async def move_broker(
    installation: Installation,
    registry: Registry,
    phase: ServerPhase,
    abandon: int,
    *,
    dry_run: bool = False,
) -> ServerStanding:
    """The fleet's broker (FLEET) or the claim broker (CLAIM) changes to the new authority.

    Args:
        abandon: how many devices, or claim certificates, may be shut out by it.
        dry_run: as for `start`.

    Raises:
        Problem: ROLLOVER_STATE, or DEVICES_LEFT when it would be more.
        AuthorityError: the new authority's key isn't here or can't be opened.
    """
    if dry_run:
        await _check(installation, registry, phase, abandon)
        return await _planned(installation, registry, lambda: _reaching(installation, phase))
    with alone(installation):
        await _check(installation, registry, phase, abandon)
        await asyncio.to_thread(_reach, installation, phase)
        return await _tell(installation, registry)


async def finish(
    installation: Installation, registry: Registry, root: RootKey, *, dry_run: bool = False
) -> ServerStanding:
    """A bundle that holds the new authority only, or, after `cancel`, the old one only.

    Args:
        root: where the root's key is.
        dry_run: as for `start`.

    Raises:
        Problem: ROLLOVER_STATE.
        AuthorityError: the root's key isn't here or can't be opened.
    """
    return await _end_by(installation, registry, root, finish_rollover, dry_run=dry_run)


async def cancel(
    installation: Installation, registry: Registry, root: RootKey, *, dry_run: bool = False
) -> ServerStanding:
    """Brokers serve with the old authority's certificates again; `finish` ends it. Where they never
    served with others it's over at once.

    Args:
        root: where the root's key is.
        dry_run: as for `start`.

    Raises:
        Problem: ROLLOVER_STATE.
        AuthorityError: a key isn't here or can't be opened.
    """
    return await _end_by(installation, registry, root, cancel_rollover, dry_run=dry_run)


async def _end_by(
    installation: Installation, registry: Registry, root: RootKey, step: _Ending, *, dry_run: bool
) -> ServerStanding:
    if dry_run:
        return await _planned(installation, registry, lambda: _ended(installation, root, step)[0])
    with alone(installation):
        newest = await registry.read(published_version)
        await asyncio.to_thread(_end, installation, root, newest or 0, step)
        return await _tell(installation, registry)


async def _planned(
    installation: Installation, registry: Registry, decide: Callable[[], ServerRollover]
) -> ServerStanding:
    """How it would stand, and whom it would concern as it stands now."""
    rollover = await asyncio.to_thread(decide)
    return replace(await standing(installation, registry), rollover=rollover)


def _rollover(trust: ServerTrust | None) -> ServerRollover | None:
    return None if trust is None else trust.rollover


def _starting(installation: Installation, root: RootKey) -> ServerRollover:
    """The rollover that is begun, or has begun already; the root's key is there, if it's needed."""
    known = read_server_trust(installation.home)
    if known is not None and known.rollover.phase is ServerPhase.INTRODUCED:
        return known.rollover
    rollover = _allowed(lambda: begin_servers(_rollover(known), installation.clock.now()))
    root.signer(installation.home)
    return rollover


def _start(installation: Installation, root: RootKey, newest: int) -> None:
    home, now = installation.home, installation.clock.now()
    known = read_server_trust(home)
    rollover = _starting(installation, root)
    if known is None or known.rollover != rollover:
        signer = root.signer(home)
        successor = make_infrastructure(home, rollover.new, installation.passphrase, now)
        old = read_file(home.infrastructure_of(rollover.old).certificate)
        version = max(newest, read_trust_bundle(home).version) + 1
        bundle = sign_bundle(signer, version, [old, successor])
        # From this moment on claim bundles hold both.
        rollover = replace(rollover, since=installation.clock.now())
        write_server_trust(home, ServerTrust(rollover=rollover, bundle=bundle))
    put_in_place(home, rollover, installation.passphrase, now)


def _reaching(installation: Installation, phase: ServerPhase) -> ServerRollover:
    """The rollover in this phase; the new authority's key is there, if it's needed."""
    known = read_server_trust(installation.home)
    rollover = _allowed(lambda: reach(_rollover(known), phase))
    if known is not None and known.rollover != rollover:
        load_signer(installation.home.infrastructure_of(rollover.new), installation.passphrase)
    return rollover


def _reach(installation: Installation, phase: ServerPhase) -> None:
    home = installation.home
    known = read_server_trust(home)
    rollover = _reaching(installation, phase)
    if known is not None and known.rollover != rollover:
        write_server_trust(home, ServerTrust(rollover=rollover, bundle=known.bundle))
    put_in_place(home, rollover, installation.passphrase, installation.clock.now())


def _ended(
    installation: Installation, root: RootKey, step: _Ending
) -> tuple[ServerRollover, Signer | None]:
    """The rollover after the step; what signs the last bundle, when it ends by it."""
    home = installation.home
    known = read_server_trust(home)
    rollover = _allowed(lambda: step(_rollover(known)))
    if known is None or known.rollover == rollover:
        return rollover, None
    signer = root.signer(home) if rollover.is_over else None
    load_signer(home.infrastructure_of(rollover.remaining), installation.passphrase)
    return rollover, signer


def _end(installation: Installation, root: RootKey, newest: int, step: _Ending) -> None:
    home = installation.home
    known = read_server_trust(home)
    rollover, signer = _ended(installation, root, step)
    if known is not None and known.rollover != rollover:
        bundle = known.bundle
        if signer is not None:
            anchors = [read_file(home.infrastructure_of(rollover.remaining).certificate)]
            bundle = sign_bundle(signer, max(newest, known.contents.version) + 1, anchors)
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


async def _check(
    installation: Installation, registry: Registry, phase: ServerPhase, abandon: int
) -> None:
    """Returns when the step shuts no more out than that, or was done before."""
    stands = await standing(installation, registry)
    if stands.rollover is None or stands.rollover.phase is not phase:
        _refuse_shutting_out(stands, phase, abandon)


def _refuse_shutting_out(stands: ServerStanding, phase: ServerPhase, abandon: int) -> None:
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
