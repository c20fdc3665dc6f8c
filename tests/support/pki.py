"""A public key infrastructure of the installation's shape, made in memory for one test.

Three self-signed anchors: root (which issues operational), claim and infrastructure; every one that
issues leaf certificates has a CRL.
"""

import datetime as dt
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from broker.adapters.brokers.embedded import BrokerTls, Zone

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files for a client and as objects for a test."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: Path
    key_file: Path


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Authority:
    """A CA; `path_length` 0 makes it one that issues leaves."""

    name: str
    path_length: int | None
    parent: "Authority | None" = None
    revoked: set[int] = field(default_factory=set)
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The CA's own certificate."""
        issuer = self.parent or self
        return (
            self._builder(self.name, self.key, issuer)
            .add_extension(x509.BasicConstraints(True, self.path_length), critical=True)
            .add_extension(_ca_usage(), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    def issue(
        self,
        common_name: str,
        usage: ObjectIdentifier | None = CLIENT_AUTH,
        days: tuple[float, float] = (-1, 30),
        is_ca: bool = False,
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A leaf for `common_name`, valid from and to so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(common_name, key, self, days).add_extension(
            x509.BasicConstraints(is_ca, None), critical=True
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if usage == SERVER_AUTH:
            names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256()), key

    def crl(
        self,
        valid: dt.timedelta = DAY,
        made: dt.timedelta = -DAY,
        signer: "Authority | None" = None,
    ) -> bytes:
        """The CRL of everything revoked so far, in PEM."""
        now = _now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now + made)
            .next_update(now + valid)
        )
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign((signer or self).key, hashes.SHA256())
        return crl.public_bytes(serialization.Encoding.PEM)

    @staticmethod
    def _builder(
        common_name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: "Authority",
        days: tuple[float, float] = (-2, 365),
    ) -> x509.CertificateBuilder:
        now = _now()
        return (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(_name(issuer.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=days[0]))
            .not_valid_after(now + dt.timedelta(days=days[1]))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False
            )
        )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


class Pki:
    """All anchors of an installation, with their files under `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = Authority("Test Root CA", path_length=1)
        self.operational = Authority("Test Operational CA", 0, parent=self.root)
        self.claim = Authority("Test Claim CA", 0)
        self.infrastructure = Authority("Test Infrastructure CA", 0)
        self._write("servers.pem", _pem(self.infrastructure.certificate))
        for zone in Zone:
            anchors = [each for each in self.anchors(zone) if each is not self.infrastructure]
            pem = b"".join(_pem(authority.certificate) for authority in anchors)
            self._write(f"{zone}-clients.pem", pem)
            self.write_crl(zone)
            self.pair(f"{zone}-broker", self.infrastructure, SERVER_AUTH)

    @property
    def servers(self) -> Path:
        """What a client trusts servers by."""
        return self.directory / "servers.pem"

    def anchors(self, zone: Zone) -> tuple[Authority, ...]:
        """The CAs that the zone's broker trusts clients by."""
        if zone is Zone.CLAIM:
            return (self.claim, self.infrastructure)
        return (self.root, self.operational, self.infrastructure)

    def leaf_issuer(self, zone: Zone) -> Authority:
        """The CA of the zone's devices."""
        return self.claim if zone is Zone.CLAIM else self.operational

    def device(self, zone: Zone, name: str) -> Pair:
        """A claim or device certificate."""
        return self.pair(name, self.leaf_issuer(zone))

    def service(self, zone: Zone) -> Pair:
        """The service's certificate for the zone."""
        return self.pair(f"muster-service-{zone}", self.infrastructure)

    def pair(
        self,
        common_name: str,
        issuer: Authority,
        usage: ObjectIdentifier | None = CLIENT_AUTH,
        days: tuple[float, float] = (-1, 30),
        is_ca: bool = False,
    ) -> Pair:
        """A certificate with its files."""
        certificate, key = issuer.issue(common_name, usage, days, is_ca)
        stem = f"{certificate.serial_number:x}"
        chain = _pem(certificate)
        if issuer.parent is not None:
            chain += _pem(issuer.certificate)
        if usage == SERVER_AUTH:
            stem = common_name
        key_pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Pair(
            certificate, key, self._write(f"{stem}.crt", chain), self._write(f"{stem}.key", key_pem)
        )

    def revoke(self, pair: Pair, zone: Zone) -> None:
        """Revokes a certificate and writes the zone's CRL files."""
        for authority in self.anchors(zone):
            if authority.certificate.subject == pair.certificate.issuer:
                authority.revoked.add(pair.certificate.serial_number)
        self.write_crl(zone)

    def write_crl(self, zone: Zone, pem: bytes | None = None) -> None:
        """Writes the zone's CRL files: for devices `pem`, or what is true."""
        self._write("infrastructure-crl.pem", self.infrastructure.crl())
        self._write(f"{zone}-crl.pem", pem or self.leaf_issuer(zone).crl())

    def tls(self, zone: Zone) -> BrokerTls:
        """The files of the zone's broker."""
        return BrokerTls(
            certificate=self.directory / f"{zone}-broker.crt",
            key=self.directory / f"{zone}-broker.key",
            client_anchors=self.directory / f"{zone}-clients.pem",
            crl=self.directory / f"{zone}-crl.pem",
            infrastructure_anchor=self.servers,
            infrastructure_crl=self.directory / "infrastructure-crl.pem",
        )

    def _write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path
