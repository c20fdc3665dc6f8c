"""Reading certificates, CRLs and authorities from their files."""

import re
from pathlib import Path
from typing import Final

from cryptography import x509

from broker.adapters.ca.building import Signer
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import read_file
from broker.adapters.ca.home import PairPaths
from broker.adapters.ca.key_files import read_key

_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one.

    Raises:
        AuthorityError: FILE_MISSING, FILE_UNREADABLE, FILE_MALFORMED.
    """
    content = read_file(path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise _malformed(path, "certificate") from error


def read_crls(path: Path) -> list[x509.CertificateRevocationList]:
    """The CRLs in a PEM file, at least one.

    Raises:
        AuthorityError: FILE_MISSING, FILE_UNREADABLE, FILE_MALFORMED.
    """
    content = read_file(path)
    try:
        lists = [x509.load_pem_x509_crl(block) for block in _CRL.findall(content)]
    except ValueError as error:
        raise _malformed(path, "CRL") from error
    if not lists:
        raise _malformed(path, "CRL")
    return lists


def load_signer(pair: PairPaths, passphrase: bytes | None) -> Signer:
    """An authority, ready to sign.

    Raises:
        AuthorityError: KEY_MISMATCH, and all that `read_certificates` and `read_key` raise.
    """
    certificate = read_certificates(pair.certificate)[0]
    key = read_key(pair.key, passphrase)
    if certificate.public_key() != key.public_key():
        raise AuthorityError(
            AuthorityCode.KEY_MISMATCH,
            f"'{pair.key}' isn't the key of '{pair.certificate}'",
            "restore both from one backup",
        )
    return Signer(certificate, key)


def _malformed(path: Path, what: str) -> AuthorityError:
    return AuthorityError(
        AuthorityCode.FILE_MALFORMED,
        f"'{path}' holds no whole {what} in PEM",
        "restore it from your backup",
    )
