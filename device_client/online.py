"""The agent's connected life: a confirmed connection, and what is done while it lasts."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from device_client.errors import DeviceError, DutyFailed
from device_client.identity import Identity
from device_client.transport import Connection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Online:
    """A connection to the fleet, on which this identity's certificate has been confirmed."""

    identity: Identity
    connection: Connection


class Duty(Protocol):
    """Something to do as long as the device is connected."""

    async def perform(self, online: Online) -> None:
        """Runs while the connection lasts, and is cancelled at its end; it may return sooner.

        What it raises ends the connection, for itself and all others, and the agent makes a new
        one: so a duty deals with what goes wrong in its own field, and lets pass only what the
        connection is to blame for, or `Reconnect`.
        """


class Reconnect(Exception):
    """Raised by a duty to have the connection made anew at once, as another identity perhaps."""


async def live(online: Online, duties: Sequence[Duty]) -> None:
    """Performs the duties until the connection is lost, or one of them asks to reconnect.

    Raises:
        DeviceError: why it ended; ConnectionLost mostly, or DutyFailed for a fault in a duty.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            for duty in duties:
                tasks.create_task(duty.perform(online), name=type(duty).__name__)
            await online.connection.until_lost()
    except BaseExceptionGroup as group:
        _explain(group)


def _explain(group: BaseExceptionGroup[BaseException]) -> None:
    """Raises the one reason that counts most; returns when it's a wish to reconnect."""
    foreign = group.split((DeviceError, Reconnect))[1]
    if foreign is not None:
        log.error("a duty failed", exc_info=foreign)
        raise DutyFailed(f"A part of the agent failed: {foreign.exceptions[0]!r}.") from foreign
    if group.subgroup(Reconnect) is None:
        raise _first(group)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
