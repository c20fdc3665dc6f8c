"""MCUboot images: checked for what a boot loader would refuse, before anything is handed over.

The format is MCUboot's (its `bootutil/image.h`): a header, the code, protected and other TLVs. The
signature in it is the boot loader's to check; here it's TUF that vouches for the file.
"""

import asyncio
import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_client.update.images import Image
from device_client.update.installers.command import CommandSlots
from device_client.update.installers.port import InstallFailed

_HEADER: Final = struct.Struct("<IIHHIIBBHII")
_TLV_INFO: Final = struct.Struct("<HH")
_TLV: Final = struct.Struct("<HH")
_MAGIC: Final = 0x96F3B83D
_PLAIN_TLVS: Final = 0x6907
_PROTECTED_TLVS: Final = 0x6908
_HASHES: Final = {0x10: hashlib.sha256, 0x11: hashlib.sha384, 0x12: hashlib.sha512}
_SIGNED_WITHOUT_HASH: Final = 0x25
_SECURITY_COUNTER: Final = 0x50
_ENCRYPTED: Final = 0x04 | 0x08
"""By AES-128, by AES-256."""
_MAX_IMAGE: Final = 1 << 28


@dataclass(frozen=True)
class McubootImage:
    """What a whole image says of itself."""

    version: tuple[int, int, int, int]
    """Major, minor, revision, build."""
    security_counter: int | None


class McubootSlots(CommandSlots):
    """Slots of a boot loader on another processor, written by the device's own programs."""

    async def install(self, image: Image, file: Path) -> None:
        """As `Installer` says; refuses what MCUboot would, and another security counter."""
        found = await asyncio.to_thread(read_image, file)
        counter = found.security_counter
        if counter is not None and counter != image.facts.security_counter:
            raise InstallFailed(
                f"The image has the security counter {counter}, "
                f"and {image.facts.security_counter} was signed."
            )
        await super().install(image, file)


def read_image(file: Path) -> McubootImage:
    """The image's own words, if it's whole.

    Raises:
        InstallFailed: it isn't an MCUboot image, or its hash isn't its content's.
    """
    size = file.stat().st_size
    if size > _MAX_IMAGE:
        raise InstallFailed(f"An MCUboot image of {size} bytes isn't one.")
    data = file.read_bytes()
    try:
        return _parsed(data)
    except (struct.error, IndexError) as error:
        raise InstallFailed(f"The MCUboot image is cut short: {error}") from error


def _parsed(data: bytes) -> McubootImage:
    magic, _, header_size, protected_size, code_size, flags, *version, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC or header_size < _HEADER.size:
        raise InstallFailed("This isn't an MCUboot image.")
    end = header_size + code_size
    protected = dict(_tlvs(data, end, _PROTECTED_TLVS)) if protected_size else {}
    plain = dict(_tlvs(data, end + protected_size, _PLAIN_TLVS))
    if not flags & _ENCRYPTED:
        _check_hash(data[: end + protected_size], plain)
    counter = protected.get(_SECURITY_COUNTER)
    major, minor, revision, build = version
    return McubootImage(
        version=(major, minor, revision, build),
        security_counter=int.from_bytes(counter, "little") if counter else None,
    )


def _check_hash(covered: bytes, plain: Mapping[int, bytes]) -> None:
    """Of an encrypted image only the boot loader can: the hash is over what it decrypts."""
    if plain.get(_SIGNED_WITHOUT_HASH) == b"\x01":
        return
    if not any(plain.get(kind) == made(covered).digest() for kind, made in _HASHES.items()):
        raise InstallFailed("The MCUboot image isn't what its own hash says.")


def _tlvs(data: bytes, start: int, magic: int) -> Iterator[tuple[int, bytes]]:
    found, total = _TLV_INFO.unpack_from(data, start)
    if found != magic or start + total > len(data):
        raise InstallFailed("The MCUboot image has no whole trailer.")
    at = start + _TLV_INFO.size
    while at < start + total:
        kind, length = _TLV.unpack_from(data, at)
        at += _TLV.size
        yield kind, data[at : at + length]
        at += length
