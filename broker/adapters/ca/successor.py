"""Making the next operational authority below the root."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import Signer, build_anchor, build_authority
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.files import write_public
from broker.adapters.ca.home import MusterHome, PairPaths
from broker.adapters.ca.key_files import generate_key, write_key
from broker.adapters.ca.loading import load_signer
from broker.core.certificate_profile import Profile, validity

OPERATIONAL: Final = "Muster operational CA"
INFRASTRUCTURE: Final = "Muster infrastructure CA"


def make_operational(
    home: MusterHome, generation: int, root: Signer, passphrase: bytes | None, now: datetime
) -> Signer:
    """The home's operational authority of this generation, with its files; it counts nowhere yet.

    What a killed run has left is used if it is whole, and made anew if it isn't. Blocks.

    Args:
        root: whose key signs, once.
        passphrase: encrypts the new key.

    Raises:
        AuthorityError: a file can't be written.
    """

    def build() -> Signer:
        valid = validity(Profile.OPERATIONAL_CA, now)
        return build_authority(root, Profile.OPERATIONAL_CA, OPERATIONAL, generate_key(), valid)

    return _made(home.operational_of(generation), root.certificate, passphrase, build)


def make_infrastructure(
    home: MusterHome, generation: int, passphrase: bytes | None, now: datetime
) -> Signer:
    """The same for an infrastructure authority, which signs itself.

    Raises:
        AuthorityError: a file can't be written.
    """

    def build() -> Signer:
        valid = validity(Profile.INFRASTRUCTURE_CA, now)
        return build_anchor(Profile.INFRASTRUCTURE_CA, INFRASTRUCTURE, generate_key(), valid)

    return _made(home.infrastructure_of(generation), None, passphrase, build)


def _made(
    pair: PairPaths,
    issuer: x509.Certificate | None,
    passphrase: bytes | None,
    build: Callable[[], Signer],
) -> Signer:
    found = _whole(pair, issuer, passphrase)
    if found is not None:
        return found
    # Half of a pair: nothing refers to it, and no certificate was ever made with it.
    pair.certificate.unlink(missing_ok=True)
    pair.key.unlink(missing_ok=True)
    signer = build()
    write_key(pair.key, signer.key, passphrase)
    _give_to_the_owner_of_the_home(pair.key)
    write_public(pair.certificate, signer.certificate.public_bytes(Encoding.PEM))
    return signer


def _give_to_the_owner_of_the_home(key: Path) -> None:
    """Who makes it as root must not keep it from the service, which couldn't start any more."""
    owner = key.parent.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(key, owner.st_uid, owner.st_gid)


def _whole(
    pair: PairPaths, issuer: x509.Certificate | None, passphrase: bytes | None
) -> Signer | None:
    try:
        signer = load_signer(pair, passphrase)
        signer.certificate.verify_directly_issued_by(issuer or signer.certificate)
    except (AuthorityError, InvalidSignature, ValueError, TypeError):
        return None
    return signer
