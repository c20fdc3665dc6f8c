"""The agent: from a claim bundle to a confirmed member of the fleet, and connected from then on.

Every try is one walk along the same path (enroll if there is no identity, connect to the fleet,
confirm) from whatever the disk holds, so a restart at any point is nothing special.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from broker.protocol.codes import Code
from broker.protocol.names import SerialNumber
from broker.protocol.zones import Zone
from device_client import conversations, keys, retry, tls
from device_client.backoff import Backoff, no_sooner_than
from device_client.enrollment import Enrollment
from device_client.errors import (
    BundleInvalid,
    CertificateRefused,
    DeviceError,
    RequestRejected,
    StateUnusable,
    TimedOut,
)
from device_client.identity import Identity
from device_client.keystore import Keystore
from device_client.online import Duty, Online, live
from device_client.retry import Prospect
from device_client.settings import Timing
from device_client.status import Activity, StatusFile
from device_client.transport import Connection, connected

log = logging.getLogger(__name__)

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Agent:
    """One device. `keystore` is open for as long as this lives."""

    def __init__(
        self,
        keystore: Keystore,
        status: StatusFile,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        clock: Callable[[], datetime] = _utc_now,
        chance: Callable[[], float] = random.random,
        duties: Sequence[Duty] = (),
    ) -> None:
        """`clock` gives the time in UTC, `chance` numbers from 0 up to 1 for the jitter.

        The `duties` are performed by `run` on every connection to the fleet.
        """
        self._keystore = keystore
        self._status = status
        self._timing = timing
        self._clock = clock
        self._chance = chance
        self._duties = duties
        self._soon = Backoff(timing.backoff_base_s, timing.backoff_cap_s, chance)
        self._later = Backoff(timing.slow_base_s, timing.slow_cap_s, chance)
        self._last_error: DeviceError | None = None
        self._in_a_row = 0
        self._online_since: float | None = None
        self._doubted = False
        self._made_fresh_key = False

    async def claim(self, timeout_s: float | None = None, *, wait: bool = True) -> Identity:
        """Makes this device a confirmed member of the fleet, and returns who it is.

        A device that is one already only proves it once more. With `wait` unset it makes one try;
        otherwise it tries for `timeout_s` seconds (without end if none) what trying may help.

        Raises:
            DeviceError: the last reason why it isn't one.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._persist(
                    self._prove_membership, _when_hopeless if wait else _always
                )
        except TimeoutError as error:
            raise TimedOut(
                f"This device wasn't accepted within {timeout_s:g} s.", _remedy_of(self._last_error)
            ) from error

    async def run(self) -> None:
        """Becomes a member and stays connected to the fleet, until cancelled."""
        while True:
            await self._persist(self._stay_connected, _never)

    async def _persist(
        self, attempt: Callable[[], Awaitable[ResultT]], gives_up: Callable[[Prospect], bool]
    ) -> ResultT:
        """Repeats the attempt until it succeeds, or fails with a prospect that `gives_up`."""
        while True:
            try:
                return await attempt()
            except DeviceError as error:
                self._forget_old_failures()
                again_at_once = await self._learn_from(error)
                prospect = retry.prospect(error, self._in_a_row)
                if gives_up(prospect) and not again_at_once:
                    raise
                delay_s = 0.0 if again_at_once else self._delay(error, prospect)
                log.warning("%s: %s %s", error.stable_code, error, error.remedy)
            log.info("next try in %.1f s", delay_s)
            await asyncio.sleep(delay_s)

    async def _prove_membership(self) -> Identity:
        async with self._membership() as (identity, _):
            return identity

    async def _stay_connected(self) -> None:
        async with self._membership() as (identity, connection):
            await live(Online(identity, connection), self._duties)

    @asynccontextmanager
    async def _membership(self) -> AsyncIterator[tuple[Identity, Connection]]:
        """A connection to the fleet that this device's certificate has been confirmed on."""
        identity = await _on_disk(self._keystore.current)
        if identity is None or self._doubted or identity.not_after <= self._clock():
            self._doubted = False
            identity = await self._enroll()
        context = await _on_disk(tls.fleet_context, identity)
        address = conversations.fleet_address(identity, context, self._timing)
        self._status.note(Activity.CONNECTING)
        async with connected(address) as connection:
            identity = await self._confirm(connection, identity)
            log.info("connected to the fleet as %s", identity.device_id)
            self._last_error = None
            self._in_a_row = 0
            self._online_since = time.monotonic()
            self._status.note(Activity.ONLINE)
            yield identity, connection

    async def _enroll(self) -> Identity:
        """Asks the claim zone with the kept key, and stores what it grants."""
        claim = await _on_disk(self._remembered)
        serial = SerialNumber(claim.serial)
        pending = await _on_disk(self._keystore.key_for_claim, serial, claim.key_type)
        self._status.note(Activity.CLAIMING)
        grant = await conversations.enroll(claim, pending, self._timing, self._clock)
        identity = await _on_disk(self._keystore.install, grant, pending)
        log.info("accepted as %s until %s", identity.device_id, identity.not_after)
        return identity

    async def _confirm(self, connection: Connection, identity: Identity) -> Identity:
        await conversations.confirm(connection, identity, self._timing)
        if identity.confirmed_at is not None:
            return identity
        return await _on_disk(self._keystore.confirm, identity, self._clock())

    async def _learn_from(self, error: DeviceError) -> bool:
        """Draws the error's consequence for what is stored; whether that calls for a new try."""
        same = self._last_error is not None and self._last_error.stable_code == error.stable_code
        self._in_a_row = self._in_a_row + 1 if same else 1
        self._last_error = error
        self._status.note_error(error, self._clock())
        if isinstance(error, CertificateRefused) and error.zone is Zone.FLEET:
            self._doubted = self._in_a_row >= retry.TRIES_BEFORE_DOUBT
            return self._in_a_row == retry.TRIES_BEFORE_DOUBT
        if isinstance(error, RequestRejected):
            with suppress(StateUnusable):  # the next try meets the same disk, and reports it
                return await self._learn_from_rejection(error.rejected.known_code)
        return False

    async def _learn_from_rejection(self, code: Code | None) -> bool:
        match code:
            case Code.CERTIFICATE_REVOKED:
                current = await _on_disk(self._keystore.current)
                if current is not None:
                    await _on_disk(self._keystore.discard_certificate, current)
                return self._in_a_row == 1
            case Code.CERTIFICATE_UNKNOWN:
                self._doubted = True
                return self._in_a_row == 1
            case Code.KEY_IN_USE if not self._made_fresh_key:
                self._made_fresh_key = True
                await self._replace_key()
                return True
            case Code.KEY_NOT_ALLOWED:
                return await self._change_key_type()
            case _:
                return False

    async def _replace_key(self) -> None:
        claim = await _on_disk(self._remembered)
        serial = SerialNumber(claim.serial)
        await _on_disk(self._keystore.new_key, serial, claim.key_type)

    async def _change_key_type(self) -> bool:
        """The key kept may be of another type than is configured now; it was never certified."""
        claim = await _on_disk(self._remembered)
        serial = SerialNumber(claim.serial)
        pending = await _on_disk(self._keystore.key_for_claim, serial, claim.key_type)
        if keys.type_of(pending.key) is claim.key_type:
            return False
        await self._replace_key()
        return True

    def _remembered(self) -> Enrollment:
        claim = self._keystore.enrollment()
        if claim is None:
            raise BundleInvalid(
                "This device has no claim bundle.",
                "Run 'muster-device claim --bundle FILE' with the maker's bundle.",
            )
        return claim

    def _delay(self, error: DeviceError, prospect: Prospect) -> float:
        asked_s = error.rejected.retry_after_s if isinstance(error, RequestRejected) else None
        if asked_s is not None:
            return no_sooner_than(asked_s, self._chance)
        return (self._soon if prospect is Prospect.SOON else self._later).next()

    def _forget_old_failures(self) -> None:
        """After a connection that lasted; one that comes and goes must not be tried ever faster."""
        since, self._online_since = self._online_since, None
        if since is not None and time.monotonic() - since > self._timing.stable_s:
            self._soon.reset()
            self._later.reset()


async def _on_disk(work: Callable[P, ResultT], *args: P.args, **options: P.kwargs) -> ResultT:
    """What the disk-bound `work` returns, without blocking the event loop meanwhile."""
    try:
        return await asyncio.to_thread(work, *args, **options)
    except OSError as error:
        raise StateUnusable(
            f"The state can't be read or written: {error}.",
            "Make room on the disk, and see that this user owns the state directory.",
        ) from error


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
