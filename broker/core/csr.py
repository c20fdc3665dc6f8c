"""Reading a certificate signing request: what it proves, and what it asks for.

A request proves possession of a key and nothing else. Its name is compared, never copied.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID

from broker.core.keys import KeyType, key_type_of
from broker.protocol.codes import Code, Refused
from broker.protocol.names import Fingerprint

# What the library raises on a request that no library would make: no common base, little of it
# documented, found by altering requests bit by bit.
_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


_MAX_BESIDES_KEY: Final = 1_024
"""Bytes of a request besides its key. Hundreds of names, each short, would take the time of fifty
requests to read."""


@dataclass(frozen=True)
class VerifiedCsr:
    """A request whose signature was made by the key that it holds."""

    public_key: CertificatePublicKeyTypes
    key_type: KeyType
    key_sha256: Fingerprint
    """SHA-256 of the SubjectPublicKeyInfo in DER."""
    names: frozenset[str]
    """Every name that the request asks for, in its subject and its subjectAltName."""
    sha256: str
    """Of the whole request in DER, in hex."""


def verify_csr(pem: str) -> VerifiedCsr:
    """The verified request in `pem`, whose size the caller has bounded.

    Raises:
        Refused: CSR_MALFORMED (also for more than 1 KiB besides the key), KEY_NOT_ALLOWED,
            CSR_SIGNATURE_INVALID or CSR_CA_REQUESTED.
    """
    csr = _parse(pem)
    key, key_type = _key_of(csr)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if len(csr.tbs_certrequest_bytes) > len(spki) + _MAX_BESIDES_KEY:
        raise Refused(Code.CSR_MALFORMED, "Ask for fewer names and attributes.")
    _check_signature(csr)
    try:
        extensions = csr.extensions
        _refuse_authority(extensions)
        names = _names_of(csr.subject, extensions)
    except _UNREADABLE as error:
        raise Refused(Code.CSR_MALFORMED) from error
    digest = hashlib.sha256(csr.public_bytes(Encoding.DER)).hexdigest()
    return VerifiedCsr(key, key_type, fingerprint_of_key(key), names, digest)


def fingerprint_of_key(key: CertificatePublicKeyTypes) -> Fingerprint:
    """SHA-256 of the key's SubjectPublicKeyInfo: the same for the same key, however it came."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Fingerprint(hashlib.sha256(spki).hexdigest())


def _parse(pem: str) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(pem.encode("ascii"))
    except _UNREADABLE as error:
        raise Refused(Code.CSR_MALFORMED) from error


def _key_of(csr: x509.CertificateSigningRequest) -> tuple[CertificatePublicKeyTypes, KeyType]:
    """The key, judged before its signature is: a huge one must cost nothing."""
    try:
        key = csr.public_key()
    except UnsupportedAlgorithm as error:
        raise Refused(Code.KEY_NOT_ALLOWED) from error
    except _UNREADABLE as error:
        raise Refused(Code.CSR_MALFORMED) from error
    key_type = key_type_of(key)
    if key_type is None:
        raise Refused(Code.KEY_NOT_ALLOWED)
    return key, key_type


def _check_signature(csr: x509.CertificateSigningRequest) -> None:
    try:
        valid = csr.is_signature_valid
    except (InvalidSignature, *_UNREADABLE) as error:
        raise Refused(Code.CSR_SIGNATURE_INVALID) from error
    if not valid:
        raise Refused(Code.CSR_SIGNATURE_INVALID)


def _refuse_authority(extensions: x509.Extensions) -> None:
    for extension in extensions:
        value = extension.value
        asks_ca = isinstance(value, x509.BasicConstraints) and value.ca
        asks_signing = isinstance(value, x509.KeyUsage) and (value.key_cert_sign or value.crl_sign)
        if asks_ca or asks_signing:
            raise Refused(Code.CSR_CA_REQUESTED)


def _names_of(subject: x509.Name, extensions: x509.Extensions) -> frozenset[str]:
    names = {
        attribute.value
        if attribute.oid == NameOID.COMMON_NAME and isinstance(attribute.value, str)
        else attribute.rfc4514_string()
        for attribute in subject
        if attribute.oid in (NameOID.COMMON_NAME, NameOID.USER_ID, NameOID.EMAIL_ADDRESS)
    }
    for extension in extensions:
        if extension.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            names.update(_alternative_name(general) for general in extension.value)
    return frozenset(names)


def _alternative_name(general: x509.GeneralName) -> str:
    if isinstance(general, x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name):
        return general.value
    return f"{type(general).__name__}:{general.value}"
