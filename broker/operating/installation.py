"""One installation as the operator's commands see it: its home, settings and keys, with the
adapters behind the ports. What `app` is for the service, this is for the commands.
"""

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from broker.adapters.brokers.crl_file import swap
from broker.adapters.ca.bundles import make_bundle, read_trust_bundle
from broker.adapters.ca.claim_authority import issue_claim_certificate, sign_claim_crl
from broker.adapters.ca.files import write_secret
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.infrastructure import renew_infrastructure
from broker.adapters.clock import SystemClock
from broker.adapters.registry.migrate import migrate
from broker.adapters.registry.sqlite_file import file_number
from broker.adapters.run_lock import is_held, noted_registry
from broker.composition.registries import open_registry
from broker.operating.setting_faults import sentences
from broker.operating.updating import update_repository
from broker.ports.authorities import Revocation
from broker.ports.registry import Registry
from broker.protocol.bundle import HOST_PATTERN, MAX_HOSTS
from broker.protocol.messages import Endpoint
from broker.protocol.names import ClaimName
from broker.protocol.zones import Zone
from broker.services.claim_certificates import NewClaim
from broker.services.problems import Problem, ProblemCode
from broker.settings import SETTINGS_FILE, Settings, load_settings

if TYPE_CHECKING:
    from broker.composition.app import Muster

FIRST_ROOT: Final = "1.root.json"


@dataclass(frozen=True)
class Installation:
    """An installation that exists, with its settings read and checked."""

    home: MusterHome
    settings: Settings
    read_passphrase: Callable[[], bytes | None]
    """See `passphrase`."""
    clock: SystemClock

    @cached_property
    def passphrase(self) -> bytes | None:
        """What opens the home's keys. It's read when the first of them is needed, and once: it may
        come through a pipe, and most commands need none.

        Raises:
            Problem: it was promised, and can't be read.
        """
        return self.read_passphrase()

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[Registry]:
        """The registry, open for as long as the context."""
        async with open_registry(self.home, self.settings, rings=True) as registry:
            yield registry

    def claim_authority(self) -> "HomeClaimAuthority":
        """What signs claim certificates; its key is read when it's used.

        Raises:
            Problem: SETTINGS_INVALID when the claim broker's port isn't known.
        """
        return HomeClaimAuthority(
            self.home,
            self.claim_endpoint(),
            self.passphrase,
            _hosts(self.settings.updates.sources),
        )

    def claim_endpoint(self) -> Endpoint:
        """Where devices ask.

        Raises:
            Problem: SETTINGS_INVALID when the broker chooses its port itself.
        """
        claim = self.settings.claim
        if claim.port == 0:
            raise Problem(
                ProblemCode.SETTINGS_INVALID,
                "claim.port is 0, so no device could be told where to ask.",
                f"Set claim.port in {self.home.settings}.",
            )
        return Endpoint(host=claim.host, port=claim.port)

    def claim_crl_file(self) -> "HomeCrlFile":
        """The CRL that the claim broker reads."""
        return HomeCrlFile(self.home.crl_file(Zone.CLAIM))

    def is_served(self) -> bool | None:
        """Whether a service runs on this home, on this machine; None when that can't be seen."""
        return is_held(self.home.service_lock)

    def serves_another_registry(self) -> bool:
        """Whether the service that runs opened another file than the registry's. Blocks."""
        if not self.is_served():
            return False
        opened = noted_registry(self.home.service_lock)
        present = file_number(open_registry(self.home, self.settings).url)
        return None not in (opened, present) and opened != present

    def lacks_update_root(self) -> bool:
        """Whether an update repository was begun and not published yet, so that claim bundles carry
        no root. Blocks."""
        is_begun = (self.home.updates / "staging").is_dir()
        return is_begun and FIRST_ROOT not in update_repository(self.home, None).files()

    def migrate(self) -> None:
        """Brings the registry to this release's schema. Blocks; doing it again changes nothing.

        Raises:
            RegistryError: a newer release has migrated it, or it can't be used.
        """
        migrate(open_registry(self.home, self.settings).url)

    def renew_certificates(self, hosts: Sequence[str]) -> list[Path]:
        """New certificates for the brokers and the service, which keep their keys. Blocks.

        Returns the files that were replaced; who uses them has to be restarted.

        Raises:
            AuthorityError: the infrastructure authority's key isn't here, or a host isn't valid.
        """
        return renew_infrastructure(
            self.home, hosts=hosts, passphrase=self.passphrase, now=self.clock.now()
        )

    def service(self) -> "Muster":
        """The service, not running yet."""
        from broker.composition.app import (
            Muster,  # brokers, clients and HTTP, which no other command needs
        )

        return Muster(self.home, self.settings, self.passphrase)


