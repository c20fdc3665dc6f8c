"""The installers: slots in directories, behind programs, of RAUC and of MCUboot."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_client.errors import ArgumentInvalid
from device_client.update.build import installer
from device_client.update.config import Component, Kind
from device_client.update.images import Image
from device_client.update.installers.command import CommandSlots, Programs
from device_client.update.installers.directory import DirectorySlots
from device_client.update.installers.mcuboot import McubootSlots, read_image
from device_client.update.installers.port import Installer, InstallFailed
from device_client.update.installers.rauc import RaucSlots
from tests.unit.device_client.update.images import image


async def staged(slots: Installer, what: Image, content: bytes) -> Path:
    file = await slots.staging(what)
    file.write_bytes(content)
    return file


async def installed(slots: Installer, what: Image, content: bytes) -> None:
    await slots.install(what, await staged(slots, what, content))
    await slots.switch(what)


class TestDirectory:
    async def test_switch_and_back(self, tmp_path: Path) -> None:
        slots = DirectorySlots(tmp_path)
        one, two = image(b"one"), image(b"two")
        await installed(slots, one, b"one")
        await slots.commit(one)
        await installed(slots, two, b"two")
        assert (tmp_path / "current" / "image").read_bytes() == b"two"
        assert await slots.runs(two)
        for _ in range(2):
            await slots.roll_back(two)
            assert (tmp_path / "current" / "image").read_bytes() == b"one"

    @pytest.mark.parametrize("link", ["releases/1.0", "{}/releases/1.0", "./slots/1.0/inner"])
    async def test_what_came_from_the_factory_may_be_anywhere(
        self, tmp_path: Path, link: str
    ) -> None:
        link = link.format(tmp_path)
        factory = tmp_path / link
        factory.mkdir(parents=True)
        (factory / "image").write_bytes(b"factory")
        (tmp_path / "current").symlink_to(link)
        slots, two = DirectorySlots(tmp_path), image(b"two")
        await installed(slots, two, b"two")
        assert (tmp_path / "current" / "image").read_bytes() == b"two"
        await slots.roll_back(two)
        assert (tmp_path / "current" / "image").read_bytes() == b"factory"

    async def test_only_what_runs_is_kept_when_room_is_needed(self, tmp_path: Path) -> None:
        slots = DirectorySlots(tmp_path)
        for content in (b"one", b"two", b"three"):
            await installed(slots, image(content), content)
            await slots.commit(image(content))
        await slots.staging(image(b"four"))
        kept = sorted(path.name for path in (tmp_path / "slots").iterdir())
        assert kept == sorted(["incoming", image(b"three").target.sha256])

    async def test_archive(self, tmp_path: Path) -> None:
        content = archive(lambda tar: add(tar, "bin/agent", b"#!/bin/sh"))
        what = image(content, "meter/2/image.tar.gz")
        await installed(DirectorySlots(tmp_path), what, content)
        assert (tmp_path / "current" / "tree" / "bin" / "agent").read_bytes() == b"#!/bin/sh"

    @pytest.mark.parametrize("name", ["../../out", "bin/../../../out"])
    async def test_archive_that_leaves_its_slot(self, tmp_path: Path, name: str) -> None:
        content = archive(lambda tar: add(tar, name, b"out"))
        what = image(content, "meter/2/image.tar.gz")
        slots = DirectorySlots(tmp_path / "slots")
        with pytest.raises(InstallFailed):
            await installed(slots, what, content)
        assert "out" not in names_below(tmp_path)
        assert not await slots.runs(what)

    async def test_archive_with_a_path_from_the_root(self, tmp_path: Path) -> None:
        content = archive(lambda tar: add(tar, f"{tmp_path}/out", b"out"))
        what = image(content, "meter/2/image.tar.gz")
        await installed(DirectorySlots(tmp_path / "slots"), what, content)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("target", ["/etc/passwd", "../../../secret"])
    async def test_archive_with_a_link_to_outside(self, tmp_path: Path, target: str) -> None:
        content = archive(lambda tar: link(tar, "bin/agent", target))
        what = image(content, "meter/2/image.tar.gz")
        with pytest.raises(InstallFailed):
            await installed(DirectorySlots(tmp_path), what, content)

    async def test_archive_that_grows_too_large(self, tmp_path: Path) -> None:
        content = archive(lambda tar: add(tar, "zeros", bytes(1 << 20)))
        assert len(content) < 5000
        what = image(content, "meter/2/image.tar.gz")
        with pytest.raises(InstallFailed, match="grows"):
            await installed(DirectorySlots(tmp_path, most_unpacked=1 << 19), what, content)

    @pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08broken"])
    async def test_what_is_no_archive(self, tmp_path: Path, content: bytes) -> None:
        what = image(content, "meter/2/image.tar.gz")
        with pytest.raises((InstallFailed, OSError)):
            await installed(DirectorySlots(tmp_path), what, content)

    async def test_memory_of_a_lost_journal(self, tmp_path: Path) -> None:
        """What is selected is asked for again; what ran before it is still there to go back to."""
        slots = DirectorySlots(tmp_path)
        await installed(slots, image(b"one"), b"one")
        await installed(slots, image(b"two"), b"two")
        await staged(slots, image(b"two"), b"two")
        await slots.roll_back(image(b"two"))
        assert (tmp_path / "current" / "image").read_bytes() == b"one"


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def archive(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        fill(tar)
    return made.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def link(tar: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    tar.addfile(member)


NOTE = (
    "import sys, pathlib; pathlib.Path(sys.argv[1]).open('a').write(' '.join(sys.argv[2:]) + '\\n')"
)


class TestCommand:
    def slots(self, tmp_path: Path, **others: tuple[str, ...]) -> CommandSlots:
        said = str(tmp_path / "said")

        def note(*words: str) -> tuple[str, ...]:
            return (sys.executable, "-c", NOTE, said, *words)

        programs: dict[str, Any] = {
            "install": note("install", "{sha256}", "{image}"),
            "switch": note("switch", "{component}", "{version}"),
            "commit": note("commit", "{path}"),
            "roll_back": note("roll-back"),
        }
        return CommandSlots(tmp_path / "staging", Programs(**{**programs, **others}))

    async def test_each_program_gets_its_words(self, tmp_path: Path) -> None:
        slots, what = self.slots(tmp_path), image(b"one")
        assert not await slots.runs(what)
        await installed(slots, what, b"one")
        assert await slots.runs(what)
        await slots.roll_back(what)
        assert not await slots.runs(what)
        await slots.commit(what)
        sha256 = what.target.sha256
        assert (tmp_path / "said").read_text().splitlines() == [
            f"install {sha256} {tmp_path / 'staging' / sha256}",
            "switch main 2.0.0",
            "roll-back",
            "commit meter/2.0.0/image",
        ]

    async def test_no_shell_reads_them(self, tmp_path: Path) -> None:
        what = image(b"one")
        slots = self.slots(tmp_path, install=("true", "; touch", str(tmp_path / "evil")))
        await installed(slots, what, b"one")
        assert not (tmp_path / "evil").exists()

    async def test_active_says_what_runs(self, tmp_path: Path) -> None:
        what = image(b"one")
        assert await self.slots(tmp_path, active=("echo", "2.0.0")).runs(what)
        assert await self.slots(tmp_path, active=("echo", what.target.sha256)).runs(what)
        assert not await self.slots(tmp_path, active=("echo", "1.0.0")).runs(what)

    @pytest.mark.parametrize("argv", [("false",), ("/nowhere/at-all",)])
    async def test_failures(self, tmp_path: Path, argv: tuple[str, ...]) -> None:
        with pytest.raises(InstallFailed):
            await installed(self.slots(tmp_path, install=argv), image(b"one"), b"one")

    async def test_one_that_hangs_is_ended(self, tmp_path: Path) -> None:
        programs = Programs(install=("sleep", "600"), roll_back=("true",), timeout_s=0.2)
        with pytest.raises(InstallFailed, match="longer than"):
            await installed(CommandSlots(tmp_path, programs), image(b"one"), b"one")


FAKE_RAUC = """#!{python}
import json, pathlib, sys
place = pathlib.Path({place!r})
with (place / "said").open("a") as said:
    said.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1:] == ["status", "--output-format=json"]:
    print(json.dumps({{"compatible": "meter", "booted": (place / "booted").read_text()}}))
