"""What an update may be put into: folders, programs' slots, RAUC's; each with its stand-ins."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from device_client import durable
from device_client.update.commands import CommandFailed, Output
from device_client.update.installers.command import CommandSlots, Programs
from device_client.update.installers.directory import DirectorySlots
from device_client.update.installers.port import Installer
from device_client.update.installers.rauc import RaucSlots
from device_client.update.restarting import NoRestart, Restart
from tests.support.updating import FACTORY

PLAIN: Final = b"a better meter"
_BOOTS = count(1)


def _archive() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("bin", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, content in (("bin/agent", PLAIN), ("etc/settings", b"on = true")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("etc/agent")
        link.type, link.linkname = tarfile.SYMTYPE, "../bin/agent"
        tar.addfile(link)
    return made.getvalue()


ARCHIVE: Final = _archive()
_TREE: Final = {"bin/agent": PLAIN, "etc/settings": b"on = true", "etc/agent": PLAIN}


class Slots:
    """One component's slots in `home`, as it leaves the factory and later: folders."""

    path = "meter/2.0.0/image"
    image = PLAIN

    def __init__(self, home: Path) -> None:
        self.home = home
        self.restart: Restart = NoRestart()

    def flash(self) -> None:
        """What the factory does, on the disk."""
        slot = self.home / "main" / "slots" / "factory"
        for folder in (self.home, self.home / "main", self.home / "main" / "slots", slot):
            durable.make_directory(folder)
        durable.create_file(slot / "image", FACTORY)
        durable.sync_directory(slot)
        durable.replace_link(self.home / "main" / "current", "slots/factory")

    def power_up(self) -> None:
        """The machine starts."""

    def go_on(self) -> None:
        """The machine is on; only the agent starts."""

    def installer(self) -> Installer:
        """What the updater works with."""
        return DirectorySlots(self.home / "main")

    def selected(self) -> bytes | None:
        """What would start now: the factory's, the whole image, or whatever else."""
        try:
            return (self.home / "main" / "current" / "image").read_bytes()
        except FileNotFoundError:
            return None

    async def run(self, argv: Sequence[str], _timeout_s: float) -> Output:
        """In the place of `commands.run`."""
        raise CommandFailed(f"{argv[0]} isn't there")


class ArchiveSlots(Slots):
    """A tree that is unpacked from an archive."""

    path = "meter/2.0.0/image.tar"
    image = ARCHIVE

    def selected(self) -> bytes | None:
        """As `Slots` says; the tree counts as the image when nothing of it is missing."""
        tree = self.home / "main" / "current" / "tree"
        if not tree.exists():
            return super().selected()
        found = {
            str(path.relative_to(tree)): path.read_bytes()
            for path in tree.rglob("*")
            if path.is_file()
        }
        return self.image if found == _TREE else repr(found).encode()


class _TwoFiles(Slots):
    """Two slots, each a file, and a file that says which one is selected."""

    image = PLAIN * 3

    def flash(self) -> None:
        """As `Slots` says."""
        for folder in (self.home, self._place):
            durable.make_directory(folder)
        durable.create_file(self._place / "a", FACTORY)
        self._select("a")

    def selected(self) -> bytes | None:
        """As `Slots` says."""
        return self._content(self._which())

    @property
    def _place(self) -> Path:
        return self.home / "device"

    def _which(self) -> str:
        return (self._place / "selected").read_text("ascii")

    def _content(self, slot: str) -> bytes | None:
        try:
            return (self._place / slot).read_bytes()
        except FileNotFoundError:
            return None

    def _select(self, slot: str) -> None:
        durable.replace_file(self._place / "selected", slot.encode())

    def _write(self, slot: str, content: bytes) -> None:
        """Over what is there, as one writes to a partition: it's neither the old nor the new for
        a while."""
        durable.remove(self._place / slot)
        durable.create_file(self._place / slot, content[:5])
        descriptor = os.open(self._place / slot, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, content[5:])
        os.fsync(descriptor)
        os.close(descriptor)
        durable.sync_directory(self._place)


