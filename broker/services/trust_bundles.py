"""The trust bundle in use: given with every certificate, and retained for the whole fleet."""

from collections.abc import Awaitable, Callable

from broker.core.records import Event, EventKind
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol import codec, limits
from broker.protocol.messages import SignedTrustBundle, TrustBundle
from broker.protocol.topics import TRUST_BUNDLE
from broker.services.issuing import Welcome

_LARGEST = 2 * limits.MAX_ANSWER + limits.MAX_SIGNATURE + 128


class TrustBundles:
    """Follows the installation's bundle while the service runs."""

    def __init__(
        self,
        registry: Registry,
        read: Callable[[], Awaitable[SignedTrustBundle | None]],
        welcome: Welcome,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._read = read
        self._welcome = welcome
        self._clock = clock
        self._in_use: SignedTrustBundle | None = None

    async def bring_up_to_date(self) -> bool:
        """Takes up a bundle that is new; whether it did.

        Raises:
            Exception: it can't be read, or the registry failed; calling again tries again.
        """
        signed = await self._read()
        if signed is None or signed == self._in_use:
            return False
        bundle = codec.decode(signed.bundle.encode(), TrustBundle, _LARGEST)
        # First what is given with certificates: whoever has one that was issued after the moment
        # kept below has the bundle, too.
        self._welcome.trust_bundle = bundle
        await self._registry.write(lambda tx: self._publish(tx, signed, bundle))
        self._in_use = signed
        return True

    def _publish(
        self, tx: WriteTransaction, signed: SignedTrustBundle, bundle: TrustBundle
    ) -> None:
        known = published_version(tx)
        if known is not None and known >= bundle.version:
            return
        tx.retain({TRUST_BUNDLE: codec.encode(signed)})
        now = self._clock.now()
        tx.save_bundle_publication(bundle.version, now)
        detail = f"version {bundle.version}"
        tx.add_event(Event(now, EventKind.TRUST_BUNDLE_PUBLISHED, detail=detail))


def published_version(view: ReadTransaction) -> int | None:
    """The version that the fleet's broker retains; none when it was never replaced."""
    kept = view.retained(TRUST_BUNDLE)
    if kept is None or not kept.payload:
        return None
    signed = codec.decode(kept.payload, SignedTrustBundle, _LARGEST)
    return codec.decode(signed.bundle.encode(), TrustBundle, _LARGEST).version
