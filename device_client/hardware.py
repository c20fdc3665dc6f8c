"""The serial number that the hardware itself reports."""

import re
from pathlib import Path
from typing import Final

from broker.protocol.names import SERIAL_NUMBER_PATTERN, SerialNumber

SOURCES: Final = (
    "proc/device-tree/serial-number",
    "sys/firmware/devicetree/base/serial-number",
    "sys/class/dmi/id/product_serial",
    "etc/machine-id",
)
"""Where to look below the file system's root, best first: boards, PCs, then the installation."""

_SERIAL = re.compile(SERIAL_NUMBER_PATTERN)
_PLACEHOLDERS: Final = frozenset(
    {"none", "default", "invalid", "unknown", "oem", "n/a", "serial", "notspecified", "empty"}
)
_LONGEST = 256


def hardware_serial(root: Path = Path("/")) -> SerialNumber | None:
    """The first serial number below `root` that can be read and means something, or none."""
    for source in SOURCES:
        serial = _meaningful(_read(root / source))
        if serial is not None:
            return serial
    return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST).decode("ascii").strip("\0 \t\r\n")
    except (OSError, UnicodeDecodeError):
        return ""


def _meaningful(text: str) -> SerialNumber | None:
    """`text` unless it's what makers leave behind: a placeholder, or one digit repeated."""
    if _SERIAL.match(text) is None or text.lower() in _PLACEHOLDERS or text == "123456789":
        return None
    if len(set(text)) == 1:
        return None
    return SerialNumber(text)
