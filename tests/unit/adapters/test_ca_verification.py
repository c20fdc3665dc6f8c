"""What was issued, before independent judges: OpenSSL and the verifier of `cryptography`."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from broker.adapters.ca.building import Signer, build_leaf
from broker.adapters.ca.claim_authority import issue_claim_certificate, sign_claim_crl
from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.key_files import SigningKey, generate_key
from broker.core.certificate_profile import Profile
from broker.core.records import RevocationReason
from broker.ports.authorities import IssuedCertificate, Revocation
from broker.protocol.names import ClaimName, DeviceId
from broker.protocol.zones import Zone
from tests.unit.adapters.ca_homes import NOW, certificate_in, make_home, openssl_verify

DAY = timedelta(days=1)
KEYS: dict[str, SigningKey] = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa3072": rsa.generate_private_key(65_537, 3072),
}
NAMES = ["lamp", "_", "-lamp-", "a_b", "0", "localhost", "x" * 64]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> MusterHome:
    return make_home(tmp_path_factory.mktemp("verify"), "mqtt.example.org")


@pytest.fixture(scope="module")
def authority(home: MusterHome) -> FileAuthority:
    return FileAuthority.load(home)


def issue(
    authority: FileAuthority, name: str = "lamp", key: SigningKey | None = None
) -> IssuedCertificate:
    public = (key or generate_key()).public_key()
    return authority.issue(DeviceId(name), public, NOW, NOW + DAY)


def in_file(folder: Path, pem: str) -> Path:
    path = folder / "leaf.pem"
    path.write_text(pem)
    return path


def verify_as_client(pem: str, anchor: Path, chain_pem: str, now: datetime = NOW) -> list[str]:
    """The names that the verifier of `cryptography` found, after its checks."""
    store = Store([certificate_in(anchor)])
    verifier = PolicyBuilder().store(store).time(now).build_client_verifier()
    chain = x509.load_pem_x509_certificates(chain_pem.encode()) if chain_pem else []
    found = verifier.verify(x509.load_pem_x509_certificate(pem.encode()), chain)
    return [name.value for name in found.subjects or ()]


@pytest.mark.parametrize("kind", KEYS)
def test_openssl_takes_a_device(
    home: MusterHome, authority: FileAuthority, tmp_path: Path, kind: str
) -> None:
    leaf = in_file(tmp_path, issue(authority, key=KEYS[kind]).pem)
    anchors, crl = home.client_anchors(Zone.FLEET), home.crl_file(Zone.FLEET)
    result = openssl_verify(leaf, anchors, "-purpose", "sslclient", crl=crl)
    assert result.returncode == 0, result.stderr


def test_openssl_takes_a_device_by_the_root_alone(
    home: MusterHome, authority: FileAuthority, tmp_path: Path
) -> None:
    leaf = in_file(tmp_path, issue(authority).pem)
    chain = tmp_path / "chain.pem"
    chain.write_text(authority.chain_pem)
    options = ("-purpose", "sslclient", "-untrusted", str(chain))
    result = openssl_verify(leaf, home.root.certificate, *options, crl=home.crl_file(Zone.FLEET))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("name", NAMES)
def test_cryptography_takes_a_device(
    home: MusterHome, authority: FileAuthority, kind: str, name: str
) -> None:
    pem = issue(authority, name, KEYS[kind]).pem
    names = verify_as_client(pem, home.root.certificate, authority.chain_pem)
    assert names == [f"urn:muster:device:{name}"]


def test_a_device_is_no_server(home: MusterHome, authority: FileAuthority, tmp_path: Path) -> None:
    leaf = in_file(tmp_path, issue(authority, "localhost").pem)
    anchors = home.client_anchors(Zone.FLEET)
    result = openssl_verify(leaf, anchors, "-purpose", "sslserver")
    assert "unsuitable certificate purpose" in result.stderr
    for option in (("-verify_hostname", "localhost"), ("-verify_ip", "127.0.0.1")):
        assert openssl_verify(leaf, home.server_anchors, *option).returncode != 0
    store = Store([certificate_in(home.root.certificate)])
    server = PolicyBuilder().store(store).time(NOW).build_server_verifier(x509.DNSName("localhost"))
    with pytest.raises(VerificationError):
        server.verify(
            certificate_in(leaf), x509.load_pem_x509_certificates(authority.chain_pem.encode())
        )


def test_a_device_passes_by_no_anchor_but_its_own(
    home: MusterHome, authority: FileAuthority, tmp_path: Path
) -> None:
    leaf = in_file(tmp_path, issue(authority).pem)
    chain = tmp_path / "chain.pem"
    chain.write_text(authority.chain_pem)
    for anchors in (home.client_anchors(Zone.CLAIM), home.server_anchors):
        result = openssl_verify(leaf, anchors, "-untrusted", str(chain))
        assert "unable to get" in result.stderr
    for pair in (home.claim, home.infrastructure):
        with pytest.raises(VerificationError):
            verify_as_client(leaf.read_text(), pair.certificate, authority.chain_pem)


def test_a_claim_certificate_passes_in_its_zone_only(home: MusterHome, tmp_path: Path) -> None:
    claim = issue_claim_certificate(home, ClaimName("batch_7"), NOW + DAY, NOW, None)
    leaf = in_file(tmp_path, claim.certificate_pem)
    purpose = ("-purpose", "sslclient")
    own, other = home.client_anchors(Zone.CLAIM), home.client_anchors(Zone.FLEET)
    result = openssl_verify(leaf, own, *purpose, crl=home.crl_file(Zone.CLAIM))
    assert result.returncode == 0, result.stderr
    assert "unable to get local issuer" in openssl_verify(leaf, other, *purpose).stderr
    assert "unsuitable" in openssl_verify(leaf, own, "-purpose", "sslserver").stderr
    names = verify_as_client(claim.certificate_pem, home.claim.certificate, "")
    assert names == ["urn:muster:claim:batch_7"]
    for pair in (home.root, home.operational, home.infrastructure):
        with pytest.raises(VerificationError):
            verify_as_client(claim.certificate_pem, pair.certificate, "")


def test_a_leaf_signs_nothing(home: MusterHome, authority: FileAuthority, tmp_path: Path) -> None:
    key = generate_key()
    middle = x509.load_pem_x509_certificate(issue(authority, key=key).pem.encode())
    thief = Signer(middle, key)
    forged = build_leaf(thief, Profile.DEVICE, "other", generate_key().public_key(), thief.validity)
    pem = forged.public_bytes(Encoding.PEM).decode()
    chain = tmp_path / "chain.pem"
    chain.write_text(issue(authority, key=key).pem + authority.chain_pem)
    anchors = home.client_anchors(Zone.FLEET)
    result = openssl_verify(in_file(tmp_path, pem), anchors, "-untrusted", str(chain))
    assert "invalid CA certificate" in result.stderr


@pytest.mark.parametrize("zone", Zone)
def test_a_broker_is_a_server_under_its_names(home: MusterHome, zone: Zone) -> None:
    path = home.broker(zone).certificate
    for option in (
        ("-verify_hostname", "mqtt.example.org"),
        ("-verify_hostname", "localhost"),
        ("-verify_ip", "127.0.0.1"),
        ("-verify_ip", "::1"),
    ):
        options = ("-purpose", "sslserver", *option)
        result = openssl_verify(path, home.server_anchors, *options, crl=home.infrastructure_crl)
        assert result.returncode == 0, result.stderr
    wrong = openssl_verify(path, home.server_anchors, "-verify_hostname", "other.example.org")
    assert "hostname mismatch" in wrong.stderr
    assert "unsuitable" in openssl_verify(path, home.server_anchors, "-purpose", "sslclient").stderr


@pytest.mark.parametrize("zone", Zone)
def test_the_service_is_a_client(home: MusterHome, zone: Zone) -> None:
    path, anchors, purpose = home.service(zone).certificate, home.server_anchors, "-purpose"
    result = openssl_verify(path, anchors, purpose, "sslclient", crl=home.infrastructure_crl)
    assert result.returncode == 0, result.stderr
    assert "unsuitable" in openssl_verify(path, anchors, purpose, "sslserver").stderr
    among_devices = openssl_verify(path, home.client_anchors(zone), purpose, "sslclient")
    assert "unable to get local issuer" in among_devices.stderr
    names = verify_as_client(path.read_text(), home.infrastructure.certificate, "")
    assert names == [f"urn:muster:service:muster-service-{zone}"]


@pytest.mark.parametrize("reason", RevocationReason)
def test_openssl_refuses_a_revoked_device(
    home: MusterHome, authority: FileAuthority, tmp_path: Path, reason: RevocationReason
) -> None:
    revoked, spared = issue(authority), issue(authority)
    crl = tmp_path / "crl.pem"
    crl.write_bytes(authority.sign_crl([Revocation(revoked.serial, NOW, reason)], 1, NOW))
    anchors = home.client_anchors(Zone.FLEET)
    result = openssl_verify(in_file(tmp_path, revoked.pem), anchors, crl=crl)
    assert "certificate revoked" in result.stderr
    result = openssl_verify(in_file(tmp_path, spared.pem), anchors, crl=crl)
    assert result.returncode == 0, result.stderr


def test_openssl_refuses_a_revoked_claim_certificate(home: MusterHome, tmp_path: Path) -> None:
    claim = issue_claim_certificate(home, ClaimName("batch_7"), NOW + DAY, NOW, None)
    line = Revocation(claim.serial, NOW, RevocationReason.OPERATOR)
    crl = tmp_path / "crl.pem"
    crl.write_bytes(sign_claim_crl(home, [line], 1, NOW, None))
    anchors = home.client_anchors(Zone.CLAIM)
    result = openssl_verify(in_file(tmp_path, claim.certificate_pem), anchors, crl=crl)
    assert "certificate revoked" in result.stderr


def test_clocks_a_little_behind_are_no_reason_to_refuse(home: MusterHome, tmp_path: Path) -> None:
    claim = issue_claim_certificate(home, ClaimName("batch_7"), NOW + DAY, NOW, None)
    leaf = in_file(tmp_path, claim.certificate_pem)
    anchors, crl = home.client_anchors(Zone.CLAIM), home.crl_file(Zone.CLAIM)
    behind = NOW - timedelta(minutes=4)
    assert openssl_verify(leaf, anchors, crl=crl, at=behind).returncode == 0


def test_an_expired_crl_locks_out(
    home: MusterHome, authority: FileAuthority, tmp_path: Path
) -> None:
    """Why the service signs each day: this is what the seven days are for."""
    pem = authority.issue(DeviceId("a"), generate_key().public_key(), NOW, NOW + 30 * DAY).pem
    leaf, anchors = in_file(tmp_path, pem), home.client_anchors(Zone.FLEET)
    crl = home.crl_file(Zone.FLEET)
    assert openssl_verify(leaf, anchors, crl=crl, at=NOW + 6 * DAY).returncode == 0
    late = openssl_verify(leaf, anchors, crl=crl, at=NOW + 8 * DAY)
    assert "CRL has expired" in late.stderr
