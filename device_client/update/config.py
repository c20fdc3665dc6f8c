"""What a device is told about itself by its maker, and remembers: one file, `device.json`."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from broker.protocol import bundle, codec, limits, names
from broker.protocol.codes import Refused
from broker.protocol.messages import Moment
from broker.protocol.updates import VersionText
from device_client import durable
from device_client.errors import ArgumentInvalid, StateUnusable
from device_client.timekeeping import RELEASED
from device_client.update.codes import UpdateRefused
from device_client.update.images import Running

Name = Annotated[str, Meta(pattern=names.NAME_PATTERN)]
Argv = Annotated[tuple[str, ...], Meta(min_length=1)]
Host = bundle.HostPattern
_FILE: Final = "device.json"
_MAX_CONFIG: Final = 65_536


class Kind(StrEnum):
    """How a component's images are installed."""

    DIRECTORY = "directory"
    COMMAND = "command"
    RAUC = "rauc"
    MCUBOOT = "mcuboot"


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of the device with slots of its own."""

    installer: Kind = Kind.DIRECTORY
    directory: str | None = None
    """Where its slots, or what is staged for them, are; below the state directory if not given."""
    version: VersionText | None = None
    """What came from the factory, as are the next three."""
    security_counter: Annotated[int, Meta(ge=0)] = 0
    support_until: Moment | None = None
    vulnerability_contact: Annotated[str, Meta(max_length=256)] | None = None
    install: Argv | None = None
    switch: Argv | None = None
    active: Argv | None = None
    commit: Argv | None = None
    roll_back: Argv | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """The file's content. Programs in it are run as this user, so it's the maker's alone to write.

    With `restart` programs (services) or `reboot` programs (the machine), an update takes effect.
    """

    model: Name
    hw_rev: Name | None = None
    components: dict[Name, Component] = field(default_factory=lambda: {"main": Component()})
    health: Argv | None = None
    """Exit status 0 means that the new image works; the fleet must be reached in any case."""
    health_timeout_s: Annotated[float, Meta(gt=0)] = 300.0
    restart: Argv | None = None
    reboot: Argv | None = None
    restart_timeout_s: Annotated[float, Meta(gt=0)] = 300.0
    metadata_url: str | None = None
    """Where the repository's metadata is fetched from instead of the broker."""
    update_hosts: Annotated[tuple[Host, ...], Meta(max_length=64)] | None = None
    """Who is asked for images over HTTP; if not given, the hosts that the claim bundle names, the
    fleet broker's and that of `metadata_url`."""
    most_rate: Annotated[float, Meta(gt=0)] | None = None
    """Bytes a second of a download at most."""
    most_per_day: Annotated[int, Meta(gt=0)] | None = None
    """Bytes that may be downloaded in a day; if not given, eight times the assigned images'."""

    def factory(self) -> dict[str, Running]:
        """What runs before the first update."""
        return {
            name: Running(
                version=each.version,
                security_counter=each.security_counter,
                support_until=each.support_until,
                vulnerability_contact=each.vulnerability_contact,
            )
            for name, each in self.components.items()
        }


def load(directory: Path) -> DeviceConfig | None:
    """What is remembered; none when this device was never told.

    Raises:
        StateUnusable: the file was damaged.
    """
    try:
        return codec.decode((directory / _FILE).read_bytes(), DeviceConfig, _MAX_CONFIG)
    except FileNotFoundError:
        return None
    except Refused as error:
        raise StateUnusable(
            f"The device's configuration can't be read: {error}",
            "Give it again with --update-config FILE.",
        ) from error


def remember(
    directory: Path, file: Path | None, model: str | None, hw_rev: str | None
) -> DeviceConfig | None:
    """Merges what is given into what is remembered, and keeps it.

    Args:
        file: a whole configuration, which replaces the remembered one.

    Raises:
        ArgumentInvalid: what is given isn't a configuration.
    """
    config = _from_file(file) if file is not None else load(directory)
    if model is not None:
        config = replace(config, model=model) if config else DeviceConfig(model=model)
    if hw_rev is not None and config is not None:
        config = replace(config, hw_rev=hw_rev)
    if config is not None and config != load(directory):
        durable.make_directory(directory)
        durable.replace_file(directory / _FILE, codec.encode(_checked(config)))
    return config


def remember_root(directory: Path, file: Path) -> None:
    """Keeps the repository's first root, from which all trust in updates comes.

    Raises:
        ArgumentInvalid: it can't be read, or is too large.
    """
    from device_client.update.trusted import Trusted  # the rules of trust aren't needed at rest

    try:
        with file.open("rb") as opened:
            root = opened.read(limits.MAX_METADATA + 1)
    except OSError as error:
        raise ArgumentInvalid(f"The update root {file} can't be read: {error}") from error
    if len(root) > limits.MAX_METADATA:
        raise ArgumentInvalid(f"The update root {file} is too large to be one.")
    try:
        Trusted(root, RELEASED)
    except UpdateRefused as error:
        raise ArgumentInvalid(
            f"{file} isn't a root that its own keys have signed: {error}",
            "It's the repository's 1.root.json, or a later one.",
        ) from error
    durable.make_directory(directory)
    if first_root(directory, None) not in (root, None):
        # Another one was given on purpose: what followed from the one before isn't its successor.
        durable.remove(directory / "metadata" / "root.json")
    durable.replace_file(directory / "first-root.json", root)


def first_root(directory: Path, flashed: str | None) -> bytes | None:
    """The root that was given on the command line, or else the claim bundle's."""
    try:
        return (directory / "first-root.json").read_bytes()
    except FileNotFoundError:
        return flashed.encode() if flashed is not None else None


def _from_file(file: Path) -> DeviceConfig:
    try:
        return codec.decode(file.read_bytes(), DeviceConfig, _MAX_CONFIG)
    except (OSError, Refused) as error:
        raise ArgumentInvalid(
            f"The configuration {file} can't be used: {error}",
            "docs/updates.md shows what it holds.",
        ) from error


def _checked(config: DeviceConfig) -> DeviceConfig:
    try:
        return codec.decode(codec.encode(config), DeviceConfig, _MAX_CONFIG)
    except Refused as error:
        raise ArgumentInvalid(
            f"The model or hardware revision isn't a name: {error.detail}",
            "Names have 1 to 64 letters, digits, '-' or '_'.",
        ) from error
