"""The outbox: an answer is committed with its decision, then published, then forgotten.

After a crash, or a broker that was away, what is still in it is published again. A device that gets
an answer twice ignores the second.
"""

from collections import deque

from broker.core.records import Reply
from broker.ports.brokers import Publisher
from broker.ports.registry import Registry
from broker.protocol.zones import Zone

_PAGE = 10_000


class Outbox:
    """Publishes committed replies and clears them away in batches."""

    def __init__(self, registry: Registry, publisher: Publisher) -> None:
        self._registry = registry
        self._publisher = publisher
        self._sent: deque[str] = deque()

    async def send(self, reply: Reply) -> None:
        """Publishes a reply that is committed.

        Raises:
            PublishError: the broker didn't take it; it stays for `resend`.
        """
        await self._publisher.publish(reply.zone, reply.topic, reply.payload)
        self._sent.append(reply.id)

    async def resend(self, zone: Zone) -> int:
        """Publishes what an earlier life of the service, or of the broker, left behind.

        Raises:
            PublishError: the broker is gone again; the rest stays.
        """
        await self.clear_sent()
        waiting = await self._registry.read(lambda tx: tx.pending_replies(_PAGE, zone))
        for reply in waiting:
            await self.send(reply)
        return len(waiting)

    async def clear_sent(self) -> None:
        """Forgets what was published, in one transaction."""
        ids = [self._sent.popleft() for _ in range(len(self._sent))]
        if not ids:
            return
        try:
            await self._registry.write(lambda tx: tx.remove_replies(ids))
        except BaseException:
            self._sent.extendleft(reversed(ids))
            raise
