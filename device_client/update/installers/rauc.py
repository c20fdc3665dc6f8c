"""RAUC's slots (https://rauc.io): bundles for `rauc install`, which finds the inactive slot itself.

Tried against a stand-in for `rauc` that checks the argv: there is none on the machines where the
tests run.
"""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from device_client import durable
from device_client.finishing import to_its_end
from device_client.update import commands
from device_client.update.images import Image
from device_client.update.installers.command import staged_in
from device_client.update.installers.port import InstallFailed, free_bytes

_NOTE: Final = "installation"


class _Status(msgspec.Struct):
    booted: str


class _Installation(msgspec.Struct, frozen=True):
    """The last one; kept until the next, so that what was asked before is answered the same."""

    sha256: str
    booted_before: str


class RaucSlots:
    """The system, as RAUC keeps it."""

    def __init__(self, directory: Path, rauc: str = "rauc", timeout_s: float = 1800.0) -> None:
        """`directory` takes the bundle, and a note of what was installed last."""
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
        noted = _Installation(image.target.sha256, await self._booted())
        content = msgspec.json.encode(noted)
        await to_its_end(asyncio.to_thread(durable.replace_file, self._directory / _NOTE, content))
        await self._run("install", str(file))

    async def switch(self, image: Image) -> None:
        """As `Installer` says; `rauc install` has done it."""

    async def runs(self, image: Image) -> bool:
        """As `Installer` says: it was installed last, and another slot is booted than before."""
        last = await to_its_end(asyncio.to_thread(self._last))
        if last is None or last.sha256 != image.target.sha256:
            return False
        return await self._booted() != last.booted_before

    async def commit(self, image: Image) -> None:
        """As `Installer` says."""
        await self._run("status", "mark-good", "booted")
        await to_its_end(asyncio.to_thread(durable.remove, self._directory / image.target.sha256))

    async def roll_back(self, image: Image) -> None:
        """As `Installer` says."""
        if await self.runs(image):
            await self._run("status", "mark-bad", "booted")
            await self._run("status", "mark-active", "other")
        else:
            await self._run("status", "mark-active", "booted")

    def _last(self) -> _Installation | None:
        try:
            content = (self._directory / _NOTE).read_bytes()
            return msgspec.json.decode(content, type=_Installation)
        except (FileNotFoundError, ValueError):  # not in UTF-8, or not in JSON
            return None

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