"""


class TestRauc:
    """Against a stand-in, as RAUC itself isn't there."""

    @pytest.fixture
    def rauc(self, tmp_path: Path) -> Path:
        program = tmp_path / "rauc"
        program.write_text(FAKE_RAUC.format(python=sys.executable, place=str(tmp_path)))
        program.chmod(0o755)
        (tmp_path / "booted").write_text("A")
        return program

    async def test_install_reboot_and_commit(self, rauc: Path, tmp_path: Path) -> None:
        slots, what = RaucSlots(tmp_path / "staging", str(rauc)), image(b"bundle")
        await installed(slots, what, b"bundle")
        assert not await slots.runs(what), "before the reboot"
        (tmp_path / "booted").write_text("B")
        assert await slots.runs(what)
        await slots.commit(what)
        said = (tmp_path / "said").read_text().splitlines()
        asked = [line for line in said if not line.startswith("status --")]
        staged_at = tmp_path / "staging" / what.target.sha256
        assert asked == [f"install {staged_at}", "status mark-good booted"]
        assert await slots.runs(what), "a crash right here, and it's asked once more"

    async def test_another_image_doesn_t_run_because_the_boot_loader_went_back(
        self, rauc: Path, tmp_path: Path
    ) -> None:
        slots, first = RaucSlots(tmp_path / "staging", str(rauc)), image(b"bundle")
        await installed(slots, first, b"bundle")
        (tmp_path / "booted").write_text("B")
        await slots.roll_back(first)
        assert not await slots.runs(image(b"another")), "though another slot is booted than before"

    @pytest.mark.parametrize(
        ("booted", "expected"),
        [
            ("A", ["status mark-active booted"]),
            ("B", ["status mark-bad booted", "status mark-active other"]),
        ],
    )
    async def test_roll_back(
        self, rauc: Path, tmp_path: Path, booted: str, expected: list[str]
    ) -> None:
        slots, what = RaucSlots(tmp_path / "staging", str(rauc)), image(b"bundle")
        await installed(slots, what, b"bundle")
        (tmp_path / "booted").write_text(booted)
        (tmp_path / "said").unlink()
        await slots.roll_back(what)
        said = (tmp_path / "said").read_text().splitlines()
        assert [line for line in said if not line.startswith("status --")] == expected

    async def test_without_rauc(self, tmp_path: Path) -> None:
        slots = RaucSlots(tmp_path / "staging", str(tmp_path / "nowhere"))
        with pytest.raises(InstallFailed):
            await installed(slots, image(b"bundle"), b"bundle")


