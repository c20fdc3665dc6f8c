"""Device certificates put together from a template: what differs is put in its place, and signed.

The library makes and checks each name and extension anew, as objects; that was two thirds of what
a certificate cost. Here all that its fellows have in common is bytes which the library has written,
in a certificate that is made for the purpose and thrown away. A template that can't put together
that certificate's bytes exactly is never used.
"""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.adapters.ca.building import (
    Signer,
    alternative_names,
    authority_key,
    common_name,
    constant_extensions,
    signature_hash,
    subject_key,
)
from broker.adapters.ca.key_files import SigningKey
from broker.core.certificate_profile import Profile, Validity, alternative_uri
from broker.protocol.names import is_name

# Tags of DER (X.690), and object identifiers with theirs.
_INTEGER, _BITS, _OCTETS, _UTF8, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x0C, 0x30, 0x31
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_URI: Final = 0x86
_EXTENSIONS: Final = 0xA3
_COMMON_NAME: Final = bytes.fromhex("0603550403")
_SUBJECT_KEY: Final = bytes.fromhex("0603551d0e")
_ALTERNATIVE_NAME: Final = bytes.fromhex("0603551d11")

_SPECIMEN: Final = "specimen"
_UTC_TIME_ENDS: Final = 2050
"""From this year on a time is written with all four digits (RFC 5280, 4.1.2.5)."""


class CertificateTemplate:
    """What every certificate of one profile by one authority has in common.

    Raises:
        ValueError, InvalidSignature: it doesn't put together what the library does.
    """

    def __init__(self, signer: Signer, profile: Profile) -> None:
        self._key = signer.key
        self._profile = profile
        valid, key = _some_day(), signer.certificate.public_key()
        specimen = built_by_library(signer, profile, _SPECIMEN, key, valid, serial=1)
        tbs = specimen.tbs_certificate_bytes
        self._version, _, self._algorithm, self._issuer, *_, extensions = _parts(tbs)
        (listed,) = _parts(extensions)
        *constant, _, _ = _parts(listed)
        self._constant = b"".join(constant)
        made = x509.load_der_x509_certificate(self.issue(1, _SPECIMEN, key, valid))
        made.verify_directly_issued_by(signer.certificate)
        if made.tbs_certificate_bytes != tbs:
            raise ValueError(f"the template for {profile} doesn't write what the library does")

    def issue(
        self, serial: int, name: str, key: CertificatePublicKeyTypes, valid: Validity
    ) -> bytes:
        """A certificate in DER, signed (RFC 5280, 4.1).

        Raises:
            ValueError: `name` isn't one.
        """
        if not is_name(name):
            raise ValueError(f"{name!r} isn't a name")
        signed = self._to_be_signed(serial, name, key, valid)
        return _der(
            _SEQUENCE, signed, self._algorithm, _der(_BITS, b"\0", _sign(self._key, signed))
        )

    def _to_be_signed(
        self, serial: int, name: str, key: CertificatePublicKeyTypes, valid: Validity
    ) -> bytes:
        key_info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        uri = alternative_uri(self._profile, name).encode("ascii")
        extensions = (
            self._constant,
            _extension(_SUBJECT_KEY, _der(_OCTETS, _key_identifier(key_info))),
            _extension(_ALTERNATIVE_NAME, _der(_SEQUENCE, _der(_URI, uri))),
        )
        common = _der(_SEQUENCE, _COMMON_NAME, _der(_UTF8, name.encode("ascii")))
        return _der(
            _SEQUENCE,
            self._version,
            _der(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
            self._algorithm,
            self._issuer,
            _der(_SEQUENCE, _time(valid.not_before), _time(valid.not_after)),
            _der(_SEQUENCE, _der(_SET, common)),
            key_info,
            _der(_EXTENSIONS, _der(_SEQUENCE, *extensions)),
        )


def built_by_library(
    signer: Signer,
    profile: Profile,
    name: str,
    key: CertificatePublicKeyTypes,
    valid: Validity,
    serial: int,
) -> x509.Certificate:
    """The same certificate as the library builds it: what a template is measured by."""
    constant = (*constant_extensions(profile), authority_key(signer.certificate))
    return x509.CertificateBuilder(
        issuer_name=signer.certificate.subject,
        subject_name=common_name(name),
        public_key=key,
        serial_number=serial,
        not_valid_before=valid.not_before,
        not_valid_after=valid.not_after,
        extensions=[*constant, subject_key(key), alternative_names(profile, name)],
    ).sign(signer.key, signature_hash(signer.key))


def pem_of(certificate: bytes) -> str:
    """The certificate in PEM (RFC 7468)."""
    text = base64.b64encode(certificate).decode("ascii")
    lines = [text[begin : begin + 64] for begin in range(0, len(text), 64)]
    return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""))


def _some_day() -> Validity:
    """Long past: nobody could use the specimen, were it to get out."""
    begin = datetime(2000, 1, 1, tzinfo=UTC)
    return Validity(begin, begin + timedelta(days=1))


def _sign(key: SigningKey, data: bytes) -> bytes:
    match key:
        case ed25519.Ed25519PrivateKey():
            return key.sign(data)
        case rsa.RSAPrivateKey():
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        case _:
            return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _key_identifier(key_info: bytes) -> bytes:
    """SHA-1 of the key's bits without the count of unused ones (RFC 5280, 4.2.1.2, method 1)."""
    _, bits = _parts(key_info)
    return hashlib.sha1(_content(bits)[1:], usedforsecurity=False).digest()


def _extension(identifier: bytes, value: bytes) -> bytes:
    return _der(_SEQUENCE, identifier, _der(_OCTETS, value))


def _time(moment: datetime) -> bytes:
    if moment.year < _UTC_TIME_ENDS:
        return _der(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return _der(_GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode("ascii"))


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _content(element: bytes) -> bytes:
    """What is in an element of DER, without its tag and length."""
    first = element[1]
    return element[2 if first < 0x80 else 2 + (first & 0x7F) :]


def _parts(element: bytes) -> list[bytes]:
    """The elements in an element of DER that the library has written."""
    parts, rest = [], _content(element)
    while rest:
        size = len(rest) - len(_content(rest)) + _size(rest)
        parts.append(rest[:size])
        rest = rest[size:]
    return parts


def _size(element: bytes) -> int:
    first = element[1]
    return first if first < 0x80 else int.from_bytes(element[2 : 2 + (first & 0x7F)], "big")
