"""What devices were told is renewed for as long as it holds, so that one that was switched off for
months finds an assignment that hasn't expired.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.core.assigning import LIFETIME, RENEW_WITHIN
from broker.core.rollout import IN_FORCE, Rollout
from broker.core.rollout_offer import MAY_BE_TOLD
from broker.core.update_records import GivenAssignment
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol import codec
from broker.protocol.topics import Desired, desired_topic
from broker.protocol.updates import SignedAssignment
from broker.services.assignment_signing import AssignmentSigner, Signed, retain

_PAGE: Final = 500
"""In one transaction."""
_LOOK_FOR_FORMER_S: Final = 60.0


class AssignmentRenewal:
    """Signs and commits; `services/retained.py` publishes."""

    def __init__(self, registry: Registry, signer: AssignmentSigner, clock: Clock) -> None:
        self._registry = registry
        self._signer = signer
        self._clock = clock
        self._looked_for_former_s: float | None = None

    async def renew(self) -> int:
        """Renews what still holds and expires soon, or was signed by a former director's key, which
        devices don't heed any more; returns how many that were."""
        now = self._clock.now()
        within = LIFETIME if await self._holds_former() else RENEW_WITHIN
        expiring = await self._registry.read(
            lambda view: view.expiring_assignments(now + within, _PAGE)
        )
        if not expiring:
            return 0
        holding = await self._registry.read(lambda view: _holding(view, expiring))
        renewed = [
            (replace(each, issued_at=now, expires=each.expires - each.issued_at + now), rollout)
            for each, rollout in holding
        ]
        signed = await self._signer.sign_all(renewed)
        return await self._registry.write(lambda tx: _renew(tx, expiring, signed, now))

    async def _holds_former(self) -> bool:
        """Whether the oldest of what still holds was signed by a key that root doesn't name now.

        What is newer was signed later, so the oldest speaks for all.
        """
        now_s = self._clock.monotonic()
        looked_s = self._looked_for_former_s
        if looked_s is not None and now_s - looked_s < _LOOK_FOR_FORMER_S:
            return False
        named = await asyncio.to_thread(self._signer.directors)
        latest = self._clock.now() + LIFETIME
        signers = await self._registry.read(lambda view: _oldest_signers(view, latest))
        if not named or not signers or signers & named:
            self._looked_for_former_s = now_s
            return False
        return True


def _oldest_signers(view: ReadTransaction, latest: datetime) -> frozenset[str]:
    """The ids of the keys that signed it; none when nothing holds."""
    for each in view.expiring_assignments(latest, _PAGE):
        found = view.retained(desired_topic(each.device_id, Desired.UPDATE))
        if found is not None and found.payload:
            signed = codec.decode(found.payload, SignedAssignment, len(found.payload))
            return frozenset(one.keyid for one in signed.signatures)
    return frozenset()


def _holding(
    view: ReadTransaction, expiring: Sequence[GivenAssignment]
) -> list[tuple[GivenAssignment, Rollout]]:
    holding = []
    for each in expiring:
        rollout = view.rollout(each.rollout)
        part = view.part(each.rollout, each.device_id)
        device = view.device(each.device_id)
        if rollout is None or part is None or device is None or device.state not in MAY_BE_TOLD:
            continue
        if part.sequence == each.sequence and part.progress in IN_FORCE:
            holding.append((each, rollout))
    return holding


def _renew(
    tx: WriteTransaction,
    expiring: Sequence[GivenAssignment],
    signed: Sequence[Signed],
    now: datetime,
) -> int:
    renewed = {(each.given.device_id, each.given.sequence): each for each in signed}
    told = []
    for old in expiring:
        fresh = tx.given_assignment(old.device_id, old.sequence)
        if fresh is None or fresh.settled_at is not None:
            continue
        new = renewed.get((old.device_id, old.sequence))
        tx.save_assignment(replace(fresh, settled_at=now) if new is None else new.given)
        if new is not None:
            told.append(new)
    retain(tx, told)
    return len(told)
