"""Who is at the other end, by the certificate that TLS has verified."""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.trust import Trust
from broker.protocol.names import is_issuable
from broker.protocol.zones import Zone, service_name


@dataclass(frozen=True)
class Peer:
    """A client that proved the key of a valid certificate. `issuer` is a name in DER."""

    name: str
    issuer: bytes
    serial: int
    is_service: bool


def identify(certificate_der: bytes | None, trust: Trust, zone: Zone, now: datetime) -> Peer:
    """The client behind a certificate whose chain TLS has verified.

    Only a certificate that an infrastructure CA itself signed makes a client the service, and such
    a certificate makes it nothing else. Revocation and expiry are checked again: the handshake may
    have begun before the newest CRL, or resumed a session that is older than either.

    Raises:
        Ended: CERTIFICATE_REFUSED.
    """
    certificate = _parse(certificate_der)
    name = _common_name(certificate)
    issuer = certificate.issuer.public_bytes()
    if trust.is_revoked(issuer, certificate.serial_number):
        raise Ended(Ending.CERTIFICATE_REFUSED, "revoked")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise Ended(Ending.CERTIFICATE_REFUSED, "outside of its validity")
    if _is_ca(certificate):
        raise Ended(Ending.CERTIFICATE_REFUSED, "a CA isn't a client")
    is_service = any(_is_issued_by(certificate, anchor) for anchor in trust.infrastructure)
    if is_service and name != service_name(zone):
        raise Ended(Ending.CERTIFICATE_REFUSED, "not the service of this zone")
    if not is_service and not is_issuable(name):
        raise Ended(Ending.CERTIFICATE_REFUSED, f"name {name[:64]!r}")
    return Peer(name, issuer, certificate.serial_number, is_service)


def _parse(certificate_der: bytes | None) -> x509.Certificate:
    if certificate_der is None:
        raise Ended(Ending.CERTIFICATE_REFUSED, "none given")
    try:
        return x509.load_der_x509_certificate(certificate_der)
    except ValueError as error:
        raise Ended(Ending.CERTIFICATE_REFUSED, "unreadable") from error


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise Ended(Ending.CERTIFICATE_REFUSED, "it needs exactly one common name")
    return names[0].value


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    except ValueError as error:
        raise Ended(Ending.CERTIFICATE_REFUSED, "unreadable extensions") from error


def _is_issued_by(certificate: x509.Certificate, anchor: x509.Certificate) -> bool:
    if certificate.issuer != anchor.subject:
        return False
    try:
        certificate.verify_directly_issued_by(anchor)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
