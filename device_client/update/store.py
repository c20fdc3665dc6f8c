"""The trusted metadata on the disk: what no rollback may go behind.

    root.json, timestamp.json, snapshot.json, targets.json, …   as they came, byte for byte
    former-keys                                                 whose signatures say "revoked"

A file that is damaged counts as missing; `root.json` is then found anew from the flashed root.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from broker.protocol import limits
from device_client import durable

if TYPE_CHECKING:
    from device_client.update.trusted import FormerKeys


def file_name(role: str) -> str:
    """What a role's file is called, here and in the repository, without its version."""
    return f"{quote(role, safe='')}.json"


class MetadataStore:
    """A directory of its own; methods block on the disk."""

    def __init__(self, directory: Path, first_root: bytes | None) -> None:
        """`first_root` is the one that came flashed; none when it's in the directory already."""
        self._directory = directory
        self._first_root = first_root

    def open(self) -> None:
        """Makes the directory if need be, and removes what a power cut left."""
        durable.make_directory(self._directory)
        durable.remove_leftovers(self._directory)

    def roots(self) -> list[bytes]:
        """Where trust may begin, the newest first; more than one is for a damaged newest."""
        kept = self.read("root")
        return [root for root in (kept, self._first_root) if root is not None]

    def read(self, role: str) -> bytes | None:
        """A role's trusted metadata."""
        try:
            with (self._directory / file_name(role)).open("rb") as file:
                return file.read(limits.MAX_METADATA + 1)
        except FileNotFoundError:
            return None

    def write(self, role: str, data: bytes) -> None:
        """Keeps a role's metadata, now trusted."""
        durable.replace_file(self._directory / file_name(role), data)

    def former_keys(self) -> "FormerKeys":
        """Which keys were revoked; it explains refusals and decides none."""
        try:
            return msgspec.json.decode((self._directory / "former-keys").read_bytes(), type=_FORMER)
        except (FileNotFoundError, ValueError):  # not in UTF-8, or not in JSON
            return {}

    def write_former_keys(self, former: "FormerKeys") -> None:
        """Keeps which keys were revoked."""
        durable.replace_file(self._directory / "former-keys", msgspec.json.encode(former))


_FORMER = dict[str, frozenset[str]]