def imgtool(*words: str) -> None:
    argv = [str(Path(sys.executable).with_name("imgtool")), *words]
    subprocess.run(argv, check=True, capture_output=True)


def imgtool_key(folder: Path, kind: str) -> Path:
    imgtool("keygen", "--type", kind, "--key", str(folder / f"{kind}.pem"))
    return folder / f"{kind}.pem"


def imgtool_image(folder: Path, *options: str) -> Path:
    plain, made = folder / "plain.bin", folder / "image.bin"
    plain.write_bytes(bytes(range(256)) * 16)
    words = ["--version", "2.0.0+7", "--header-size", "0x200", "--pad-header"]
    words += ["--slot-size", "0x8000", "--align", "4", "--security-counter", "2"]
    imgtool("sign", *words, *options, str(plain), str(made))
    return made


class TestMcuboot:
    """Images by `imgtool`, MCUboot's own program."""

    @pytest.fixture
    def content(self, tmp_path: Path) -> bytes:
        return imgtool_image(tmp_path).read_bytes()

    async def test_read_as_imgtool_wrote_it(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "image.bin"
        found = read_image(file)
        assert found.version == (2, 0, 0, 7)
        assert found.security_counter == 2

    @pytest.mark.parametrize(
        ("key", "options"),
        [
            (None, ("--encrypt", "ecdsa-p256")),
            (None, ("--encrypt", "x25519", "--encrypt-keylen", "256")),
            ("ecdsa-p384", ()),
            ("ed25519", ("--sha", "512")),
            ("ed25519", ("--pure",)),
        ],
    )
    async def test_what_only_the_boot_loader_can_judge_is_left_to_it(
        self, tmp_path: Path, key: str | None, options: tuple[str, ...]
    ) -> None:
        words = list(options)
        if "--encrypt" in words:
            words[1] = str(imgtool_key(tmp_path, words[1]))
        if key is not None:
            words += ["--key", str(imgtool_key(tmp_path, key))]
        found = read_image(imgtool_image(tmp_path, *words))
        assert found.security_counter == 2

    async def test_installs(self, tmp_path: Path, content: bytes) -> None:
        copy = (sys.executable, "-c", "import shutil, sys; shutil.copy(*sys.argv[1:])")
        programs = Programs(install=(*copy, "{image}", str(tmp_path / "slot")), roll_back=("true",))
        slots = McubootSlots(tmp_path / "staging", programs)
        await installed(slots, image(content), content)
        assert (tmp_path / "slot").read_bytes() == content

    async def test_another_security_counter(self, tmp_path: Path, content: bytes) -> None:
        programs = Programs(install=("true",), roll_back=("true",))
        with pytest.raises(InstallFailed, match="security counter 2"):
            await installed(McubootSlots(tmp_path, programs), image(content, counter=3), content)

    @pytest.mark.parametrize("at", [0, 8, 12, 20, 0x200, 0x300, -8])
    async def test_damaged_anywhere(self, tmp_path: Path, content: bytes, at: int) -> None:
        bad = bytearray(content.rstrip(b"\xff"))
        bad[at] ^= 0x41
        file = tmp_path / "bad"
        file.write_bytes(bad)
        with pytest.raises(InstallFailed):
            read_image(file)

    @pytest.mark.parametrize("length", [0, 10, 0x200, 0x1200, 0x1210])
    async def test_cut_short(self, tmp_path: Path, content: bytes, length: int) -> None:
        file = tmp_path / "bad"
        file.write_bytes(content[:length])
        with pytest.raises(InstallFailed):
            read_image(file)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.DIRECTORY, DirectorySlots),
        (Kind.COMMAND, CommandSlots),
        (Kind.RAUC, RaucSlots),
        (Kind.MCUBOOT, McubootSlots),
    ],
)
def test_each_installer_is_built(tmp_path: Path, kind: Kind, expected: type) -> None:
    component = Component(installer=kind, install=("true",), roll_back=("true",))
    assert type(installer(tmp_path, component)) is expected


@pytest.mark.parametrize("kind", [Kind.COMMAND, Kind.MCUBOOT])
def test_programs_that_are_missing(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(ArgumentInvalid, match="needs the programs"):
        installer(tmp_path, Component(installer=kind, install=("true",)))
