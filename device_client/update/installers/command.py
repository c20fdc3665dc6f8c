"""Slots that programs of the device's own keep: U-Boot environments, vendor tools, anything.

Each program is an argv of the local configuration; `{image}`, `{path}`, `{sha256}`, `{version}` and
`{component}` stand in it for what is installed. No shell reads them.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from device_client import durable
from device_client.finishing import to_its_end
from device_client.update import commands
from device_client.update.images import Image
from device_client.update.installers.port import InstallFailed, free_bytes

Argv = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Programs:
    """What is run when; exit status 0 means done. Each must bear being run again."""

    install: Argv
    """Writes `{image}` into the inactive slot."""
    switch: Argv | None = None
    """Selects it; none if `install` does."""
    active: Argv | None = None
    """Prints the SHA-256 or version of what is selected; none if it can't be known, then the
    updater's own memory counts."""
    commit: Argv | None = None
    roll_back: Argv
    timeout_s: float = 600.0


class CommandSlots:
    """One component whose slots are behind programs; the image is staged in a directory."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self._directory = directory
        self._programs = programs

    async def staging(self, image: Image) -> Path:
        """As `Installer` says."""
        return await to_its_end(asyncio.to_thread(staged_in, self._directory, image))

    async def room(self) -> int:
        """As `Installer` says; of the slots themselves the programs know."""
        return free_bytes(self._directory)

    async def install(self, image: Image, file: Path) -> None:
        """As `Installer` says."""
        await self._run(self._programs.install, image, file)

    async def switch(self, image: Image) -> None:
        """As `Installer` says.

        Noted first: after a cut between the two, the image would be installed once more, over what
        ran before, since by then that is in the slot that isn't selected. The switch is repeated.
        """
        await to_its_end(asyncio.to_thread(self._remember, image))
        await self._run(self._programs.switch, image)

    async def runs(self, image: Image) -> bool:
        """As `Installer` says."""
        if self._programs.active is None:
            return await to_its_end(asyncio.to_thread(self._switched)) == image.target.sha256
        said = await self._run(self._programs.active, image)
        return said.strip() in (image.target.sha256, image.facts.version)

    async def commit(self, image: Image) -> None:
        """As `Installer` says."""
        await self._run(self._programs.commit, image)
        file = await self.staging(image)
        await to_its_end(asyncio.to_thread(durable.remove, file))

    async def roll_back(self, image: Image) -> None:
        """As `Installer` says."""
        await self._run(self._programs.roll_back, image)
        await to_its_end(asyncio.to_thread(self._forget))

    async def _run(self, argv: Argv | None, image: Image, file: Path | None = None) -> str:
        if argv is None:
            return ""
        words = {
            "{image}": str(file or self._directory / image.target.sha256),
            "{path}": image.target.path,
            "{sha256}": image.target.sha256,
            "{version}": image.facts.version,
            "{component}": image.facts.component,
        }
        try:
            done = await commands.run(
                [_filled(word, words) for word in argv], self._programs.timeout_s
            )
        except commands.CommandFailed as error:
            raise InstallFailed(str(error)) from error
        return done.text

    def _remember(self, image: Image) -> None:
        durable.replace_file(self._directory / "switched", image.target.sha256.encode())

    def _forget(self) -> None:
        durable.remove(self._directory / "switched")
        durable.sync_directory(self._directory)

    def _switched(self) -> str | None:
        try:
            return (self._directory / "switched").read_text("ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return None


def staged_in(directory: Path, image: Image) -> Path:
    """A file in the directory for the image; those of other images are gone."""
    durable.make_directory(directory)
    durable.remove_leftovers(directory)
    for file in directory.iterdir():
        if len(file.name) == len(image.target.sha256) and file.name != image.target.sha256:
            durable.remove(file)
    return directory / image.target.sha256


def _filled(word: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(name, value)
    return word
