"""Whom the listener trusts: the TLS context and the revocations, built together from files.

A new CRL means a new context: loading it into a live one would leak the old, and keep session
tickets alive that were made before the revocation.
"""

import ssl
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.brokers.embedded.errors import BrokerError, BrokerErrorCode

_END_OF_CRL: Final = b"-----END X509 CRL-----"
_KEY_REMEDY: Final = "Check that key and certificate belong together, and give the passphrase."


@dataclass(frozen=True)
class BrokerTls:
    """The files that one zone's listener is made of; all PEM.

    `certificate` holds the server's chain, `client_anchors` every CA that a device's chain needs,
    and `infrastructure_anchor` the CAs whose certificates make a client the service: one, or two
    while one replaces the other. `crl` and `infrastructure_crl` hold one CRL for each of those that
    issues client certificates.
    """

    certificate: Path
    key: Path
    client_anchors: Path
    crl: Path
    infrastructure_anchor: Path
    infrastructure_crl: Path
    key_passphrase: bytes | None = None


@dataclass(frozen=True)
class Trust:
    """What is in force, all of one reading: never changed, only replaced."""

    context: ssl.SSLContext
    infrastructure: tuple[x509.Certificate, ...]
    issuers: frozenset[bytes]
    """Whose certificates are judged at all: those with a CRL, by their names in DER."""
    revoked: frozenset[tuple[bytes, int]]

    def is_revoked(self, issuer: bytes, serial: int) -> bool:
        """Whether the certificate `serial` of `issuer` (its name in DER) is on a CRL, or its issuer
        has none any more, as in a handshake that began before an authority was dropped."""
        return issuer not in self.issuers or (issuer, serial) in self.revoked


def load_trust(tls: BrokerTls, now: datetime) -> Trust:
    """Reads and checks all of `tls`; blocks, so call it in a thread.

    Every CRL is signed by an anchor and in its validity, and every anchor that issues only leaf
    certificates (path length 0) has one. CRLs of others don't count: an authority that comes has
    its CRL first, and one that goes has it last.

    Raises:
        BrokerError: something is missing, faulty, expired or not signed by whom it should be.
    """
    devices = _certificates(_read(tls.client_anchors, "client anchors"), tls.client_anchors)
    infrastructure = _certificates(
        _read(tls.infrastructure_anchor, "infrastructure anchor"), tls.infrastructure_anchor
    )
    anchors = [*devices, *infrastructure]
    crls = {
        tls.crl: _read(tls.crl, "CRL"),
        tls.infrastructure_crl: _read(tls.infrastructure_crl, "infrastructure CRL"),
    }
    revoked: dict[bytes, list[int]] = {}
    for path, pem in crls.items():
        revoked |= _revocations(pem, path, anchors, now)
    _require_complete(revoked, anchors)
    return Trust(
        _context(tls, anchors, crls),
        tuple(infrastructure),
        frozenset(revoked),
        frozenset((issuer, serial) for issuer, serials in revoked.items() for serial in serials),
    )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BrokerError(
            BrokerErrorCode.FILE_MISSING,
            f"The {what} file {path} is missing.",
            "Run 'muster init', or put the file back.",
        ) from error
    except OSError as error:
        raise BrokerError(
            BrokerErrorCode.FILE_UNREADABLE,
            f"The {what} file {path} can't be read: {error.strerror}.",
            "Make it readable for the user that runs the broker.",
        ) from error


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise BrokerError(
            BrokerErrorCode.CERTIFICATE_INVALID,
            f"{path} holds no readable certificate.",
            "Put the PEM certificates back that 'muster init' made.",
        ) from error


def _revocations(
    pem: bytes, path: Path, anchors: Sequence[x509.Certificate], now: datetime
) -> dict[bytes, list[int]]:
    """What each of the anchors has revoked, by its name in DER."""
    known = {anchor.subject for anchor in anchors}
    try:
        crls = [crl for crl in _parse_crls(pem) if crl.issuer in known]
        for crl in crls:
            _check_signature(crl, anchors)
            _check_validity(crl, now)
        return {crl.issuer.public_bytes(): [entry.serial_number for entry in crl] for crl in crls}
    except (ValueError, x509.InvalidVersion) as error:  # parsing is lazy, so each step may fail
        raise _corrupt_crl(path) from error


