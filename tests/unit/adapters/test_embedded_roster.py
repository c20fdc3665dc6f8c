"""The book of connections, and the pipes between guard and core."""

import asyncio

import pytest

from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.peer import Peer
from broker.adapters.brokers.embedded.pipe import CoreReader, CoreWriter, Outbox
from broker.adapters.brokers.embedded.policy import Identity
from broker.adapters.brokers.embedded.roster import Roster
from broker.protocol.zones import Zone
from tests.support.tasks import Background
from tests.support.waiting import eventually

DEV = Identity(Zone.FLEET, "dev", "dev")


def _peer(name: str = "dev", serial: int = 1, is_service: bool = False) -> Peer:
    return Peer(name, b"issuer", serial, is_service)


class Fake:
    """A connection that ends when it is told to, or when the test lets it."""

    def __init__(self, roster: Roster, now_s: float = 0.0, prompt: bool = True) -> None:
        self.peer: Peer | None = None
        self.identity: Identity | None = None
        self.ended = asyncio.Event()
        self.ending: Ending | None = None
        self._roster = roster
        self._prompt = prompt
        self.task = asyncio.create_task(self.ended.wait())
        roster.add(self, self.task, now_s)  # type: ignore[arg-type]

    def end(self, ending: Ending, detail: str = "") -> None:
        self.ending = self.ending or ending
        if self._prompt:
            self.leave()

    def leave(self) -> None:
        if not self.ended.is_set():
            self._roster.remove(self, self.ending or Ending.CLIENT_LEFT)
            self.ended.set()


async def test_a_name_is_counted_until_its_connection_has_gone() -> None:
    roster = Roster()
    first, second = Fake(roster), Fake(roster)
    roster.enter(first, _peer(), at_most=1)
    with pytest.raises(Ended):
        roster.enter(second, _peer(), at_most=1)
    assert second.peer is None
    roster.enter(second, _peer(is_service=True), at_most=1)
    first.leave()
    third = Fake(roster)
    roster.enter(third, _peer(), at_most=1)


async def test_a_takeover_waits_for_the_old_one() -> None:
    roster = Roster()
    old, new = Fake(roster, prompt=False), Fake(roster)
    await roster.take_over(DEV, old)
    taking = asyncio.create_task(roster.take_over(DEV, new))
    await eventually(lambda: old.ending is Ending.TAKEN_OVER)
    assert not taking.done()
    old.leave()
    await taking
    assert new.identity == DEV


async def test_of_rivals_each_waits_for_the_one_before() -> None:
    roster = Roster()
    rivals = [Fake(roster) for _ in range(10)]
    background = Background()
    for rival in rivals:
        background.start(roster.take_over(DEV, rival))
    await background.finish()
    assert [rival.ending for rival in rivals].count(None) == 1
    assert len(roster) == 1


async def test_an_old_one_that_has_gone_takes_nothing_with_it() -> None:
    roster = Roster()
    old, new, newer = Fake(roster), Fake(roster), Fake(roster)
    await roster.take_over(DEV, old)
    await roster.take_over(DEV, new)
    old.leave()
    await roster.take_over(DEV, newer)
    assert new.ending is Ending.TAKEN_OVER


async def test_the_oldest_newcomer_is_crowded_out_when_it_is_old_enough() -> None:
    roster = Roster()
    older, newer = Fake(roster, now_s=1.0), Fake(roster, now_s=2.0)
    roster.crowd_out(before_s=1.0)
    assert older.ending is None
    roster.crowd_out(before_s=1.5)
    assert [older.ending, newer.ending] == [Ending.CROWDED_OUT, None]
    roster.has_connected(newer)
    roster.crowd_out(before_s=9.0)
    assert newer.ending is None


async def test_only_the_chosen_end() -> None:
    roster = Roster()
    chosen, other, unknown = Fake(roster), Fake(roster), Fake(roster)
    roster.enter(chosen, _peer(serial=1), 9)
    roster.enter(other, _peer(serial=2), 9)
    count = await roster.end(Ending.LOCKED_OUT, 1.0, lambda peer: peer.serial == 1)
    assert count == 1
    assert [fake.ending for fake in (chosen, other, unknown)] == [Ending.LOCKED_OUT, None, None]
    assert await roster.end(Ending.BROKER_STOPPED, 1.0) == 2
    assert roster.endings == {Ending.LOCKED_OUT: 1, Ending.BROKER_STOPPED: 2}


async def test_who_does_not_end_is_abandoned() -> None:
    roster = Roster()
    stubborn = Fake(roster, prompt=False)
    await roster.end(Ending.BROKER_STOPPED, 0.05)
    await roster.abandon()
    assert stubborn.task.cancelled()


async def test_an_outbox_is_bounded_and_tells_when_it_is_crowded() -> None:
    outbox = Outbox(limit=10)
    outbox.put(b"12345")
    crowded = [outbox.is_crowded]
    outbox.put(b"x" * 100)
    assert [*crowded, outbox.is_crowded] == [False, True]
    with pytest.raises(Ended) as ended:
        outbox.put(b"1")
    assert ended.value.ending is Ending.STALLED
    waiting = asyncio.create_task(outbox.room())
    assert await outbox.take(at_least=1) == b"12345"
    assert not waiting.done()
    assert await outbox.take(at_least=1) == b"x" * 100
    await waiting
    taking = asyncio.create_task(outbox.take(at_least=1))
    outbox.put(b"a")
    assert await taking == b"a"


async def test_the_reader_counts_what_the_core_has_not_read() -> None:
    reader = CoreReader()
    reader.feed(b"abc")
    assert await reader.read(2) == b"ab"
    assert reader.waiting == 1
    reader.feed_eof()
    reader.feed(b"late")
    assert await reader.read() == b"c"
    reader.feed(b"later")
    assert reader.waiting == 0


async def test_the_writer_gives_whole_packets_until_it_is_closed() -> None:
    frames: list[bytes] = []
    writer = CoreWriter(("host", 1), frames.append, Outbox(1).room)
    writer.write(b"\xd0")
    writer.write(b"\x00\xd0\x00")
    await writer.drain()
    assert frames == [b"\xd0\x00"] * 2
    assert (writer.get_peer_info(), writer.get_ssl_info()) == (("host", 1), None)  # type: ignore[func-returns-value]
    await writer.close()
    with pytest.raises(ConnectionResetError):
        writer.write(b"\xd0\x00")
