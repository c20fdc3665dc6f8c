"""The duty to renew in good time, or when the service orders it.

The draws that spread a fleet are derived from the certificate, so that restarts don't move them.
"""

import asyncio
import logging
from datetime import datetime
from typing import Final

from broker.protocol import codec
from broker.protocol.codes import Refused
from broker.protocol.messages import RotationOrder
from broker.protocol.names import Fingerprint
from broker.protocol.topics import Desired, desired_topic
from device_client import retry, schedule
from device_client.backoff import Backoff
from device_client.conversations import Conversations
from device_client.disk import on_disk
from device_client.errors import ConnectionLost, DeviceError
from device_client.identity import Identity
from device_client.keystore import Keystore
from device_client.online import Online, Reconnect
from device_client.renewal import Succeeding
from device_client.status_note import StatusFile
from device_client.trials import Trials
from device_client.watching import Watch

log = logging.getLogger(__name__)

_LOOK_S: Final = 3600.0
"""How often to look at the clock, which may be set meanwhile."""


class RenewalDuty:
    """Has the successor granted when it's due, then the agent reconnect with it."""

    def __init__(
        self,
        keystore: Keystore,
        conversations: Conversations,
        trials: Trials,
        status: StatusFile,
        again: Backoff,
    ) -> None:
        """`again` gives the waiting times after a failure; the rest is the agent's."""
        self._keystore = keystore
        self._conversations = conversations
        self._succeeding = Succeeding(keystore, conversations)
        self._timekeeper = conversations.timekeeper
        self._trials = trials
        self._status = status
        self._again = again
        self._order: RotationOrder | None = None
        self._follow_at: datetime | None = None
        self._succeeded: Fingerprint | None = None
        """The certificate that a successor was granted for last."""

    async def perform(self, online: Online) -> None:
        """Until the successor is there, and is to be tried.

        Raises:
            Reconnect: it is.
            ConnectionLost: the connection ended.
            RequestRejected: the certificate is over for the service.
        """
        if await on_disk(self._keystore.succession.successor) is not None:
            # It was granted before and has failed since: the old one goes on for a while.
            await asyncio.sleep(self._again.next())
            self._trials.again()
            raise Reconnect
        if online.identity.certificate_sha256 == self._succeeded:
            await asyncio.sleep(self._again.next())  # that one was given up
        else:
            self._again.reset()
        topic = desired_topic(online.identity.device_id, Desired.ROTATION)
        async with online.connection.watch(topic) as watch:
            while True:
                await self._until_due(watch, online.identity)
                try:
                    await self._renew(online)
                except ConnectionLost:
                    raise
                except DeviceError as error:
                    if retry.says_expired(error):
                        raise  # this connection leads nowhere any more: recovery does
                    await self._put_off(error)
                else:
                    self._succeeded = online.identity.certificate_sha256
                    raise Reconnect

    async def _until_due(self, watch: Watch, identity: Identity) -> None:
        while True:
            await on_disk(self._timekeeper.save)
            due = self._due(identity)
            await on_disk(self._status.note_plan, due, self._timekeeper.standing())
            wait_s = (due - self._timekeeper.now()).total_seconds()
            if wait_s <= 0:
                return
            try:
                async with asyncio.timeout(min(wait_s, _LOOK_S)):
                    message = await watch.next()
            except TimeoutError:
                continue
            self._take(message.payload, identity)

    async def _renew(self, online: Online) -> None:
        line = await self._conversations.line_of(online.connection, online.identity)
        version = self._order.version if self._order is not None else 0
        await self._succeeding.renew(line, online.identity, version)

    async def _put_off(self, error: DeviceError) -> None:
        await on_disk(self._status.note_error, error, self._timekeeper.now())
        wait_s = self._again.next()
        log.warning("no renewal: %s: %s %s", error.stable_code, error, error.remedy)
        log.info("next try to renew in %.1f s", wait_s)
        await asyncio.sleep(wait_s)

    def _due(self, identity: Identity) -> datetime:
        """By the certificate's age, or sooner by an order that it doesn't follow yet."""
        by_age = schedule.planned(identity)
        if self._follow_at is None or self._order is None or self._order.version <= identity.order:
            return by_age
        return min(by_age, self._follow_at)

    def _take(self, payload: bytes, identity: Identity) -> None:
        """An order begins to count when it's first heard of; an empty message takes it back."""
        try:
            order = codec.decode(payload, RotationOrder) if payload else None
        except Refused as refused:
            log.warning("the rotation order can't be read: %s", refused)
            return
        if order == self._order:
            return
        self._order, self._follow_at = order, None
        if order is not None and order.version > identity.order:
            share = schedule.draw(identity, str(order.version))
            now = self._timekeeper.now()
            self._follow_at = schedule.spread(now, order.renew_by, share, order.ordered_at)
            log.info("ordered to renew by %s: at %s", order.renew_by, self._follow_at)
