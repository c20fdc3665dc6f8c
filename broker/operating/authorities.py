"""Replacing an authority, as the operator's command does it: files in the home first, then the one
commit in the registry that makes them count.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.adapters.ca.building import Signer
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import read_file
from broker.adapters.ca.home import MusterHome, PairPaths
from broker.adapters.ca.loading import load_signer
from broker.adapters.ca.successor import make_operational
from broker.adapters.run_lock import AlreadyRunning, held
from broker.operating.installation import Installation
from broker.ports.registry import Registry
from broker.services.ca_rollover import CaRollovers, Pace, Standing
from broker.services.problems import Problem, ProblemCode


@dataclass(frozen=True)
class RootKey:
    """Where the root's key is, which may be kept offline, and what opens it."""

    path: Path | None = None
    """None: in the home."""
    passphrase: bytes | None = None

    def pair(self, home: MusterHome) -> PairPaths:
        """With the root's certificate, which the home always has."""
        return PairPaths(home.root.certificate, self.path or home.root.key)

    def signer(self, home: MusterHome) -> Signer:
        """The root, ready to sign. Blocks.

        Raises:
            AuthorityError: as `load_signer`; the remedy knows that the key may be offline.
        """
        pair = self.pair(home)
        try:
            read_file(pair.key)
        except AuthorityError as error:
            if error.code is not AuthorityCode.FILE_MISSING:
                raise
            raise AuthorityError(error.code, error.message, self._where()) from error
        return load_signer(pair, self.passphrase)

    def _where(self) -> str:
        if self.path is None:
            return (
                "bring the medium on which you keep it, and name it there with --root-key FILE; "
                "only if there is none, restore it from your backup"
            )
        return "check the name that --root-key gives, and that its medium is there"


async def start_rollover(
    installation: Installation, registry: Registry, pace: Pace, root: RootKey
) -> Standing:
    """A new operational authority that is to replace the present one.

    Killed at any point, it leaves files that nothing refers to, or a rollover that has begun; the
    same again goes on.

    Raises:
        Problem: ROLLOVER_STATE.
        AuthorityError: the root's key isn't here, or a passphrase is missing or wrong.
    """
    rollovers = CaRollovers(registry, installation.clock)
    with alone(installation):
        planned = await rollovers.planned(pace)
        if planned != (await rollovers.standing()).rollover:
            await asyncio.to_thread(_make, installation, planned.old, planned.new, root)
        return await rollovers.start(planned)


async def check_start(
    installation: Installation, registry: Registry, pace: Pace, root: RootKey
) -> Standing:
    """Whether it could be started now; nothing is changed.

    Raises:
        Problem, AuthorityError: as `start_rollover`.
    """
    rollovers = CaRollovers(registry, installation.clock)
    planned = await rollovers.planned(pace)
    await asyncio.to_thread(_check_keys, installation, planned.old, root)
    now = installation.clock.now()
    moved, left = await registry.read(lambda tx: tx.count_moved(planned.old, planned.new, now))
    return Standing(planned, moved, left)


def _make(installation: Installation, old: int, new: int, root: RootKey) -> None:
    _check_keys(installation, old, root)
    home = installation.home
    signer = root.signer(home)
    make_operational(home, new, signer, installation.passphrase, installation.clock.now())


def _check_keys(installation: Installation, old: int, root: RootKey) -> None:
    """The service opens the new key with the passphrase that opens the present one."""
    home = installation.home
    load_signer(home.operational_of(old), installation.passphrase)
    root.signer(home)


@contextmanager
def alone(installation: Installation) -> Iterator[None]:
    """One command at a time makes authorities for a home.

    Raises:
        Problem: ROLLOVER_STATE.
    """
    try:
        with held(installation.home.run / "authorities.lock"):
            yield
    except AlreadyRunning as error:
        raise Problem(
            ProblemCode.ROLLOVER_STATE,
            "Another command is making an authority for this home at the moment.",
            "Wait until it has ended, and try again.",
        ) from error