def _corrupt_crl(path: Path) -> BrokerError:
    return BrokerError(
        BrokerErrorCode.CRL_CORRUPT,
        f"{path} holds no readable CRL.",
        "Have the service write the CRL again; the old one stays in force until then.",
    )


def _parse_crls(pem: bytes) -> list[x509.CertificateRevocationList]:
    blocks = [block + _END_OF_CRL for block in pem.split(_END_OF_CRL)[:-1]]
    if not blocks:
        raise ValueError("no CRL")
    return [x509.load_pem_x509_crl(block.lstrip()) for block in blocks]


def _require_complete(issuers: Collection[bytes], anchors: Sequence[x509.Certificate]) -> None:
    for anchor in anchors:
        if _issues_leaves_only(anchor) and anchor.subject.public_bytes() not in issuers:
            raise BrokerError(
                BrokerErrorCode.CRL_INCOMPLETE,
                f"The CRL files have no CRL of {anchor.subject.rfc4514_string()}.",
                "Write one CRL for each CA that issues client certificates, even an empty one.",
            )


def _check_signature(
    crl: x509.CertificateRevocationList, anchors: Sequence[x509.Certificate]
) -> None:
    for anchor in anchors:
        if anchor.subject == crl.issuer and crl.is_signature_valid(anchor.public_key()):  # type: ignore[arg-type]
            return
    raise BrokerError(
        BrokerErrorCode.CRL_UNTRUSTED,
        f"The CRL of {crl.issuer.rfc4514_string()} isn't signed by a client anchor.",
        "Have the service sign the CRL again with the CA that the broker trusts.",
    )


def _check_validity(crl: x509.CertificateRevocationList, now: datetime) -> None:
    if crl.last_update_utc > now:
        raise BrokerError(
            BrokerErrorCode.CRL_NOT_YET_VALID,
            f"The CRL of {crl.issuer.rfc4514_string()} is from {crl.last_update_utc:%H:%M:%S} UTC,"
            " which is still to come.",
            "Set this machine's clock right; with such a CRL nobody could connect.",
        )
    until = crl.next_update_utc
    if until is not None and until <= now:
        raise BrokerError(
            BrokerErrorCode.CRL_EXPIRED,
            f"The CRL of {crl.issuer.rfc4514_string()} expired at {until:%Y-%m-%d %H:%M} UTC.",
            "Have the service sign it again; with an expired CRL nobody could connect.",
        )


def _issues_leaves_only(anchor: x509.Certificate) -> bool:
    try:
        constraints = anchor.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and constraints.path_length == 0


def _context(
    tls: BrokerTls, anchors: Iterable[x509.Certificate], crls: Mapping[Path, bytes]
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    der = b"".join(anchor.public_bytes(Encoding.DER) for anchor in anchors)
    context.load_verify_locations(cadata=der)
    context.options |= ssl.OP_NO_RENEGOTIATION
    for path, pem in crls.items():
        _load_crl(context, pem, path)
    _load_server(context, tls)
    return context


def _load_crl(context: ssl.SSLContext, crl_pem: bytes, path: Path) -> None:
    # OpenSSL reads CRLs from files only. Ours may be replaced at any moment, and what comes into
    # force must be what was checked.
    with tempfile.NamedTemporaryFile(suffix=".pem") as checked:
        checked.write(crl_pem)
        checked.flush()
        try:
            context.load_verify_locations(cafile=checked.name)
        except ssl.SSLError as error:
            raise _corrupt_crl(path) from error


def _load_server(context: ssl.SSLContext, tls: BrokerTls) -> None:
    _certificates(_read(tls.certificate, "server certificate"), tls.certificate)
    _read(tls.key, "server key")
    try:
        # An empty passphrase keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(tls.certificate, tls.key, tls.key_passphrase or b"")
    except (ssl.SSLError, ValueError) as error:
        raise BrokerError(
            BrokerErrorCode.KEY_INVALID,
            f"The key {tls.key} can't be used with {tls.certificate}.",
            _KEY_REMEDY,
        ) from error
