"""What the service's answer must be before anything of it is stored."""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.protocol.messages import Endpoint, EnrollAccepted, TrustBundle
from broker.protocol.names import DeviceId, Fingerprint, is_issuable
from device_client import bundles, keys
from device_client.errors import AnswerInvalid, TrustRefused

_LONGEST_CHAIN = 8


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A checked answer: the identity that the service gives to the holder of our key."""

    device_id: DeviceId
    chain: str
    """The device's certificate, then its issuers', in PEM."""
    certificate_sha256: Fingerprint
    fleet: Endpoint
    trust_bundle: TrustBundle
    not_before: datetime
    order: int = 0
    """The version of the rotation order that was followed with it; 0 for none."""

    def for_device(self, device_id: DeviceId, order: int) -> "Grant":
        """The same, as the successor of an identity of this name.

        Raises:
            AnswerInvalid: it's somebody else's.
        """
        if self.device_id != device_id:
            raise _invalid(f"it's for {self.device_id!r}, and this device is {device_id!r}")
        return replace(self, order=order)


def check_answer(
    answer: EnrollAccepted, key_sha256: Fingerprint, known: TrustBundle, now: datetime
) -> Grant:
    """The grant in `answer`, if it's about our key and hangs together.

    A certificate that begins in the future is none the worse for it: it proves our clock behind.

    Args:
        known: the trust bundle that this device has; a lower version never replaces it.
        now: the best guess at the time.

    Raises:
        AnswerInvalid: what is wrong, in a sentence.
    """
    if not is_issuable(answer.device_id):
        raise _invalid("the device id isn't a valid name")
    chain = parse_chain(answer.certificate_chain)
    leaf = chain[0]
    _check_leaf(leaf, answer.device_id, key_sha256)
    now = max(now, leaf.not_valid_before_utc)
    if leaf.not_valid_after_utc <= now:
        raise _invalid(f"the certificate expired at {leaf.not_valid_after_utc}")
    _check_links(chain)
    trust = _trust(known, answer.trust_bundle)
    _check_anchors(trust, now)
    return Grant(
        device_id=DeviceId(answer.device_id),
        chain=answer.certificate_chain,
        certificate_sha256=fingerprint(leaf),
        fleet=answer.fleet,
        trust_bundle=trust,
        not_before=leaf.not_valid_before_utc,
    )


def parse_chain(pem: str) -> list[x509.Certificate]:
    """The certificates in `pem`, at least one and at most eight.

    Raises:
        AnswerInvalid: it holds none, too many, or something unreadable.
    """
    try:
        chain = x509.load_pem_x509_certificates(pem.encode("ascii"))
    except ValueError as error:
        raise _invalid("the certificate chain can't be read") from error
    if len(chain) > _LONGEST_CHAIN:
        raise _invalid("the certificate chain is too long")
    return chain


def fingerprint(certificate: x509.Certificate) -> Fingerprint:
    """SHA-256 of the certificate in DER, as `confirm` names it."""
    der = certificate.public_bytes(Encoding.DER)
    return Fingerprint(hashlib.sha256(der).hexdigest())


def _check_leaf(leaf: x509.Certificate, device_id: str, key_sha256: Fingerprint) -> None:
    try:
        certified = keys.fingerprint(leaf.public_key())
        extensions = leaf.extensions
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise _invalid("the certificate can't be read") from error
    if certified != key_sha256:
        raise _invalid("the certificate is about another key than this device's")
    names = [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device_id]:
        raise _invalid(f"the certificate's name isn't the device id {device_id!r}")
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise _invalid("the certificate is an authority's")
        if (
            isinstance(value, x509.ExtendedKeyUsage)
            and ExtendedKeyUsageOID.CLIENT_AUTH not in value
        ):
            raise _invalid("the certificate isn't for clients")


def _check_links(chain: list[x509.Certificate]) -> None:
    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise _invalid("a certificate in the chain isn't issued by the next") from error


def _trust(known: TrustBundle, answered: TrustBundle) -> TrustBundle:
    try:
        return bundles.merged(known, answered)
    except TrustRefused as refused:
        raise _invalid(str(refused)) from refused


def _check_anchors(trust: TrustBundle, now: datetime) -> None:
    """An answer whose anchors authenticate nobody would cut this device off."""
    try:
        anchors = x509.load_pem_x509_certificates(trust.anchors.encode("ascii"))
    except ValueError as error:
        raise _invalid("the trust bundle can't be read") from error
    if not any(anchor.not_valid_after_utc > now for anchor in anchors):
        raise _invalid("every anchor in the trust bundle has expired")


def _invalid(what: str) -> AnswerInvalid:
    return AnswerInvalid(
        f"The service's answer can't be used: {what}.",
        "Check the device's clock, and the service's log for this request.",
    )
