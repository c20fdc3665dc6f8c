"""Making an installation: the home with its authorities, the registry, and last its settings.

The settings file completes it. An interrupted `muster init` leaves a home without one; running it
again goes on from there, and never touches a key.
"""

import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from broker.adapters.ca.files import write_secret
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.adapters.registry.migrate import migrate
from broker.composition.registries import open_registry
from broker.operating.installation import read_settings
from broker.operating.setting_faults import sentences
from broker.protocol.zones import Zone
from broker.services.problems import Problem, ProblemCode
from broker.settings import SETTINGS_FILE, STOCK_SERVICE_PORTS, BrokerKind, Settings


@dataclass(frozen=True)
class ZoneChoice:
    """Which broker serves a zone, and at which port."""

    broker: BrokerKind
    port: int


@dataclass(frozen=True)
class Choices:
    """What an operator says of a new installation."""

    hosts: Sequence[str]
    """Names by which devices reach the brokers; the first is what they're told."""
    claim: ZoneChoice
    fleet: ZoneChoice
    registry: str | None = None
    """The registry's URL, without a password; none for SQLite in the home."""


def initialise(path: Path, choices: Choices, passphrase: bytes | None, now: datetime) -> MusterHome:
    """Makes the installation, or completes one that was begun. Blocks.

    Raises:
        Problem: HOME_EXISTS or VALUE_INVALID.
        AuthorityError, RegistryError: the home or the registry can't be made.
    """
    home = MusterHome(path.resolve())
    if home.settings.exists():
        raise Problem(
            ProblemCode.HOME_EXISTS,
            f"{path} is a Muster installation already.",
            "Use it with --home, or name another folder.",
        )
    text = settings_text(choices)
    settings = _checked_settings(text)
    if not home.ca.is_dir():
        create_home(home, hosts=choices.hosts, passphrase=passphrase, now=now)
    _migrate(home, settings)
    _write_whole(home, text)
    read_settings(home.path)
    return home


def settings_text(choices: Choices) -> str:
    """The text of `muster.toml`.

    Raises:
        Problem: VALUE_INVALID when the registry's URL holds a password.
    """
    url = choices.registry or "sqlite:///registry.db"
    _refuse_password(url)
    host = choices.hosts[0] if choices.hosts else "localhost"
    zones = [
        _zone_text(zone, choice, host)
        for zone, choice in ((Zone.CLAIM, choices.claim), (Zone.FLEET, choices.fleet))
    ]
    return "\n".join([_HEAD, *zones, f"[registry]\nurl = {_toml(url)}\n"])


_HEAD = """\
# The settings of this Muster installation. Each can also be set in the environment:
# claim.port, say, as MUSTER_CLAIM__PORT. A setting that isn't known is an error.
"""


def _zone_text(zone: Zone, choice: ZoneChoice, host: str) -> str:
    lines = [
        f"[{zone}]",
        f"broker = {_toml(choice.broker)}",
        f"host = {_toml(host)}",
        f"port = {choice.port}",
    ]
    if choice.broker is BrokerKind.EMBEDDED:
        listen = "127.0.0.1" if _is_local(host) else "0.0.0.0"
        lines.append(f"listen = {_toml(listen)}")
    else:
        # As Muster's stock configuration for Mosquitto has it.
        lines.append('service_host = "127.0.0.1"')
        lines.append(f"service_port = {STOCK_SERVICE_PORTS[zone]}")
        lines.append(f"pid_file = {_toml(f'/run/muster/{zone}/mosquitto.pid')}")
        lines.append(f"admin_socket = {_toml(f'/run/muster/{zone}/admin.sock')}")
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    # A JSON string in ASCII is a TOML basic string.
    return json.dumps(text)


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _refuse_password(url: str) -> None:
    if urlsplit(url).password is not None:
        raise Problem(
            ProblemCode.VALUE_INVALID,
            "The registry's URL holds a password, which the process list shows to everybody here.",
            "Leave it out and use ~/.pgpass, or give the whole URL as MUSTER_REGISTRY__URL.",
        )


def _checked_settings(text: str) -> Settings:
    try:
        return Settings(**tomllib.loads(text))
    except ValidationError as error:
        remedy = "Correct it and try again."
        raise Problem(ProblemCode.VALUE_INVALID, f"{sentences(error)}.", remedy) from error


def _migrate(home: MusterHome, settings: Settings) -> None:
    migrate(open_registry(home, settings).url)


def _write_whole(home: MusterHome, text: str) -> None:
    """The settings file, whole or not at all: a draft of it is renamed."""
    draft = home.path / f".{SETTINGS_FILE}.{os.getpid()}"
    draft.unlink(missing_ok=True)
    write_secret(draft, text.encode())
    draft.rename(home.settings)
