"""The home's operational authorities that are trusted at the moment: one, or two in a rollover."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Self

from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from broker.adapters.ca.building import Signer
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.ca.files import read_file, replace_public
from broker.adapters.ca.home import MusterHome
from broker.core.ca_rollover import InForce
from broker.ports.authorities import IssuedCertificate, Revocation
from broker.protocol.names import DeviceId
from broker.protocol.zones import Zone


class FleetAuthorities:
    """Issues by one authority and signs for all; meets `broker.ports.authorities.FleetAuthority`.

    What it holds is replaced as a whole, so a thread that issues sees the old or the new.
    """

    def __init__(
        self, home: MusterHome, passphrase: bytes | None, trusted: dict[int, FileAuthority],
        wanted: InForce,
    ) -> None:  # fmt: skip
        self._home = home
        self._passphrase = passphrase
        self._trusted = trusted
        self._issuing = trusted[wanted.issuing]

    @classmethod
    def load(cls, home: MusterHome, passphrase: bytes | None, wanted: InForce) -> Self:
        """Those that are wanted. Blocks.

        Raises:
            AuthorityError: what `FileAuthority.load` raises.
        """
        trusted = {
            generation: FileAuthority.load(home, passphrase, generation)
            for generation in sorted(wanted.trusted)
        }
        return cls(home, passphrase, trusted, wanted)

    @property
    def signers(self) -> tuple[Signer, ...]:
        """The authorities whose certificates count, for answers about their status."""
        return tuple(signer for each in self._trusted.values() for signer in each.signers)

    def chain_of(self, generation: int) -> str:
        """The certificate of the authority that issued it, while that is trusted."""
        known = self._trusted.get(generation)
        return "" if known is None else known.chain_pem

    def issue(
        self,
        name: DeviceId,
        key: CertificatePublicKeyTypes,
        not_before: datetime,
        not_after: datetime,
    ) -> IssuedCertificate:
        """A device's certificate, by the authority that issues.

        Raises:
            AuthorityError: VALIDITY_EMPTY when nothing of the validity is left.
        """
        return self._issuing.issue(name, key, not_before, not_after)

    def sign_crl(self, revoked: Sequence[Revocation], number: int, now: datetime) -> bytes:
        """The fleet zone's CRL file: one CRL for each authority. A certificate whose authority
        isn't trusted any more needs none."""
        return b"".join(each.sign_crl(revoked, number, now) for each in self._trusted.values())

    async def adopt(self, wanted: InForce) -> None:
        """As the port says. What is in place already isn't written again.

        Raises:
            AuthorityError: a key can't be used, or the anchors can't be written; nothing changed.
        """
        await asyncio.to_thread(self._adopt, wanted)

    def _adopt(self, wanted: InForce) -> None:
        trusted = {
            generation: self._trusted.get(generation)
            or FileAuthority.load(self._home, self._passphrase, generation)
            for generation in sorted(wanted.trusted)
        }
        _put_anchors(self._home, trusted.values())
        self._trusted, self._issuing = trusted, trusted[wanted.issuing]


def _put_anchors(home: MusterHome, trusted: Iterable[FileAuthority]) -> None:
    """The root and these."""
    content = b"".join(
        [
            read_file(home.root.certificate),
            *(each.chain_pem.encode("ascii") for each in trusted),
        ]
    )
    path = home.client_anchors(Zone.FLEET)
    with suppress(AuthorityError):  # missing or unreadable: written anew
        if read_file(path) == content:
            return
    replace_public(path, content)