def _other(slot: str) -> str:
    return {"a": "b", "b": "a"}[slot]


class ProgramSlots(_TwoFiles):
    """Programs that write the slot that isn't selected; none says what is."""

    active: tuple[str, ...] | None = None

    def installer(self) -> Installer:
        """As `Slots` says."""
        programs = Programs(
            install=("install", "{image}"),
            switch=("switch", "{sha256}"),
            active=self.active,
            commit=("commit", "{sha256}"),
            roll_back=("roll-back", "{sha256}"),
        )
        return CommandSlots(self.home / "main", programs)

    async def run(self, argv: Sequence[str], _timeout_s: float) -> Output:
        """As `Slots` says."""
        doing: dict[str, Callable[[str], None]] = {
            "install": lambda file: self._write(_other(self._which()), Path(file).read_bytes()),
            "switch": self._switch,
            "commit": lambda _: None,
            "roll-back": self._roll_back,
        }
        if argv[0] == "active":
            return Output(self._sha256(self._which()) + "\n")
        doing[argv[0]](argv[1])
        return Output("")

    def _switch(self, sha256: str) -> None:
        if self._sha256(self._which()) != sha256:
            self._select(_other(self._which()))

    def _roll_back(self, sha256: str) -> None:
        if self._sha256(self._which()) == sha256:
            self._select(_other(self._which()))

    def _sha256(self, slot: str) -> str:
        return hashlib.sha256(self._content(slot) or b"").hexdigest()


class TellingProgramSlots(ProgramSlots):
    """Programs that say what is selected, too."""

    active = ("active",)


class RaucMachine(_TwoFiles):
    """Stands in for RAUC and a boot loader that boots what is selected."""

    booted = "a"
    _boot = ""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.restart = self

    def power_up(self) -> None:
        """As `Slots` says. What is booted, a process that was killed finds again; no cut's disk has
        it, which is made of `os` calls."""
        self.booted, self._boot = self._which(), f"{os.getpid()}-{next(_BOOTS)}"
        self._kernel.write_text(f"{self.booted} {self._boot}", "ascii")

    def go_on(self) -> None:
        """As `Slots` says."""
        if self._kernel.exists():
            self.booted, self._boot = self._kernel.read_text("ascii").split()
        else:
            self.power_up()

    @property
    def _kernel(self) -> Path:
        return self._place / "kernel"

    def run_id(self) -> str:
        """As `Restart` says."""
        return self._boot

    async def perform(self) -> None:
        """As `Restart` says."""
        self.power_up()

    def installer(self) -> Installer:
        """As `Slots` says."""
        return RaucSlots(self.home / "main")

    async def run(self, argv: Sequence[str], _timeout_s: float) -> Output:
        """As `Slots` says, of what RAUC's own program does (its reference, "rauc status")."""
        match argv[1:]:
            case ["status", "--output-format=json"]:
                return Output(json.dumps({"booted": self.booted}))
            case ["install", bundle]:
                self._install(Path(bundle))
            case ["status", "mark-good", "booted"]:
                pass
            case ["status", "mark-active", "booted"]:
                self._select(self.booted)
            case ["status", "mark-bad", "booted"] | ["status", "mark-active", "other"]:
                self._select(_other(self.booted))
            case words:
                raise CommandFailed(f"rauc knows no {words}")
        return Output("")

    def _install(self, bundle: Path) -> None:
        """The slot isn't booted while it's written."""
        self._select(self.booted)
        self._write(_other(self.booted), bundle.read_bytes())
        self._select(_other(self.booted))


KINDS: Final[dict[str, type[Slots]]] = {
    "file": Slots,
    "archive": ArchiveSlots,
    "programs": ProgramSlots,
    "telling-programs": TellingProgramSlots,
    "rauc": RaucMachine,
}
