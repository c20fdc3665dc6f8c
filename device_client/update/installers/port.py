"""What the updater needs of whatever holds a component's images."""

import os
from pathlib import Path
from typing import Final, Protocol

from device_client.update.images import Image

MARGIN: Final = 1 << 20
"""Bytes that stay free for the journal, so that a full disk doesn't end in a standstill."""


class InstallFailed(Exception):
    """The image couldn't be put into the slot, or the slot couldn't be selected."""


class Installer(Protocol):
    """The slots of one component. Every method may be repeated after a crash with the same effect.

    What runs goes on running until `switch`, and can be had back until `commit`. Methods raise
    InstallFailed, or OSError from the disk.
    """

    async def staging(self, image: Image) -> Path:
        """Where the image is streamed to, in a directory that is there; what was streamed there of
        the same image before is kept, all else is gone."""

    async def room(self) -> int:
        """Bytes that are free for images."""

    async def install(self, image: Image, file: Path) -> None:
        """Makes the inactive slot hold the image, on the disk; `file` has just been verified."""

    async def switch(self, image: Image) -> None:
        """The slot with the image is the one that runs after a restart."""

    async def runs(self, image: Image) -> bool:
        """Whether the image is selected; not so if the boot loader went back on its own."""

    async def commit(self, image: Image) -> None:
        """The image has proven itself."""

    async def roll_back(self, image: Image) -> None:
        """What was selected before the switch is selected again; nothing if it's so already."""


def free_bytes(directory: Path) -> int:
    """What this user may still write below the directory."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
