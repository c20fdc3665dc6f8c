"""The claim authority: certificates that may ask for membership, and nothing else.

Its key may be kept offline, so each act reads it, uses it and forgets it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import build_leaf
from broker.adapters.ca.crl import build_lasting_crl
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.file_authority import serial_of
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.key_files import generate_key, key_pem
from broker.adapters.ca.loading import load_signer
from broker.core.certificate_profile import BACKDATING, Profile, Validity
from broker.ports.authorities import Revocation
from broker.protocol.names import CertificateSerial, ClaimName, is_issuable


@dataclass(frozen=True)
class IssuedClaimCertificate:
    """A claim certificate with its key, which exists nowhere else."""

    name: ClaimName
    certificate_pem: str
    key_pem: str = field(repr=False)
    serial: CertificateSerial
    not_before: datetime
    not_after: datetime


def issue_claim_certificate(
    home: MusterHome,
    name: ClaimName,
    not_after: datetime,
    now: datetime,
    passphrase: bytes | None,
) -> IssuedClaimCertificate:
    """A claim certificate with a new key, valid from a little before `now`.

    It never outlives its authority: the `not_after` that is returned may be earlier.

    Raises:
        AuthorityError: NAME_INVALID, VALIDITY_EMPTY, or what `load_signer` raises.
    """
    if not is_issuable(name):
        raise AuthorityError(
            AuthorityCode.NAME_INVALID,
            f"{name!r} can't be a claim certificate's name",
            "use 1 to 64 letters, digits, `_` and `-`, and don't begin with `muster-`",
        )
    if not_after <= now:
        raise AuthorityError(
            AuthorityCode.VALIDITY_EMPTY,
            "the claim certificate would have expired already",
            "give an end that lies ahead",
        )
    signer = load_signer(home.claim, passphrase)
    key = generate_key()
    valid = Validity(now - BACKDATING, not_after)
    certificate = build_leaf(signer, Profile.CLAIM, name, key.public_key(), valid)
    return IssuedClaimCertificate(
        name=name,
        certificate_pem=certificate.public_bytes(Encoding.PEM).decode("ascii"),
        key_pem=key_pem(key).decode("ascii"),
        serial=serial_of(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def sign_claim_crl(
    home: MusterHome,
    revocations: Sequence[Revocation],
    number: int,
    now: datetime,
    passphrase: bytes | None,
) -> bytes:
    """The claim zone's CRL file.

    It lasts as long as its authority, because nobody may be there to sign it anew.

    Raises:
        AuthorityError: what `load_signer` raises.
    """
    return build_lasting_crl(load_signer(home.claim, passphrase), revocations, number, now)
