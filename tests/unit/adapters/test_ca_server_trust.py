"""Trust bundles that devices follow, and files that work wherever a kill left them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.adapters.brokers.embedded.trust import load_trust
from broker.adapters.ca import infrastructure, server_files, successor
from broker.adapters.ca.building import Signer, build_anchor
from broker.adapters.ca.bundles import read_trust_bundle
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import replace_public
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.key_files import SigningKey
from broker.adapters.ca.loading import load_signer
from broker.adapters.ca.server_files import put_in_place
from broker.adapters.ca.server_trust import (
    ServerTrust,
    read_server_trust,
    sign_bundle,
    write_server_trust,
)
from broker.adapters.ca.successor import make_infrastructure, make_operational
from broker.composition.zone_brokers import broker_tls
from broker.core.certificate_profile import Profile, validity
from broker.core.infrastructure_rollover import ServerPhase, begin_servers
from broker.protocol import codec
from broker.protocol.messages import TrustBundle
from broker.protocol.zones import Zone
from device_client.bundles import successor_of
from tests.unit.adapters.ca_homes import NOW, certificate_in, make_home

SOON = NOW + timedelta(minutes=1)
KEYS: dict[str, Callable[[], SigningKey]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65_537, 3072),
}


@pytest.fixture
def home(tmp_path: Path) -> MusterHome:
    return make_home(tmp_path, "localhost")


def introduce(home: MusterHome) -> ServerTrust:
    """A new authority and the bundle that names it; nothing else follows yet."""
    new = make_infrastructure(home, 2, None, NOW)
    old = home.infrastructure.certificate.read_bytes()
    bundle = sign_bundle(load_signer(home.root, None), 2, [old, new])
    trust = ServerTrust(rollover=begin_servers(None, NOW), bundle=bundle)
    write_server_trust(home, trust)
    return trust


def move(home: MusterHome, trust: ServerTrust, phase: ServerPhase) -> ServerTrust:
    following = replace(trust, rollover=replace(trust.rollover, phase=phase))
    write_server_trust(home, following)
    return following


def loads(home: MusterHome, zone: Zone) -> None:
    """An embedded broker would start with these files, and know its service."""
    trust = load_trust(broker_tls(home, zone), SOON)
    service = certificate_in(home.service(zone).certificate)
    assert service.issuer in {anchor.subject for anchor in trust.infrastructure}
    assert not trust.is_revoked(service.issuer.public_bytes(), service.serial_number)


@pytest.mark.parametrize("kind", KEYS)
def test_a_device_follows_what_the_root_has_signed(kind: str) -> None:
    key = KEYS[kind]()
    root: Signer = build_anchor(Profile.ROOT, "A root", key, validity(Profile.ROOT, NOW))
    signed = sign_bundle(root, 2, [root])
    pinned = codec.decode(signed.bundle.encode(), TrustBundle, 65_536)
    known = TrustBundle(version=1, anchors=pinned.anchors, root=pinned.root)
    assert successor_of(known, codec.encode(signed)).version == 2


def test_the_first_bundle_names_the_root_that_signs_the_next(home: MusterHome) -> None:
    first = read_trust_bundle(home)
    assert first.version == 1
    assert first.root == home.root.certificate.read_text()
    trust = introduce(home)
    assert successor_of(first, codec.encode(trust.bundle)) == read_trust_bundle(home)


def test_a_damaged_file_is_said_to_be_damaged(home: MusterHome) -> None:
    assert read_server_trust(home) is None
    home.server_trust.write_text("{")
    with pytest.raises(AuthorityError) as caught:
        read_server_trust(home)
    assert caught.value.code is AuthorityCode.FILE_MALFORMED


FORWARD = [ServerPhase.INTRODUCED, ServerPhase.FLEET, ServerPhase.CLAIM, ServerPhase.DONE]
BACK = [*FORWARD[:3], ServerPhase.RETURNING, ServerPhase.CANCELLED]


@pytest.mark.parametrize("phase", ServerPhase)
def test_wherever_it_is_cut_off_the_claim_broker_starts_and_the_same_again_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: ServerPhase
) -> None:
    for cut in range(12):
        folder = tmp_path / str(cut)
        folder.mkdir()
        home = make_home(folder, "localhost")
        trust = introduce(home)
        for step in FORWARD if phase in FORWARD else BACK:
            if step is not ServerPhase.INTRODUCED:
                trust = move(home, trust, step)
            if step is phase:
                break
            put_in_place(home, trust.rollover, None, NOW)
        is_whole = _cut_off(home, trust, monkeypatch, cut)
        loads(home, Zone.CLAIM)
        put_in_place(home, trust.rollover, None, NOW)
        loads(home, Zone.CLAIM)
        expected = certificate_in(
            home.infrastructure_of(trust.rollover.issuing(Zone.CLAIM)).certificate
        )
        assert certificate_in(home.broker(Zone.CLAIM).certificate).issuer == expected.subject
        if is_whole:
            return
    raise AssertionError("it never came to its end")


def _cut_off(
    home: MusterHome, trust: ServerTrust, monkeypatch: pytest.MonkeyPatch, cut: int
) -> bool:
    """Dies before the file number `cut` is replaced; whether there were so few."""
    left = [cut]
    real = replace_public

    def counted(path: Path, content: bytes) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(server_files, "replace_public", counted)
        patched.setattr(infrastructure, "replace_public", counted)
        try:
            put_in_place(home, trust.rollover, None, NOW)
        except KeyboardInterrupt:
            return False
    return True


def test_half_a_pair_that_was_left_is_made_anew_and_a_whole_one_is_used(home: MusterHome) -> None:
    root = load_signer(home.root, None)
    first = make_operational(home, 2, root, None, NOW)
    assert make_operational(home, 2, root, None, NOW).certificate == first.certificate
    home.operational_of(2).certificate.unlink()
    second = make_operational(home, 2, root, None, NOW)
    assert second.certificate != first.certificate
    second.certificate.verify_directly_issued_by(root.certificate)
    assert home.operational_of(2).key.stat().st_mode & 0o777 == 0o600


def test_the_owner_of_the_home_gets_the_key(
    home: MusterHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever types the command."""
    given: list[tuple[str, int, int]] = []
    owner = home.ca.stat()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.chown", lambda path, uid, gid: given.append((path.name, uid, gid)))
    monkeypatch.setattr(
        Path,
        "stat",
        lambda _self, **_: SimpleNamespace(st_uid=1234, st_gid=99, st_mode=owner.st_mode),
    )
    successor._give_to_the_owner_of_the_home(home.operational_of(2).key)
    assert given == [("operational-2.key", 1234, 99)]
