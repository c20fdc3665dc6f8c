"""Claims on the service itself, without a broker: decided, signed, committed, and the answer sent
to nobody."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.ca.server_trust import FIRST_VERSION
from broker.adapters.clock import SystemClock
from broker.adapters.registry import SqlRegistry
from broker.composition.registries import open_registry
from broker.entry.cli.up import tune_garbage_collection
from broker.entry.housekeeping import Chore
from broker.protocol.messages import Endpoint, TrustBundle
from broker.protocol.zones import Zone
from broker.services.enroll import EnrollService
from broker.services.issuing import Issuing, Welcome
from broker.services.outbox import Outbox
from tests.bench.devices import Device
from tests.bench.measuring import Cost, Stopwatch
from tests.support.installation import Installation

CONCURRENT: Final = 256
CLEAR_EVERY_S: Final = 0.2
"""As the application does."""


class _Nowhere:
    """A broker that takes every answer at once."""

    async def publish(self, zone: Zone, topic: str, payload: bytes) -> None:
        """Forgets it."""


class ClaimDesk:
    """The enrollment service as `broker.composition.app` joins it, on a registry that is open."""

    def __init__(
        self, installation: Installation, registry: SqlRegistry, authority: FileAuthority
    ) -> None:
        anchors = installation.home.server_anchors.read_text(encoding="ascii")
        trust = TrustBundle(version=FIRST_VERSION, anchors=anchors)
        self._outbox = Outbox(registry, _Nowhere())
        issuing = Issuing(
            authority,
            Welcome(Endpoint(host="localhost", port=8883), trust),
            installation.settings.limits.confirm_within,
            lambda: uuid.uuid4().hex,
        )
        self._enroll = EnrollService(registry, SystemClock(), issuing)

    async def claim_all(self, devices: Sequence[Device], concurrent: int = CONCURRENT) -> Cost:
        """Every device claims once, so many at a time; the outbox is empty at the end."""
        waiting = iter(devices)
        # As the service does; and the devices are no part of it, to be walked over.
        tune_garbage_collection()
        watch = Stopwatch()
        clearing = asyncio.create_task(
            Chore("outbox", CLEAR_EVERY_S, self._outbox.clear_sent).keep_doing()
        )
        try:
            async with asyncio.TaskGroup() as claimants:
                for _ in range(concurrent):
                    claimants.create_task(self._claim_from(waiting))
        finally:
            clearing.cancel()
        await self._outbox.clear_sent()
        return watch.cost(len(devices))

    async def _claim_from(self, waiting: Iterator[Device]) -> None:
        for device in waiting:
            await self._outbox.send(await self._enroll.enroll(device.origin, device.request))


@asynccontextmanager
async def claim_desk(installation: Installation) -> AsyncIterator[ClaimDesk]:
    """The installation's service, on its registry."""
    authority = await asyncio.to_thread(FileAuthority.load, installation.home)
    async with open_registry(installation.home, installation.settings) as registry:
        yield ClaimDesk(installation, registry, authority)


def parts(devices: Sequence[Device], size: int) -> Iterator[list[Device]]:
    """The devices in rounds of `size`."""
    rest = iter(devices)
    while part := list(itertools.islice(rest, size)):
        yield part
