"""The anchors by which this device knows brokers: the newest are kept, for both zones."""

import logging
from dataclasses import dataclass
from pathlib import Path

from broker.protocol import codec
from broker.protocol.codes import Refused
from broker.protocol.messages import TrustBundle
from broker.protocol.topics import TRUST_BUNDLE
from device_client import durable
from device_client.bundles import LARGEST, same_root, successor_of
from device_client.disk import on_disk
from device_client.errors import TrustRefused
from device_client.online import Online

log = logging.getLogger(__name__)


class TrustStore:
    """The newest bundle that was verified, on the disk; the methods block on it."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the state directory."""
        self._file = directory / "trust.json"

    def newest(self, known: TrustBundle) -> TrustBundle:
        """`known` (from the claim bundle, or an identity) or its kept successor."""
        kept = self._kept()
        if kept is None or kept.version <= known.version or not same_root(kept, known):
            return known
        return kept

    def keep(self, bundle: TrustBundle) -> None:
        """From the next connection on."""
        durable.replace_file(self._file, codec.encode(bundle))

    def _kept(self) -> TrustBundle | None:
        try:
            return codec.decode(self._file.read_bytes(), TrustBundle, LARGEST)
        except FileNotFoundError:
            return None
        except (OSError, Refused) as error:
            log.warning("the kept trust bundle is damaged, and an older one counts: %s", error)
            return None


@dataclass(frozen=True)
class TrustDuty:
    """Follows the trust bundles that the service retains for the whole fleet."""

    store: TrustStore

    async def perform(self, online: Online) -> None:
        """Keeps each that may follow; the next connections are made by it."""
        known = await on_disk(self.store.newest, online.identity.trust_bundle)
        async with online.connection.watch(TRUST_BUNDLE) as watch:
            while True:
                payload = (await watch.next()).payload
                if not payload:
                    continue
                try:
                    bundle = successor_of(known, payload)
                except TrustRefused as refused:
                    log.warning("%s: %s %s", refused.stable_code, refused, refused.remedy)
                    continue
                if bundle.version > known.version:
                    await on_disk(self.store.keep, bundle)
                    log.info("trust bundle %d counts from the next connection on", bundle.version)
                    known = bundle
