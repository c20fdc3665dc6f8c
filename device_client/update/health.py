"""Whether the new image does its work: only then is it committed."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from device_client.errors import ConnectionLost
from device_client.transport import Connection
from device_client.update import commands
from device_client.update.codes import UpdateCode, UpdateRefused

_AGAIN_S: Final = 0.2


class HealthCheck(Protocol):
    """What decides on a trial."""

    async def pass_or_fail(self) -> None:
        """Returns when all is well.

        Raises:
            UpdateRefused: HEALTH_FAILED or HEALTH_TIMED_OUT.
        """


@dataclass(frozen=True)
class CommandCheck:
    """A program of the device's own: exit status 0 in time means well."""

    argv: Sequence[str]
    timeout_s: float

    async def pass_or_fail(self) -> None:
        """As `HealthCheck` says."""
        try:
            await commands.run(self.argv, self.timeout_s)
        except commands.CommandTimedOut as error:
            raise UpdateRefused(UpdateCode.HEALTH_TIMED_OUT, str(error)) from error
        except commands.CommandFailed as error:
            raise UpdateRefused(UpdateCode.HEALTH_FAILED, str(error)) from error


class Line:
    """The device's connection to its fleet, as it comes and goes."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        """None while there isn't any."""
        self._is_up = asyncio.Event()

    @contextmanager
    def up(self, connection: Connection) -> Iterator[None]:
        """It's this one, for the block."""
        self.connection = connection
        self._is_up.set()
        try:
            yield
        finally:
            self.connection = None
            self._is_up.clear()

    async def prove(self) -> None:
        """Returns when the fleet has answered what was asked after the call, however long that
        takes: a connection from before may be dead, and nobody has noticed."""
        while True:
            await self._is_up.wait()
            with suppress(ConnectionLost):
                if self.connection is not None:
                    return await self.connection.ping()
            await asyncio.sleep(_AGAIN_S)


@dataclass(frozen=True)
class OnlineCheck:
    """What is asked without a program: the device reaches its fleet, so it can be updated again."""

    line: Line
    timeout_s: float

    async def pass_or_fail(self) -> None:
        """As `HealthCheck` says."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.line.prove()
        except TimeoutError as error:
            raise UpdateRefused(
                UpdateCode.HEALTH_TIMED_OUT,
                f"The fleet wasn't reached within {self.timeout_s:g} s after the switch.",
            ) from error


@dataclass(frozen=True)
class Both:
    """Well in every respect."""

    checks: Sequence[HealthCheck]

    async def pass_or_fail(self) -> None:
        """As `HealthCheck` says."""
        for check in self.checks:
            await check.pass_or_fail()
