"""Whether the new image does its work: only then is it committed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from device_client.update import commands
from device_client.update.codes import UpdateCode, UpdateRefused


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


@dataclass(frozen=True)
class OnlineCheck:
    """What is asked without a program: the device reaches its fleet, so it can be updated again."""

    online: asyncio.Event
    timeout_s: float

    async def pass_or_fail(self) -> None:
        """As `HealthCheck` says."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.online.wait()
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
