"""What the fleet broker is to retain: published when it changes, and again when the broker forgot.

The registry is the truth; each change has a stamp that rises. On a topic of its own the service
retains the stamp up to which it has published, the mark. A broker that lost its memory has lost the
mark too, and one that came back with an older memory has an older mark: what is newer than the mark
is published again, and nothing else is.
"""

import asyncio
from collections import deque
from typing import Final

from broker.core.records import Retained
from broker.ports import FleetMemory, Registry
from broker.protocol.topics import RETAINED_MARK

COUNTER: Final = "retained"
_PAGE: Final = 250
"""So few that handing them over doesn't keep anybody else waiting."""
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
            self._start_after(await self._memory.mark())
            self._session = session
        newest = await self._registry.read(lambda tx: tx.counter(COUNTER))
        if self._marked > newest:  # the registry is a backup, older than the broker's memory
            self._start_after(0)
        if self._marked == newest:
            return 0
        published = await self._publish_all()
        # What was written since `newest` was read may be published too; the next call sees to it.
        await self._memory.retain([(RETAINED_MARK, str(newest).encode())])
        self._marked = newest
        return published

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
