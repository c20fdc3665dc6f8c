"""What the fleet broker is to retain: published when it changes, and again when the broker forgot.

The registry is the truth; each change has a stamp that rises. On a topic of its own the service
retains the stamp up to which it has published, the mark. A broker that lost its memory has lost the
mark too, and one that came back with an older memory has an older mark: what is newer than the mark
is published again, and nothing else is.

What was taken back leaves a tombstone, by which a broker forgets it. Tombstones of devices' topics
go some hours after the broker has read them. One that comes back with a memory from before has all
topics of all devices cleared that are to retain nothing.
"""

import asyncio
from collections import deque
from functools import partial
from typing import Final

from broker.core.records import Retained
from broker.ports.brokers import FleetMemory
from broker.ports.registry import DeviceFilter, ReadTransaction, Registry
from broker.protocol.names import DeviceId
from broker.protocol.topics import RETAINED_MARK, Desired, desired_topic

COUNTER: Final = "retained"
FLOOR: Final = "retained.floor"
_PAGE: Final = 250
"""So few that handing them over doesn't keep anybody else waiting."""
_DEVICES: Final = 100
_ON_THE_WAY: Final = 2
"""Pages: while the broker acknowledges one, the next is on its way."""

_Place = tuple[int, str]
"""A stamp, and a topic among those that have it."""


class RetainedMessages:
    """Keeps the fleet broker's memory in step with the registry."""

    def __init__(self, registry: Registry, memory: FleetMemory) -> None:
        self._registry = registry
        self._memory = memory
        self._session: int | None = None
        self._marked = 0
        self._after: _Place = (1, "")

    async def bring_up_to_date(self) -> int:
        """Publishes what the broker doesn't have; returns how many messages that were.

        Raises:
            PublishError: the broker has gone; the next call goes on where this one ended.
        """
        session = self._memory.session
        if session is None:
            return 0
        if session != self._session:
            mark = await self._memory.mark()
            if 0 < mark < await self._registry.read(lambda tx: tx.counter(FLOOR)):
                await self._clear()
            self._start_after(mark)
            self._session = session
        newest = await self._registry.read(lambda tx: tx.counter(COUNTER))
        if self._marked > newest:  # the registry is a backup, older than the broker's memory
            await self._clear()
            self._start_after(0)
        if self._marked == newest:
            return 0
        published = await self._publish_all()
        # What was written since `newest` was read may be published too; the next call sees to it.
        await self._memory.retain([(RETAINED_MARK, str(newest).encode())])
        self._marked = newest
        return published

    @property
    def told(self) -> int:
        """Up to which stamp the broker that is connected has all; 0 when that isn't known."""
        is_known = self._session is not None and self._session == self._memory.session
        return self._marked if is_known else 0

    async def _clear(self) -> None:
        """Has the broker forget what it retains for devices and shouldn't."""
        after: DeviceId | None = None
        while True:
            devices, topics = await self._registry.read(partial(_idle_topics, after=after))
            await self._memory.retain([(topic, b"") for topic in topics])
            if len(devices) < _DEVICES:
                return
            after = devices[-1]

    def _start_after(self, mark: int) -> None:
        self._marked = mark
        self._after = (mark + 1, "")

    async def _publish_all(self) -> int:
        published, place = 0, self._after
        on_the_way: deque[tuple[_Place, int, asyncio.Task[None]]] = deque()
        try:
            while page := await self._page(place):
                if len(on_the_way) == _ON_THE_WAY:
                    published += await self._arrived(on_the_way)
                place = (page[-1].stamp, page[-1].topic)
                sending = self._memory.retain([(each.topic, each.payload) for each in page])
                on_the_way.append((place, len(page), asyncio.create_task(sending)))
            while on_the_way:
                published += await self._arrived(on_the_way)
        finally:
            await _end([task for *_, task in on_the_way])
        return published

    async def _arrived(self, on_the_way: "deque[tuple[_Place, int, asyncio.Task[None]]]") -> int:
        """Waits until the broker has the first of these pages; returns how many messages it had."""
        place, count, task = on_the_way[0]
        await task
        on_the_way.popleft()
        # Not before: after a failure, what the broker may not have is published again.
        self._after = place
        return count

    async def _page(self, after: _Place) -> list[Retained]:
        stamp, topic = after
        return await self._registry.read(lambda tx: tx.retained_after(stamp, topic, _PAGE))


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _idle_topics(view: ReadTransaction, after: DeviceId | None) -> tuple[list[DeviceId], list[str]]:
    """The next devices, and those of their topics that are to retain nothing."""
    devices = [each.id for each in view.devices(DeviceFilter(after=after, limit=_DEVICES))]
    topics = [desired_topic(each, desired) for each in devices for desired in Desired]
    kept = {topic: view.retained(topic) for topic in topics}
    return devices, [topic for topic, known in kept.items() if not (known and known.payload)]
