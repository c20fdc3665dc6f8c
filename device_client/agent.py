"""The agent: from a claim bundle to a confirmed member of the fleet, and connected from then on.

It repeats what `membership` does until that succeeds, at a pace that suits why it did not.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, TypeVar

from device_client import retry
from device_client.backoff import Backoff, no_sooner_than
from device_client.conversations import Conversations
from device_client.disk import on_disk
from device_client.errors import (
    DeviceError,
    RenewalFailed,
    RequestRejected,
    TimedOut,
)
from device_client.identity import Identity
from device_client.keystore import Keystore
from device_client.membership import Membership
from device_client.online import Duty, Online, Reconnect, live
from device_client.renewal import Succeeding
from device_client.retry import Prospect
from device_client.rotation import RenewalDuty
from device_client.settings import Timing
from device_client.status_note import StatusFile
from device_client.timekeeping import CLOCK_FILE, Timekeeper
from device_client.trials import Trials
from device_client.trust import TrustDuty, TrustStore

log = logging.getLogger(__name__)

_RECONNECTS: Final = 3
"""So often at once; each costs the service a certificate."""

ResultT = TypeVar("ResultT")


def utc_now() -> datetime:
    """What the system's clock reads."""
    return datetime.now(UTC)


class Agent:
    """One device. `keystore` is open for as long as this lives."""

    def __init__(
        self,
        keystore: Keystore,
        status: StatusFile,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        clock: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
        duties: Sequence[Duty] = (),
        timekeeper: Timekeeper | None = None,
    ) -> None:
        """`clock` gives the time in UTC, `chance` numbers from 0 up to 1 for the jitter.

        `run` performs the `duties` on every connection; they may share the `timekeeper`."""
        self._keystore = keystore
        self._status = status
        self._timing = timing
        self._chance = chance
        self._timekeeper = timekeeper or Timekeeper(keystore.directory / CLOCK_FILE, clock)
        trust = TrustStore(keystore.directory)
        self._conversations = Conversations(timing, self._timekeeper, trust)
        self._succeeding = Succeeding(keystore, self._conversations)
        self._trials = Trials()
        self._soon = Backoff(timing.backoff_base_s, timing.backoff_cap_s, chance)
        self._later = Backoff(timing.slow_base_s, timing.slow_cap_s, chance)
        renewal_again = Backoff(timing.slow_base_s, timing.slow_cap_s, chance)
        renewal = RenewalDuty(keystore, self._conversations, self._trials, status, renewal_again)
        self._duties: Sequence[Duty] = (renewal, TrustDuty(trust), *duties)
        self._membership = Membership(
            keystore, status, self._conversations, self._succeeding, self._trials
        )
        self._reconnects = 0

    async def claim(self, timeout_s: float | None = None, *, wait: bool = True) -> Identity:
        """Makes this device a confirmed member of the fleet, and returns who it is.

        A device that is one already only proves it once more. With `wait` unset it makes one try;
        otherwise it tries for `timeout_s` seconds (without end if none) what trying may help.

        Raises:
            DeviceError: the last reason why it isn't one.
        """
        async with self._within(timeout_s):
            return await self._persist(self._prove_membership, _when_hopeless if wait else _always)

    async def renew(self, timeout_s: float | None = None) -> Identity:
        """Replaces the certificate of this member now, whatever its age, and proves the new one.

        Raises:
            DeviceError: the last reason why it isn't replaced.
        """
        async with self._within(timeout_s):
            old = await self._persist(self._renew_once, _when_hopeless)
            new = await self._persist(self._prove_successor, _when_hopeless)
        if new.certificate_sha256 == old.certificate_sha256:
            raise RenewalFailed(
                "The broker refuses the new certificate; the old one goes on.",
                "The operator sees what became of it with 'muster devices show'.",
            )
        return new

    async def run(self) -> None:
        """Becomes a member and stays connected to the fleet, until cancelled."""
        while True:
            await self._persist(self._stay_connected, _never)

    @asynccontextmanager
    async def _within(self, timeout_s: float | None) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            raise TimedOut(
                f"This device wasn't accepted within {timeout_s:g} s.",
                _remedy_of(self._membership.last_error),
            ) from error

    async def _persist(
        self, attempt: Callable[[], Awaitable[ResultT]], gives_up: Callable[[Prospect], bool]
    ) -> ResultT:
        """Repeats the attempt until it succeeds, or fails with a prospect that `gives_up`."""
        while True:
            try:
                return await attempt()
            except Reconnect:
                await self._reconnect()
                continue
            except DeviceError as error:
                self._forget_old_failures()
                again_at_once = await self._membership.learn_from(error)
                prospect = retry.prospect(error, self._membership.in_a_row)
                if gives_up(prospect) and not again_at_once:
                    raise
                delay_s = 0.0 if again_at_once else self._delay(error, prospect)
                log.warning("%s: %s %s", error.stable_code, error, error.remedy)
            log.info("next try in %.1f s", delay_s)
            await asyncio.sleep(delay_s)

    async def _reconnect(self) -> None:
        """At once, unless that has been in vain."""
        self._reconnects += 1
        if self._reconnects > _RECONNECTS:
            await asyncio.sleep(self._later.next())

    async def _prove_membership(self) -> Identity:
        async with self._membership.proven() as (identity, _):
            return identity

    async def _renew_once(self) -> Identity:
        async with self._membership.proven() as (identity, connection):
            line = await self._conversations.line_of(connection, identity)
            await self._succeeding.renew(line, identity)
            return identity

    async def _prove_successor(self) -> Identity:
        async with self._membership.proven() as (identity, _):
            if await on_disk(self._keystore.succession.successor) is None:
                return identity
        self._trials.again()
        raise Reconnect

    async def _stay_connected(self) -> None:
        async with self._membership.proven() as (identity, connection):
            self._reconnects = 0
            await live(Online(identity, connection), self._duties)

    def _delay(self, error: DeviceError, prospect: Prospect) -> float:
        asked_s = error.rejected.retry_after_s if isinstance(error, RequestRejected) else None
        if asked_s is not None:
            return no_sooner_than(asked_s, self._chance)
        return (self._soon if prospect is Prospect.SOON else self._later).next()

    def _forget_old_failures(self) -> None:
        """After a connection that lasted; one that comes and goes must not be tried ever faster."""
        since, self._membership.online_since = self._membership.online_since, None
        if since is not None and time.monotonic() - since > self._timing.stable_s:
            self._soon.reset()
            self._later.reset()


def _when_hopeless(prospect: Prospect) -> bool:
    return prospect is Prospect.NEVER


def _always(_: Prospect) -> bool:
    return True


def _never(_: Prospect) -> bool:
    return False


def _remedy_of(error: DeviceError | None) -> str:
    if error is None:
        return "Allow more time with --timeout."
    return f"The last obstacle was {error.stable_code}: {error} {error.remedy}"
