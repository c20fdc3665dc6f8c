"""Whether a server's certificate is in date, by more than the clock (docs/adr/0013)."""

import logging
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from broker.protocol.messages import TrustBundle
from device_client.answers import Grant, parse_chain
from device_client.errors import AnswerInvalid, KeyTooOld, ServerNotTrusted
from device_client.timekeeping import Standing, Timekeeper

log = logging.getLogger(__name__)

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""
_FRESH: Final = timedelta(days=1)
"""A key that is older proves too little by its certificate's beginning."""
_BACKDATING: Final = timedelta(minutes=10)
"""How long before its issuance a certificate may begin."""


class ServerDates:
    """Judges the dates of one server's chain, which OpenSSL has verified in all but them."""

    def __init__(self, trust: TrustBundle, timekeeper: Timekeeper) -> None:
        """`trust` is what the chain was verified by."""
        self._trust = trust
        self._timekeeper = timekeeper
        self._ends: datetime | None = None
        """When the server's certificate ended, if only the clock says so."""
        self._server_ends: datetime | None = None
        """When it ends, once it was judged."""

    def suit_the_clock(self) -> bool:
        """Whether OpenSSL, which looks at the clock, may judge first."""
        return self._timekeeper.standing() is Standing.BELIEVED

    def may_differ(self, verify_code: int) -> bool:
        """Whether there is more to say when OpenSSL has refused with this code."""
        is_provable = self._trust.root is not None
        return verify_code == _NOT_YET_VALID or (verify_code == _EXPIRED and is_provable)

    def judge(self, certificate: bytes, is_checked: bool) -> bool:
        """Whether the server's certificate (DER) is in date; if not, only the clock says so.

        `is_checked` is whether OpenSSL was content with the dates of the whole chain.

        Raises:
            ServerNotTrusted: it's over for certain, or there is no way to tell.
        """
        leaf = x509.load_der_x509_certificate(certificate)
        begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        self._server_ends = ends
        if is_checked and begins <= self._timekeeper.now() < ends:
            self._timekeeper.not_before(begins)
            return True
        anchor = self._anchor_of(leaf)
        ends = self._server_ends = min(leaf.not_valid_after_utc, anchor.not_valid_after_utc)
        self._timekeeper.not_before(max(leaf.not_valid_before_utc, anchor.not_valid_before_utc))
        if ends <= self._timekeeper.floor():
            raise _over(ends)
        if self._timekeeper.now() < ends:
            return True
        if self._trust.root is None:
            raise ServerNotTrusted(
                f"By this device's clock, the server's certificate expired at {ends}.",
                "Set the device's clock; if it's right, the operator renews the certificate.",
            )
        log.warning("by the clock the server's certificate expired at %s: looking for proof", ends)
        self._ends = ends
        return False

    def settle(self, grant: Grant, key_made_at: datetime | None) -> None:
        """Takes the grant, which came over this connection, as evidence of the time.

        On a provisional connection it must prove that the server's certificate isn't over: nobody
        but our authority makes a certificate, and not before there is a key.

        Args:
            key_made_at: when the certified key was made, by this device's clock.

        Raises:
            AnswerInvalid: it begins when the server's own certificate is over: one of the two
                authorities is wrong, or was robbed, and the time isn't learnt from either.
            ServerNotTrusted: it doesn't prove that, or the contrary.
            KeyTooOld: it would if the key were fresh.
        """
        is_evidence = leads_to(grant.chain, self._trust.root)
        if self._ends is None:
            if self._server_ends is not None and grant.not_before >= self._server_ends:
                raise _contradicted(grant.not_before, self._server_ends)
            if is_evidence:
                self._timekeeper.not_before(grant.not_before)
            return
        if not is_evidence:
            raise ServerNotTrusted(
                "The server's certificate is over by this device's clock, and its answer proves "
                "nothing.",
                "Set the device's clock; if it's right, don't trust the server.",
            )
        reading = self._timekeeper.reading()
        if key_made_at is None or not timedelta() <= reading - key_made_at <= _FRESH:
            raise KeyTooOld("The server's certificate is over by this device's clock.")
        if grant.not_before + _BACKDATING + (reading - key_made_at) >= self._ends:
            self._timekeeper.not_before(grant.not_before)
            raise _over(self._ends)
        self._timekeeper.proven(grant.not_before)

    def _anchor_of(self, leaf: x509.Certificate) -> x509.Certificate:
        anchors = x509.load_pem_x509_certificates(self._trust.anchors.encode("ascii"))
        issuers = [one for one in anchors if _is_issued(leaf, one)]
        if not issuers:
            raise ServerNotTrusted(
                "The server's certificate isn't issued directly by an anchor, and its dates can't "
                "be judged by this device's clock.",
                "Set the device's clock.",
            )
        return max(issuers, key=lambda one: one.not_valid_after_utc)


def _is_issued(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def leads_to(chain_pem: str, root_pem: str | None) -> bool:
    """Whether the chain, whose links are verified, ends at or right below this root, and its
    certificate begins while all its issuers live.

    Only such a certificate says anything about the time: a broker that was taken over could make up
    others, and put a device's floor out of everybody's reach. A stolen issuer's key can't get
    beyond the end that the root gave it.
    """
    if root_pem is None:
        return False
    leaf, *issuers = chain = parse_chain(chain_pem)
    root = x509.load_pem_x509_certificate(root_pem.encode("ascii"))
    if chain[-1] != root and not _is_issued(chain[-1], root):
        return False
    ends = min(one.not_valid_after_utc for one in (*issuers, root))
    return leaf.not_valid_before_utc < ends


def _contradicted(begins: datetime, ends: datetime) -> AnswerInvalid:
    return AnswerInvalid(
        f"The certificate begins at {begins}, and the server that brought it has one that ends "
        f"before, at {ends}.",
        "The operator renews the broker's certificate if it's over, or else sets the service's "
        "clock.",
    )


def _over(ends: datetime) -> ServerNotTrusted:
    return ServerNotTrusted(
        f"The server's certificate expired at {ends}.",
        "The operator renews the broker's certificate.",
    )
