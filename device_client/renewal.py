"""Asking for the next certificate: renewal over the last one's connection, recovery by its key."""

import logging
from typing import Final

from broker.protocol.codes import Code
from device_client import keys
from device_client.answers import Grant
from device_client.conversations import Conversations, Line
from device_client.disk import on_disk
from device_client.enrollment import Enrollment
from device_client.errors import DeviceError, KeyTooOld, RequestRejected
from device_client.identity import Identity, Origin, read_key
from device_client.keys import KeyType
from device_client.keystore import Keystore
from device_client.succession import NextKey

log = logging.getLogger(__name__)

_ANOTHER_KEY: Final = {Code.KEY_IN_USE, Code.KEY_NOT_NEW, Code.KEY_RETIRED, Code.KEY_NOT_ALLOWED}
"""Refusals after which the kept key is of no use."""


class Succeeding:
    """Asks for the successor of an identity and stages it; the identity in use stays as it is."""

    def __init__(self, keystore: Keystore, conversations: Conversations) -> None:
        """Both are the agent's."""
        self._keystore = keystore
        self._conversations = conversations

    async def renew(self, line: Line, identity: Identity, order: int = 0) -> Identity:
        """In the fleet zone; `order` is the version of the rotation order that is followed.

        Raises:
            DeviceError: nothing was granted.
        """
        key = await self._key(identity)
        try:
            grant = await self._conversations.renew(line, identity, key, order)
        except DeviceError as error:
            await self._learn_from(error)
            raise
        return await self._staged(grant, identity, key, Origin.RENEWAL)

    async def recover(self, claim: Enrollment, expired: Identity) -> Identity:
        """In the claim zone, with the key of the expired certificate as the proof.

        Raises:
            DeviceError: nothing was granted.
        """
        key = await self._key(expired)
        try:
            grant = await self._conversations.recover(claim, expired, key)
        except DeviceError as error:
            await self._learn_from(error)
            raise
        return await self._staged(grant, expired, key, Origin.RECOVERY)

    async def _key(self, identity: Identity) -> NextKey:
        key_type = await on_disk(_key_type, self._keystore, identity)
        reading = self._conversations.timekeeper.reading()
        return await on_disk(self._keystore.succession.key_for, identity, key_type, reading)

    async def _staged(
        self, grant: Grant, identity: Identity, key: NextKey, origin: Origin
    ) -> Identity:
        successor = await on_disk(self._keystore.succession.stage, grant, identity, key, origin)
        log.info("the next certificate, by %s, ends at %s", origin, successor.not_after)
        return successor

    async def _learn_from(self, error: DeviceError) -> None:
        """The next request is made with another key where this one is of no use."""
        is_refused = (
            isinstance(error, RequestRejected) and error.rejected.known_code in _ANOTHER_KEY
        )
        if is_refused or isinstance(error, KeyTooOld):
            await on_disk(self._keystore.succession.forget_key)


def _key_type(keystore: Keystore, identity: Identity) -> KeyType:
    """Of the identity's next key: as configured, else as its last."""
    claim = keystore.enrollment_if_readable()
    if claim is not None:
        return claim.key_type
    return keys.type_of(keys.from_pem(read_key(identity.directory))) or KeyType.P256
