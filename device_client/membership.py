"""How this device comes to a confirmed connection, and what it learns when it doesn't.

Every try is one walk along the same path (enroll if there is no identity, recover one that is over,
connect to the fleet, confirm) from whatever the disk holds, so a restart at any point is nothing
special.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from broker.protocol.codes import Code
from broker.protocol.names import SerialNumber
from broker.protocol.zones import Zone
from device_client import keys, retry
from device_client.conversations import Conversations, Line
from device_client.disk import on_disk
from device_client.enrollment import Enrollment
from device_client.errors import (
    BundleInvalid,
    CertificateRefused,
    DeviceError,
    KeyTooOld,
    RequestRejected,
    StateUnusable,
)
from device_client.expiry import Expiry
from device_client.identity import Identity
from device_client.keystore import Keystore
from device_client.online import Reconnect
from device_client.renewal import Succeeding
from device_client.status_note import Activity, StatusFile
from device_client.transport import Connection
from device_client.trials import Trials
from device_client.validity import leads_to

log = logging.getLogger(__name__)


class Membership:
    """Part of the agent, which repeats `proven` and passes on what it raised to `learn_from`."""

    def __init__(
        self,
        keystore: Keystore,
        status: StatusFile,
        conversations: Conversations,
        succeeding: Succeeding,
        trials: Trials,
    ) -> None:
        """All are the agent's."""
        self.last_error: DeviceError | None = None
        """Why it isn't connected; none while it is."""
        self.in_a_row = 0
        """How many errors of that kind there were without another between."""
        self.online_since: float | None = None
        """When the last connection was confirmed, by `time.monotonic`."""
        self._keystore = keystore
        self._status = status
        self._conversations = conversations
        self._timekeeper = conversations.timekeeper
        self._succeeding = succeeding
        self._trials = trials
        self._expiry = Expiry(conversations.timekeeper)
        self._doubted = False
        self._made_fresh_key = False
        self._tried: Identity | None = None

    @asynccontextmanager
    async def proven(self) -> AsyncIterator[tuple[Identity, Connection]]:
        """A connection to the fleet that this device's certificate has been confirmed on."""
        await on_disk(self._timekeeper.load)
        identity = self._tried = await self._identity()
        await on_disk(self._status.note, Activity.CONNECTING)
        async with self._conversations.at_fleet_broker(identity) as line:
            identity = await self._confirm(line, identity)
            log.info("connected to the fleet as %s", identity.device_id)
            self.last_error = None
            self.in_a_row = 0
            self._expiry.forget()
            self.online_since = time.monotonic()
            await on_disk(self._status.note, Activity.ONLINE, self._timekeeper.standing())
            yield identity, line.connection

    async def _identity(self) -> Identity:
        """The one to connect with, asked for in the claim zone if there is none that may do."""
        self._tried = None
        current = await on_disk(self._keystore.current)
        if current is None:
            return await self._enroll()
        if await on_disk(_is_rooted, current):
            self._timekeeper.not_before(current.not_before)
        successor = await on_disk(self._keystore.succession.successor)
        known = [one for one in (successor, current) if one]
        over = [one for one in known if self._expiry.is_certain(one)]
        chosen = self._trials.choose(current, successor, over)
        doubted, self._doubted = self._doubted, False
        if chosen in over:
            return await self._recover(over, current)
        # A broker doesn't always say why it refuses, and this clock may be behind.
        return await self._recover(known, current) if doubted else chosen

    async def _enroll(self) -> Identity:
        """Asks the claim zone with the kept key, and stores what it grants."""
        claim = await on_disk(self._remembered)
        serial, reading = SerialNumber(claim.serial), self._timekeeper.reading()
        pending = await on_disk(self._keystore.key_for_claim, serial, claim.key_type, reading)
        await on_disk(self._status.note, Activity.CLAIMING)
        try:
            grant = await self._conversations.enroll(claim, pending)
        except KeyTooOld:
            await self._replace_key()
            raise
        identity = await on_disk(self._keystore.install, grant, pending)
        log.info("accepted as %s until %s", identity.device_id, identity.not_after)
        return identity

    async def _recover(self, over: list[Identity], current: Identity) -> Identity:
        """Name and history go on; where that is refused, a claim may still be granted.

        Only the service knows which of two it saw proven last, so it's asked with each that is
        `over`, or may be. If `current` isn't, that goes on.
        """
        was_member = current.confirmed_at is not None and self._expiry.is_certain(current)
        await on_disk(self._status.note, Activity.RECOVERING)
        self._trials.recovering(current in over)
        claim = await on_disk(self._remembered)
        refusals = []
        for one in over:
            try:
                granted = await self._succeeding.recover(claim, one)
            except RequestRejected as refused:
                self._expiry.doubt(one)
                if not retry.may_claim_instead(refused.rejected.known_code):
                    raise
                log.warning("%s: %s %s", refused.stable_code, refused, refused.remedy)
                refusals.append(refused)
            else:
                self._trials.begin()
                return granted
        if current not in over:
            self._trials.recovery_refused()
            return current
        try:
            return await self._enroll()
        except RequestRejected as error:
            is_of_old_key = error.rejected.known_code is Code.KEY_IN_USE
            # An operator who reclaimed it expects another key.
            if was_member and not (is_of_old_key and not self._made_fresh_key):
                raise refusals[0] from error
            raise

    async def _confirm(self, line: Line, identity: Identity) -> Identity:
        if line.connection.is_provisional:
            # A new certificate is the only proof that this server's is still good.
            await self._succeeding.renew(line, identity)
            raise Reconnect
        try:
            await self._conversations.confirm(line, identity)
        except RequestRejected as error:
            if error.rejected.known_code is Code.CERTIFICATE_SUPERSEDED:
                await self._replace_superseded(line, identity)
            raise
        current = await on_disk(self._keystore.current)
        if current is None or current.directory != identity.directory:
            return await on_disk(
                self._keystore.succession.promote, identity, self._timekeeper.now()
            )
        if self._trials.current_works():
            log.warning("the broker refuses the next certificate only: it's given up")
            await on_disk(self._keystore.succession.drop, identity)
            self._trials.begin()
        if identity.confirmed_at is not None:
            return identity
        return await on_disk(self._keystore.confirm, identity, self._timekeeper.now())

    async def _replace_superseded(self, line: Line, identity: Identity) -> None:
        """A newer certificate was proven. If it's lost, this one is good for renewing once more."""
        if await on_disk(self._keystore.succession.successor) in (None, identity):
            await self._succeeding.renew(line, identity)
            raise Reconnect

    async def learn_from(self, error: DeviceError) -> bool:
        """Draws the error's consequence for what is stored; whether that calls for a new try."""
        same = self.last_error is not None and self.last_error.stable_code == error.stable_code
        self.in_a_row = self.in_a_row + 1 if same else 1
        self.last_error = error
        await on_disk(self._status.note_error, error, self._timekeeper.now())
        with suppress(StateUnusable):  # the next try meets the same disk, and reports it
            await on_disk(self._timekeeper.save)
            if self._tried is not None:
                successor = await on_disk(self._keystore.succession.successor)
                if successor is not None:
                    return await self._learn_of_two(error, self._tried, successor)
                if self._expiry.explains(error, self._tried):
                    return self._expiry.hear(self._tried)
            if isinstance(error, CertificateRefused) and error.zone is Zone.FLEET:
                self._doubted = self.in_a_row >= retry.TRIES_BEFORE_DOUBT
                return self.in_a_row == retry.TRIES_BEFORE_DOUBT
            if isinstance(error, KeyTooOld):
                return self.in_a_row == 1
            if isinstance(error, RequestRejected):
                return await self._learn_from_rejection(error.rejected.known_code)
        return False

    async def _learn_of_two(self, error: DeviceError, tried: Identity, successor: Identity) -> bool:
        """While there are two identities, the failure of one begins the turn of the other."""
        succession = self._keystore.succession
        current = await on_disk(self._keystore.current)
        is_over = self._expiry.explains(error, tried)
        if is_over:
            self._expiry.hear(tried)
        if isinstance(error, CertificateRefused):
            self._doubted = self.in_a_row >= 2 * retry.TRIES_BEFORE_DOUBT
        is_worthless = retry.is_worthless(error) and not is_over
        if tried == successor and current is not None:
            self._trials.successor_failed(error)
            if is_worthless:
                log.warning("the next certificate is given up")
                await on_disk(succession.drop, current)
                self._trials.begin()
            return False
        self._trials.current_failed(error)
        if current is None or is_worthless:
            await on_disk(succession.take_the_place_of_current)
        return False

    async def _learn_from_rejection(self, code: Code | None) -> bool:
        match code:
            case Code.CERTIFICATE_REVOKED:
                current = await on_disk(self._keystore.current)
                if current is not None:
                    await on_disk(self._keystore.discard_certificate, current)
                return self.in_a_row == 1
            case Code.CERTIFICATE_UNKNOWN:
                self._doubted = True
                return self.in_a_row == 1
            case Code.KEY_IN_USE if not self._made_fresh_key:
                self._made_fresh_key = True
                await self._replace_key()
                return True
            case Code.KEY_NOT_ALLOWED:
                return await self._change_key_type()
            case _:
                return False

    async def _replace_key(self) -> None:
        claim = await on_disk(self._remembered)
        serial = SerialNumber(claim.serial)
        reading = self._timekeeper.reading()
        await on_disk(self._keystore.new_key, serial, claim.key_type, reading)

    async def _change_key_type(self) -> bool:
        """The key kept may be of another type than is configured now; it was never certified."""
        claim = await on_disk(self._remembered)
        serial = SerialNumber(claim.serial)
        pending = await on_disk(self._keystore.key_for_claim, serial, claim.key_type)
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


def _is_rooted(identity: Identity) -> bool:
    return leads_to(identity.chain_file.read_text("ascii"), identity.trust_bundle.root)
