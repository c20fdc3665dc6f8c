"""Trust bundles on the device: what the root has signed replaces what it had, and nothing else."""

import base64
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.protocol import codec
from broker.protocol.messages import SignedTrustBundle, TrustBundle
from broker.protocol.statements import trust_bundle_statement
from broker.protocol.topics import TRUST_BUNDLE
from device_client.trust import TrustStore
from tests.support.fake_service import FakeFleet, fake_fleet
from tests.support.running_agents import running
from tests.support.waiting import eventually


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FakeFleet]:
    async with fake_fleet(tmp_path) as world:
        yield world


def signed(fleet: FakeFleet, bundle: TrustBundle) -> SignedTrustBundle:
    """By the installation's root."""
    text = codec.encode(bundle).decode()
    key = load_pem_private_key(fleet.certificates.home.root.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    curve_hash = hashes.SHA384() if key.curve.key_size >= 384 else hashes.SHA256()
    signature = key.sign(trust_bundle_statement(text), ec.ECDSA(curve_hash))
    return SignedTrustBundle(bundle=text, signature=base64.b64encode(signature).decode())


def newer(fleet: FakeFleet, version: int) -> TrustBundle:
    return dataclasses.replace(fleet.service.trust_bundle, version=version)


async def test_a_signed_bundle_counts_from_the_next_connection_on(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with running(state, fleet) as one:
        await one.is_online()
        await fleet.service.retain(TRUST_BUNDLE, signed(fleet, newer(fleet, 7)))
        store, known = TrustStore(state), one.identity().trust_bundle
        await eventually(lambda: store.newest(known).version == 7)
    async with running(state, fleet) as one:
        await one.is_online()
    assert (state / "trust.json").stat().st_mode & 0o777 == 0o600


async def test_what_the_root_has_not_signed_is_ignored(fleet: FakeFleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    forged = dataclasses.replace(
        signed(fleet, newer(fleet, 9)),
        bundle=codec.encode(newer(fleet, 8)).decode(),
    )
    async with running(state, fleet) as one:
        await one.is_online()
        await fleet.service.retain(TRUST_BUNDLE, forged)
        await fleet.service.retain(TRUST_BUNDLE, {"nonsense": True})
        await fleet.service.retain(TRUST_BUNDLE, signed(fleet, newer(fleet, 5)))
        store, known = TrustStore(state), one.identity().trust_bundle
        await eventually(lambda: store.newest(known).version == 5)
        await fleet.service.retain(TRUST_BUNDLE, signed(fleet, newer(fleet, 4)))
        await fleet.service.retain(TRUST_BUNDLE, signed(fleet, newer(fleet, 6)))
        await eventually(lambda: store.newest(known).version == 6)