@dataclass(frozen=True)
class HomeClaimAuthority:
    """The claim authority whose files are in the home; meets `ClaimAuthority`."""

    home: MusterHome
    claim: Endpoint
    passphrase: bytes | None
    update_hosts: tuple[str, ...] = ()
    """Who has images, besides this very host."""

    def issue(self, name: ClaimName, not_after: datetime, now: datetime) -> NewClaim:
        """Reads the authority's key, signs, and forgets the key."""
        issued = issue_claim_certificate(self.home, name, not_after, now, self.passphrase)
        trust = read_trust_bundle(self.home)
        first = update_repository(self.home, None).files().get(FIRST_ROOT)
        update_root = None if first is None else first.decode()
        bundle = replace(
            make_bundle(issued, self.claim, trust),
            update_root=update_root,
            update_hosts=self.update_hosts,
        )
        return NewClaim(bundle, issued.serial, issued.not_before, issued.not_after)

    def sign_crl(self, revoked: Sequence[Revocation], number: int, now: datetime) -> bytes:
        """Reads the authority's key, signs, and forgets the key."""
        return sign_claim_crl(self.home, revoked, number, now, self.passphrase)


@dataclass(frozen=True)
class HomeCrlFile:
    """A CRL file in the home; meets `broker.ports.brokers.CrlFile`."""

    path: Path

    async def swap(self, pem: bytes, now: datetime) -> None:
        """Puts `pem` in place whole, after checking it."""
        await asyncio.to_thread(swap, self.path, pem, now)


@dataclass(frozen=True)
class SecretFile:
    """A new file that only its owner may read; meets `BundleFile`."""

    path: Path

    def write(self, text: bytes) -> None:
        """Never replaces a file; durable on return."""
        try:
            write_secret(self.path, text)
        except FileNotFoundError as error:
            raise Problem(
                ProblemCode.FILE_UNREADABLE,
                f"There is no folder {self.path.parent}.",
                "Make it first, or give another --output.",
            ) from error

    def discard(self) -> None:
        """Removes it."""
        self.path.unlink(missing_ok=True)


def _hosts(sources: Sequence[str]) -> tuple[str, ...]:
    """Those that a device could ask: a bundle that named others couldn't be read."""
    hosts = []
    for source in sources:
        with suppress(ValueError):
            hosts.append(urlsplit(source).hostname or "")
    known = (host for host in dict.fromkeys(hosts) if re.match(HOST_PATTERN, host))
    return tuple(islice(known, MAX_HOSTS))


def open_installation(
    path: Path, read_passphrase: Callable[[], bytes | None] | None
) -> Installation:
    """The installation in `path`.

    Args:
        read_passphrase: called when a key is needed; none when keys aren't encrypted.

    Raises:
        Problem: HOME_MISSING or SETTINGS_INVALID.
    """
    home = MusterHome(path.resolve())
    if not home.ca.is_dir():
        raise Problem(
            ProblemCode.HOME_MISSING,
            f"There is no Muster home in {path}.",
            "Make one with 'muster init DIR', or name it with --home DIR or MUSTER_HOME.",
        )
    reader = read_passphrase or (lambda: None)
    return Installation(home, read_settings(home.path), reader, SystemClock())


def read_settings(home: Path) -> Settings:
    """The settings in force for a home.

    Raises:
        Problem: SETTINGS_INVALID; the message names the setting and never its value.
    """
    remedy = f"Correct {home / SETTINGS_FILE}, or the variable MUSTER_… in the environment."
    try:
        return load_settings(home)
    except ValidationError as error:
        raise Problem(ProblemCode.SETTINGS_INVALID, f"{sentences(error)}.", remedy) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Problem(
            ProblemCode.SETTINGS_INVALID, f"{SETTINGS_FILE} isn't TOML: {error}.", remedy
        ) from error
