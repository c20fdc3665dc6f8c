"""Making the next operational authority below the root."""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import Signer, build_authority
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.files import write_public
from broker.adapters.ca.home import MusterHome, PairPaths
from broker.adapters.ca.key_files import generate_key, write_key
from broker.adapters.ca.loading import load_signer
from broker.core.certificate_profile import Profile, validity

TITLE = "Muster operational CA"


def make_successor(
    home: MusterHome, generation: int, root: Signer, passphrase: bytes | None, now: datetime
) -> x509.Certificate:
    """The home's operational authority of this generation, with its files; it counts nowhere yet.

    What a killed run has left is used if it is whole, and made anew if it isn't. Blocks.

    Args:
        root: whose key signs, once.
        passphrase: encrypts the new key.

    Raises:
        AuthorityError: a file can't be written.
    """
    pair = home.operational_of(generation)
    found = _whole(pair, root, passphrase)
    if found is not None:
        return found
    # Half of a pair: nothing refers to it, and no certificate was ever made with it.
    pair.certificate.unlink(missing_ok=True)
    pair.key.unlink(missing_ok=True)
    signer = build_authority(
        root, Profile.OPERATIONAL_CA, TITLE, generate_key(), validity(Profile.OPERATIONAL_CA, now)
    )
    write_key(pair.key, signer.key, passphrase)
    write_public(pair.certificate, signer.certificate.public_bytes(Encoding.PEM))
    return signer.certificate


def _whole(pair: PairPaths, root: Signer, passphrase: bytes | None) -> x509.Certificate | None:
    try:
        certificate = load_signer(pair, passphrase).certificate
        certificate.verify_directly_issued_by(root.certificate)
    except (AuthorityError, InvalidSignature, ValueError, TypeError):
        return None
    return certificate
