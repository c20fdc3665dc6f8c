"""The connections of one broker: how many there are, and which one is live for each identity."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from broker.adapters.brokers.embedded import packets
from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.peer import Peer
from broker.adapters.brokers.embedded.policy import Identity

_TAKEOVER_S = 5.0
_ABANDON_S = 0.5


class Member(Protocol):
    """A connection, as the roster sees it."""

    peer: Peer | None
    """Who it is, once its certificate is known and it has been let in."""
    identity: Identity | None
    """What it is live as, once it has taken over."""
    ended: asyncio.Event
    """Set once nothing is left of it, in the core neither."""

    def end(self, ending: Ending, detail: str = "") -> None:
        """Has it end, soon; returns at once."""


class Roster:
    """All connections. An identity has one live connection at most, and never two in the core."""

    def __init__(self) -> None:
        self._members: dict[Member, asyncio.Task[None]] = {}
        self._connecting: dict[Member, float] = {}
        self._per_name: Counter[tuple[str, bool]] = Counter()
        self._live: dict[Identity, Member] = {}
        self._moved = asyncio.Event()
        self.endings: Counter[Ending] = Counter()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def connecting(self) -> int:
        """How many haven't sent their CONNECT."""
        return len(self._connecting)

    def add(self, member: Member, task: asyncio.Task[None], now_s: float) -> None:
        """A new connection, of which nothing is known yet, served by `task`."""
        self._members[member] = task
        self._connecting[member] = now_s

    def crowd_out(self, before_s: float) -> None:
        """Ends the connection that has been about to connect for longest, if since `before_s`."""
        for member, since_s in self._connecting.items():
            if since_s < before_s:
                member.end(Ending.CROWDED_OUT)
            return

    async def wait_for_room(self, seconds: float) -> None:
        """Waits, for at most `seconds`, until somebody has connected or gone."""
        self._moved.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            return

    def enter(self, member: Member, peer: Peer, at_most: int) -> None:
        """Counts a connection under its certificate's name.

        Raises:
            Ended: TOO_MANY, when the name has `at_most` already.
        """
        key = (peer.name, peer.is_service)
        if self._per_name[key] >= at_most:
            raise Ended(Ending.TOO_MANY, f"{at_most} of this name")
        self._per_name[key] += 1
        member.peer = peer

    def has_connected(self, member: Member) -> None:
        """A connection has sent its CONNECT."""
        self._connecting.pop(member, None)
        self._moved.set()

    async def take_over(self, identity: Identity, member: Member) -> None:
        """Makes `member` the live connection of `identity`, after the old one has ended whole.

        Raises:
            Ended: CONNECT_REFUSED, when the old one doesn't end.
        """
        try:
            async with asyncio.timeout(_TAKEOVER_S):
                while (old := self._live.get(identity)) is not None:
                    old.end(Ending.TAKEN_OVER)
                    await old.ended.wait()
        except TimeoutError:
            raise Ended(
                Ending.CONNECT_REFUSED,
                "the old connection doesn't end",
                farewell=packets.connack(packets.SERVER_UNAVAILABLE),
            ) from None
        # No await in between: whoever finds no live connection becomes it.
        self._live[identity] = member
        member.identity = identity

    def remove(self, member: Member, ending: Ending) -> None:
        """Forgets a connection of which nothing is left."""
        self._members.pop(member, None)
        self.has_connected(member)
        self.endings[ending] += 1
        if member.identity is not None and self._live.get(member.identity) is member:
            del self._live[member.identity]
        if member.peer is not None:
            key = (member.peer.name, member.peer.is_service)
            self._per_name[key] -= 1
            if not self._per_name[key]:
                del self._per_name[key]

    async def end(
        self, ending: Ending, within_s: float, chosen: Callable[[Peer], bool] | None = None
    ) -> int:
        """Ends the connections whose peer is `chosen`, or all, and waits until they have ended.

        Returns how many there were, after at most `within_s` seconds.
        """
        leaving = [
            member
            for member in self._members
            if chosen is None or (member.peer is not None and chosen(member.peer))
        ]
        for member in leaving:
            member.end(ending)
        try:
            async with asyncio.timeout(within_s):
                for member in leaving:
                    await member.ended.wait()
        except TimeoutError:
            pass
        return len(leaving)

    async def abandon(self) -> None:
        """Cancels what didn't end when it was asked to."""
        tasks = set(self._members.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_ABANDON_S)
