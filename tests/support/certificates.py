"""A Muster home with real authorities, and clients' certificates of every kind from it."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.adapters.ca.building import build_leaf
from broker.adapters.ca.claim_authority import issue_claim_certificate, sign_claim_crl
from broker.adapters.ca.file_authority import FileAuthority, serial_of
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.adapters.ca.key_files import generate_key, key_pem
from broker.adapters.ca.loading import load_signer
from broker.core.certificate_profile import Profile, Validity
from broker.core.records import RevocationReason
from broker.ports.authorities import Revocation
from broker.protocol.names import ClaimName, DeviceId
from broker.protocol.zones import Zone
from tests.support.templates import copied_home

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Client:
    """A certificate with its key in files, and the anchors by which it knows brokers."""

    name: str
    certificate: Path
    key: Path
    anchors: Path

    def context(self) -> ssl.SSLContext:
        """For one or more connections; authenticates the broker."""
        context = ssl.create_default_context(cafile=str(self.anchors))
        context.load_cert_chain(self.certificate, self.key)
        return context

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate itself, without a chain."""
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())


def forged(
    home: MusterHome, zone: Zone, name: str, place: Path, not_after: datetime | None = None
) -> Client:
    """What a thief of the zone's own authority makes: any name, the service's too. It began an
    hour ago, and ends in an hour unless that is said."""
    signer = load_signer(home.claim if zone is Zone.CLAIM else home.operational, None)
    key = generate_key()
    now = datetime.now(UTC)
    valid = Validity(now - _HOUR, not_after or now + _HOUR)
    leaf = build_leaf(signer, Profile.DEVICE, name, key.public_key(), valid)
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (leaf, signer.certificate))
    return _write(place / f"forged-{zone}", name, chain.decode(), key_pem(key).decode(), home)


class Certificates:
    """Everything that the authorities of one home can issue and revoke."""

    def __init__(self, place: Path, strangers: bool = False) -> None:
        """Makes the home in `place`, a folder that exists; `strangers` are of no other home."""
        self.home = MusterHome(place / "home")
        if strangers:
            create_home(self.home, hosts=["localhost"], passphrase=None, now=datetime.now(UTC))
        else:
            copied_home(self.home.path)
        self._clients = place / "clients"
        self._clients.mkdir()
        self._authority = FileAuthority.load(self.home)
        self._crl_number = 0
        self._signed_at = datetime.now(UTC)
        self._revoked: dict[Zone, list[Revocation]] = {zone: [] for zone in Zone}

    def claim(self, name: str) -> Client:
        """A claim certificate."""
        now = datetime.now(UTC)
        issued = issue_claim_certificate(self.home, ClaimName(name), now + _HOUR, now, None)
        return self._write("claim", name, issued.certificate_pem, issued.key_pem)

    def device(self, name: str, with_chain: bool = True) -> Client:
        """An operational certificate, with what a device sends after it."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        issued = self._authority.issue(DeviceId(name), key.public_key(), now - _HOUR, now + _HOUR)
        chain = self._authority.chain_pem if with_chain else ""
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return self._write("device", name, issued.pem + chain, key_pem)

    def forged(self, zone: Zone, name: str, not_after: datetime | None = None) -> Client:
        """As the function `forged`."""
        return forged(self.home, zone, name, self._clients, not_after)

    def service(self, zone: Zone) -> Client:
        """The service's own certificate in a zone."""
        pair = self.home.service(zone)
        return Client(
            f"muster-service-{zone}", pair.certificate, pair.key, self.home.server_anchors
        )

    def revoke(self, zone: Zone, clients: Sequence[Client]) -> bytes:
        """The zone's CRL file with these added to all that were revoked before.

        Each is signed as of a later second than the one before: of two CRLs with the same
        thisUpdate, OpenSSL may go on using the older in handshakes that are under way.
        """
        now = datetime.now(UTC)
        self._signed_at = max(now, self._signed_at + timedelta(seconds=1))
        self._crl_number += 1
        self._revoked[zone] += [
            Revocation(serial_of(client.leaf), now, RevocationReason.OPERATOR) for client in clients
        ]
        revoked = self._revoked[zone]
        if zone is Zone.CLAIM:
            return sign_claim_crl(self.home, revoked, self._crl_number, self._signed_at, None)
        return self._authority.sign_crl(revoked, self._crl_number, self._signed_at)

    def now(self) -> datetime:
        """A present in which every CRL made so far holds."""
        return max(datetime.now(UTC), self._signed_at)

    def _write(self, kind: str, name: str, certificate_pem: str, key_pem: str) -> Client:
        stem = f"{kind}-{len(list(self._clients.iterdir()))}-{name}"
        return _write(self._clients / stem, name, certificate_pem, key_pem, self.home)


def _write(stem: Path, name: str, certificate_pem: str, key_pem: str, home: MusterHome) -> Client:
    certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
    certificate.write_text(certificate_pem)
    key.touch(0o600)
    key.write_text(key_pem)
    return Client(name, certificate, key, home.server_anchors)
