"""How the new image is started once its slot is selected."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from device_client.update import commands
from device_client.update.codes import UpdateCode, UpdateRefused

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Restart(Protocol):
    """Starts what is selected."""

    def run_id(self) -> str:
        """Differs after a restart that ended this very program."""

    async def perform(self) -> None:
        """Returns when what is selected runs; or never, if this program ends with it.

        Raises:
            UpdateRefused: INSTALL_FAILED.
        """


@dataclass(frozen=True)
class NoRestart:
    """Whatever uses the image looks at the link by itself."""

    def run_id(self) -> str:
        """Always the same."""
        return ""

    async def perform(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class ServiceRestart:
    """A program that restarts the services; this one stays."""

    argv: Sequence[str]
    timeout_s: float

    def run_id(self) -> str:
        """Always the same: after a crash the services are restarted once more."""
        return ""

    async def perform(self) -> None:
        """As `Restart` says."""
        try:
            await commands.run(self.argv, self.timeout_s)
        except commands.CommandFailed as error:
            raise UpdateRefused(UpdateCode.INSTALL_FAILED, str(error)) from error


@dataclass(frozen=True)
class Reboot:
    """A program that reboots the machine."""

    argv: Sequence[str]
    timeout_s: float
    boot_id: Path = _BOOT_ID

    def run_id(self) -> str:
        """The kernel's name for the time since the machine started."""
        return self.boot_id.read_text("ascii").strip()

    async def perform(self) -> None:
        """As `Restart` says; the machine has `timeout_s` to go down."""
        waiting = asyncio.Event()
        try:
            await commands.run(self.argv, self.timeout_s)
            async with asyncio.timeout(self.timeout_s):
                await waiting.wait()
        except commands.CommandFailed as error:
            raise UpdateRefused(UpdateCode.INSTALL_FAILED, str(error)) from error
        except TimeoutError as error:
            raise UpdateRefused(
                UpdateCode.INSTALL_FAILED, f"The machine didn't reboot in {self.timeout_s:g} s."
            ) from error
