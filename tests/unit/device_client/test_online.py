"""The connected life: duties run together, and each may end it for all."""

import asyncio
from typing import cast

import pytest

from device_client.errors import ConnectionLost, DutyFailed, NoAnswer
from device_client.identity import Identity
from device_client.online import Duty, Online, Reconnect, live
from device_client.transport import Connection


class FakeConnection:
    """Lost when the test says so."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    async def until_lost(self) -> None:
        await self.lost.wait()
        raise ConnectionLost("gone")


class Lasting:
    """A duty without end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = False

    async def perform(self, online: Online) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


class Raising:
    """A duty that fails at once."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def perform(self, online: Online) -> None:
        raise self.error


class Done:
    """A duty that has nothing to do."""

    async def perform(self, online: Online) -> None:
        pass


def online(connection: FakeConnection) -> Online:
    return Online(cast(Identity, None), cast(Connection, connection))


async def test_duties_run_until_the_connection_is_lost() -> None:
    connection, duties = FakeConnection(), [Lasting(), Lasting()]
    life = asyncio.create_task(live(online(connection), [*duties, Done()]))
    for duty in duties:
        await duty.begun.wait()
    connection.lost.set()
    with pytest.raises(ConnectionLost):
        await life
    assert all(duty.cancelled for duty in duties)


async def test_a_wish_to_reconnect_ends_it_in_good_order() -> None:
    lasting = Lasting()
    await live(online(FakeConnection()), [lasting, Raising(Reconnect())])
    assert lasting.cancelled


@pytest.mark.parametrize(
    ("duty", "expected"),
    [(Raising(NoAnswer("silent")), NoAnswer), (Raising(ZeroDivisionError()), DutyFailed)],
)
async def test_what_a_duty_raises_ends_it(duty: Duty, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        await live(online(FakeConnection()), [duty])


async def test_cancellation_reaches_the_duties() -> None:
    lasting = Lasting()
    life = asyncio.create_task(live(online(FakeConnection()), [lasting]))
    await lasting.begun.wait()
    life.cancel()
    with pytest.raises(asyncio.CancelledError):
        await life
    assert lasting.cancelled
