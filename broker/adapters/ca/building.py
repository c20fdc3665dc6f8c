"""Building certificates by their profile. Names come from us, never from a request."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.key_files import SigningKey
from broker.core.certificate_profile import (
    PROFILES,
    AlternativeName,
    CertificateProfile,
    ExtendedUse,
    Profile,
    Validity,
    alternative_uri,
)

_PURPOSES: Final = {
    ExtendedUse.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedUse.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
}
_KEY_USE_BITS: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Signer:
    """An authority at work: its certificate and the key that belongs to it."""

    certificate: x509.Certificate
    key: SigningKey

    @property
    def validity(self) -> Validity:
        return Validity(self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc)


def build_anchor(profile: Profile, title: str, key: SigningKey, valid: Validity) -> Signer:
    """A self-signed authority."""
    subject = _authority_name(title, key.public_key())
    certificate = _builder(profile, subject, subject, key.public_key(), valid, None).sign(
        key, signature_hash(key)
    )
    return Signer(certificate, key)


def build_authority(
    issuer: Signer, profile: Profile, title: str, key: SigningKey, valid: Validity
) -> Signer:
    """An authority below another."""
    subject = _authority_name(title, key.public_key())
    extension = authority_key(issuer.certificate)
    certificate = _builder(
        profile, issuer.certificate.subject, subject, key.public_key(),
        valid.within(issuer.validity), extension,
    ).sign(issuer.key, signature_hash(issuer.key))  # fmt: skip
    return Signer(certificate, key)


def build_leaf(
    issuer: Signer,
    profile: Profile,
    name: str,
    key: CertificatePublicKeyTypes,
    valid: Validity,
    hosts: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    """A certificate for `name`, cut to its issuer's validity.

    Raises:
        AuthorityError: VALIDITY_EMPTY when the issuer isn't valid in that time.
    """
    subject = common_name(name)
    builder = _builder(
        profile, issuer.certificate.subject, subject, key, within(issuer, valid),
        authority_key(issuer.certificate), alternative_names(profile, name, hosts),
    )  # fmt: skip
    return builder.sign(issuer.key, signature_hash(issuer.key))


def within(issuer: Signer, valid: Validity) -> Validity:
    """`valid`, cut to the issuer's.

    Raises:
        AuthorityError: VALIDITY_EMPTY when nothing is left.
    """
    try:
        return valid.within(issuer.validity)
    except ValueError as error:
        authority = issuer.certificate.subject.rfc4514_string()
        raise AuthorityError(
            AuthorityCode.VALIDITY_EMPTY,
            f"the certificate would lie outside the validity of its issuer, {authority}",
            "check this machine's clock; if it's right, the authority has to be replaced",
        ) from error


def signature_hash(key: SigningKey) -> hashes.SHA256 | None:
    """The hash to sign with; none where the key's algorithm has its own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def common_name(name: str) -> x509.Name:
    """A subject with nothing but its name, which brokers take as the username."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@cache
def constant_extensions(profile: Profile) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """What is the same in every certificate of a profile."""
    row = PROFILES[profile]
    constraints = x509.BasicConstraints(ca=row.is_authority, path_length=row.path_length)
    extensions = [
        _extension(constraints, critical=True),
        _extension(_key_usage(row), critical=True),
    ]
    if row.extended_uses:
        purposes = [_PURPOSES[use] for use in ExtendedUse if use in row.extended_uses]
        extensions.append(_extension(x509.ExtendedKeyUsage(purposes)))
    return tuple(extensions)


def authority_key(issuer: x509.Certificate) -> x509.Extension[x509.ExtensionType]:
    """Which key signed (RFC 5280, 4.2.1.1)."""
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return _extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier))


def subject_key(key: CertificatePublicKeyTypes) -> x509.Extension[x509.ExtensionType]:
    """Which key is certified (RFC 5280, 4.2.1.2)."""
    return _extension(x509.SubjectKeyIdentifier.from_public_key(key))


def alternative_names(
    profile: Profile, name: str, hosts: Sequence[x509.GeneralName] = ()
) -> x509.Extension[x509.ExtensionType]:
    """The subjectAltName of a leaf: its URI, or the hosts that it serves."""
    names = list(hosts)
    if PROFILES[profile].alternative_name is AlternativeName.URN:
        names = [x509.UniformResourceIdentifier(alternative_uri(profile, name))]
    return _extension(x509.SubjectAlternativeName(names))


def _builder(
    profile: Profile,
    issuer: x509.Name,
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    valid: Validity,
    *more: x509.Extension[x509.ExtensionType] | None,
) -> x509.CertificateBuilder:
    present = [extension for extension in more if extension is not None]
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        # 159 random bits: the most that 20 octets hold with the sign (RFC 5280, 4.1.2.2).
        serial_number=x509.random_serial_number(),
        not_valid_before=valid.not_before,
        not_valid_after=valid.not_after,
        extensions=[*constant_extensions(profile), subject_key(key), *present],
    )


def _authority_name(title: str, key: CertificatePublicKeyTypes) -> x509.Name:
    # Part of the key's identifier, so that an authority and its successor have different names.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()
    return common_name(f"{title} {identifier[:8]}")


def _key_usage(row: CertificateProfile) -> x509.KeyUsage:
    uses = {use.value for use in row.key_uses}
    return x509.KeyUsage(**{bit: bit in uses for bit in _KEY_USE_BITS})


def _extension(
    value: x509.ExtensionType, *, critical: bool = False
) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)
