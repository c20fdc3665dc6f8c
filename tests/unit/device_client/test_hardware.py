"""The hardware's serial number: the best source that says something."""

from pathlib import Path

import pytest

from device_client.hardware import SOURCES, hardware_serial


def say(root: Path, source: str, content: bytes) -> None:
    path = root / source
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_the_first_source_wins(tmp_path: Path) -> None:
    for number, source in reversed(list(enumerate(SOURCES))):
        say(tmp_path, source, f"serial-{number}\n".encode())
        assert hardware_serial(tmp_path) == f"serial-{number}"


def test_a_device_tree_ends_with_a_nul(tmp_path: Path) -> None:
    say(tmp_path, SOURCES[0], b"10000000a1b2c3d4\0")
    assert hardware_serial(tmp_path) == "10000000a1b2c3d4"


@pytest.mark.parametrize(
    "nothing",
    [
        b"",
        b"\0",
        b"0",
        b"00000000",
        b"None",
        b"Default string",
        b"To Be Filled By O.E.M.",
        b"System Serial Number",
        b"Not Specified",
        b"123456789",
        b"x" * 65,
        b"\xff\xfe",
    ],
)
def test_what_makers_leave_behind_is_passed_over(tmp_path: Path, nothing: bytes) -> None:
    say(tmp_path, "sys/class/dmi/id/product_serial", nothing)
    assert hardware_serial(tmp_path) is None
    say(tmp_path, "etc/machine-id", b"0123456789abcdef0123456789abcdef\n")
    assert hardware_serial(tmp_path) == "0123456789abcdef0123456789abcdef"


def test_no_source_at_all(tmp_path: Path) -> None:
    assert hardware_serial(tmp_path) is None
