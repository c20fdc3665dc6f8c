"""RAUC's slots (https://rauc.io): bundles for `rauc install`, which finds the inactive slot itself.

Tried against a stand-in for `rauc` that checks the argv: there is none on the machines where the
tests run.
"""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from device_client import durable
from device_client.update import commands
from device_client.update.finishing import to_its_end
from device_client.update.images import Image
from device_client.update.installers.command import staged_in
from device_client.update.installers.port import InstallFailed, free_bytes

_BEFORE: Final = "booted-before"


class _Status(msgspec.Struct):
    booted: str


class RaucSlots:
    """The system, as RAUC keeps it."""

    def __init__(self, directory: Path, rauc: str = "rauc", timeout_s: float = 1800.0) -> None:
        """`directory` takes the bundle and a note of which slot was booted before."""
        self._directory = directory
        self._rauc = rauc
        self._timeout_s = timeout_s

    async def staging(self, image: Image) -> Path:
        """As `Installer` says."""
        return await to_its_end(asyncio.to_thread(staged_in, self._directory, image))

    async def room(self) -> int:
        """As `Installer` says."""
        return free_bytes(self._directory)

    async def install(self, image: Image, file: Path) -> None:
        """As `Installer` says; RAUC checks its own signature, too, and selects the slot."""
        booted = await self._booted()
        await to_its_end(
            asyncio.to_thread(durable.replace_file, self._directory / _BEFORE, booted.encode())
        )
        await self._run("install", str(file))

    async def switch(self, image: Image) -> None:
        """As `Installer` says; `rauc install` has done it."""

    async def runs(self, image: Image) -> bool:
        """As `Installer` says: another slot was booted than before the installation."""
        try:
            before = await to_its_end(
                asyncio.to_thread((self._directory / _BEFORE).read_text, "utf-8")
            )
        except FileNotFoundError:
            return False
        return await self._booted() != before

    async def commit(self, image: Image) -> None:
        """As `Installer` says."""
        await self._run("status", "mark-good", "booted")
        for name in (_BEFORE, image.target.sha256):
            await to_its_end(asyncio.to_thread(durable.remove, self._directory / name))

    async def roll_back(self, image: Image) -> None:
        """As `Installer` says."""
        if await self.runs(image):
            await self._run("status", "mark-bad", "booted")
            await self._run("status", "mark-active", "other")
        else:
            await self._run("status", "mark-active", "booted")

    async def _booted(self) -> str:
        text = await self._run("status", "--output-format=json")
        try:
            return msgspec.json.decode(text, type=_Status).booted
        except msgspec.MsgspecError as error:
            raise InstallFailed(f"What 'rauc status' says can't be read: {error}") from error

    async def _run(self, *words: str) -> str:
        try:
            return (await commands.run([self._rauc, *words], self._timeout_s)).text
        except commands.CommandFailed as error:
            raise InstallFailed(str(error)) from error
