"""The service follows the installation's trust bundle, and never goes back."""

from broker.core.records import EventKind
from broker.protocol import codec
from broker.protocol.messages import SignedTrustBundle, TrustBundle
from broker.protocol.topics import TRUST_BUNDLE
from broker.services.issuing import Welcome
from broker.services.trust_bundles import TrustBundles, published_version
from tests.support.desk import WELCOME, Desk


class Home:
    """Holds the signed bundle, or none."""

    signed: SignedTrustBundle | None = None

    async def read(self) -> SignedTrustBundle | None:
        return self.signed


def signed(version: int) -> SignedTrustBundle:
    text = codec.encode(TrustBundle(version=version, anchors=f"ANCHORS {version}")).decode()
    return SignedTrustBundle(bundle=text, signature="c2lnbmVk")


def following(desk: Desk) -> tuple[Home, Welcome, TrustBundles]:
    home = Home()
    welcome = Welcome(WELCOME.fleet, WELCOME.trust_bundle)
    return home, welcome, TrustBundles(desk.registry, home.read, welcome, desk.clock)


async def test_a_home_whose_bundle_was_never_replaced_publishes_nothing(desk: Desk) -> None:
    _, welcome, bundles = following(desk)
    assert not await bundles.bring_up_to_date()
    assert welcome.trust_bundle == WELCOME.trust_bundle
    assert await desk.registry.read(published_version) is None


async def test_a_new_bundle_is_given_retained_and_noted_once(desk: Desk) -> None:
    home, welcome, bundles = following(desk)
    home.signed = signed(2)
    assert await bundles.bring_up_to_date()
    assert not await bundles.bring_up_to_date()
    assert welcome.trust_bundle.anchors == "ANCHORS 2"
    kept = await desk.read("retained", TRUST_BUNDLE)
    assert kept.payload == codec.encode(signed(2))
    (event,) = await desk.events()
    assert (event.kind, event.detail) == (EventKind.TRUST_BUNDLE_PUBLISHED, "version 2")


async def test_the_next_life_of_the_service_doesn_t_note_it_again(desk: Desk) -> None:
    for _ in range(2):
        home, welcome, bundles = following(desk)
        home.signed = signed(2)
        assert await bundles.bring_up_to_date()
        assert welcome.trust_bundle.version == 2
    assert len(await desk.events()) == 1


async def test_a_home_from_a_backup_takes_nothing_back(desk: Desk) -> None:
    home, _, bundles = following(desk)
    home.signed = signed(3)
    await bundles.bring_up_to_date()
    home.signed = signed(2)
    await bundles.bring_up_to_date()
    assert await desk.registry.read(published_version) == 3
