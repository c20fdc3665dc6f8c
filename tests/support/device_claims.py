"""A claim without brokers: the keystore's part of it, and a service that remembers what it saw."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.protocol.bundle import ClaimBundle
from broker.protocol.messages import Endpoint, EnrollAccepted, TrustBundle
from broker.protocol.names import SerialNumber
from device_client import keys, keystore
from device_client.answers import check_answer
from device_client.enrollment import Enrollment
from device_client.identity import Identity, Origin
from device_client.keys import KeyType
from device_client.keystore import Keystore

SERIAL = SerialNumber("A1")
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
ENDPOINT = Endpoint(host="localhost", port=8883)


def name(common_name: str) -> x509.Name:
    """A subject of this name alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class TestAuthority:
    """An issuing authority with one key and no rules."""

    __test__ = False

    def __init__(self, common_name: str = "Test Operational CA") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name(common_name)
        self.certificate = self.issue(common_name, self.key.public_key(), is_ca=True)

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        common_name: str,
        key: CertificatePublicKeyTypes,
        *,
        is_ca: bool = False,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        valid: tuple[timedelta, timedelta] = (timedelta(hours=-1), timedelta(days=90)),
    ) -> x509.Certificate:
        """A certificate, valid from and to so long after `NOW`."""
        builder = (
            x509.CertificateBuilder(self.name, name(common_name), key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + valid[0])
            .not_valid_after(NOW + valid[1])
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        )
        if not is_ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Service:
    """Accepts everybody; the same certificate for the same key."""

    def __init__(self) -> None:
        self.authority = TestAuthority()
        self.trust = TrustBundle(version=1, anchors=self.authority.pem)
        self.seen: list[str] = []
        """Fingerprints of the keys in the requests, in order."""
        self._issued: dict[str, str] = {}

    def enrollment(self) -> Enrollment:
        """What a device is told. The bundle's certificate is never used here."""
        bundle = ClaimBundle(
            claim_name="batch-7",
            certificate="unused",
            private_key="unused",
            claim=ENDPOINT,
            trust_bundle=self.trust,
        )
        return Enrollment(bundle=bundle, serial=SERIAL)

    def enroll(self, csr_pem: str) -> EnrollAccepted:
        """The answer to a request."""
        key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
        fingerprint = keys.fingerprint(key)
        self.seen.append(fingerprint)
        if fingerprint not in self._issued:
            leaf = self.authority.issue("lamp-A1", key)
            self._issued[fingerprint] = leaf.public_bytes(Encoding.PEM).decode()
        return EnrollAccepted(
            request_id="1",
            device_id="lamp-A1",
            certificate_chain=self._issued[fingerprint] + self.authority.pem,
            not_after=NOW + timedelta(days=90),
            confirm_by=None,
            fleet=ENDPOINT,
            trust_bundle=self.trust,
        )


def enroll(store: Keystore, service: Service) -> Identity:
    """Asks with the kept key and stores the answer, as the agent does."""
    pending = store.key_for_claim(SERIAL, KeyType.P256)
    answer = service.enroll(keys.signing_request(pending.key))
    fingerprint = keys.fingerprint(pending.key.public_key())
    return store.install(check_answer(answer, fingerprint, service.trust, NOW), pending)


def claim(state: Path, service: Service) -> Identity:
    """From whatever is in `state` to a confirmed identity."""
    with keystore.opened(state) as store:
        store.remember(service.enrollment())
        identity = store.current() or enroll(store, service)
        return identity if identity.confirmed_at else store.confirm(identity, NOW)


def claim_again(state: Path, service: Service) -> None:
    """A device that doubts its certificate asks for it again."""
    with keystore.opened(state) as store:
        store.confirm(enroll(store, service), NOW)


def renew(state: Path, service: Service) -> None:
    """A member gets its successor's certificate, connects with it, and proves it."""
    with keystore.opened(state) as store:
        current = store.current() or enroll(store, service)
        successor = store.succession.successor() or stage(store, service, current)
        store.succession.promote(successor, NOW)


def stage(
    store: Keystore, service: Service, current: Identity, origin: Origin = Origin.RENEWAL
) -> Identity:
    """Asks for the successor with the kept key, as the agent does."""
    key = store.succession.key_for(current, KeyType.P256, NOW)
    answer = service.enroll(keys.signing_request(key.key))
    grant = check_answer(answer, keys.fingerprint(key.key.public_key()), service.trust, NOW)
    return store.succession.stage(grant, current, key, origin)


def give_up(state: Path, service: Service) -> None:
    """The successor turns out to be of no use."""
    with keystore.opened(state) as store:
        current = store.current() or enroll(store, service)
        stage(store, service, current)
        store.succession.drop(current)


def discard(state: Path, service: Service) -> None:
    """A device whose certificate was revoked claims once more."""
    with keystore.opened(state) as store:
        identity = store.current()
        if identity is not None:
            store.discard_certificate(identity)
        store.confirm(enroll(store, service), NOW)


def assert_settled(state: Path, service: Service, identity: Identity) -> None:
    """One identity whose key is the only one that the service ever saw, and no litter."""
    assert set(service.seen) == {identity.key_sha256}
    assert_tidy(state, identity)


def assert_tidy(state: Path, identity: Identity) -> None:
    """One confirmed identity and nothing else, readable by the device's user only."""
    assert identity.confirmed_at is not None
    with keystore.opened(state) as store:
        assert store.current() == identity
    names = {path.relative_to(state).as_posix() for path in state.rglob("*")}
    number = identity.directory.name
    files = ("key.pem", "chain.pem", "trust.pem", "identity.json")
    slot = {f"credentials/{number}/{file}" for file in files}
    assert names == slot | {
        "lock",
        "enrollment.json",
        "credentials",
        f"credentials/{number}",
        "current",
    }
    for path in state.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.stat().st_mode & 0o777 == 0o600, path
