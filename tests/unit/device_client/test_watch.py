"""What a watch hears, and how much it holds."""

import asyncio

import pytest

from device_client.errors import ConnectionLost
from device_client.packets import Publication
from device_client.watching import MAX_WAITING, MAX_WAITING_BYTES, Watch


def watch(*filters: str) -> tuple[Watch, "asyncio.Future[None]"]:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    return Watch(filters, ended), ended


def message(topic: str, payload: bytes = b"") -> Publication:
    return Publication(topic, payload, 1)


@pytest.mark.parametrize(
    ("pattern", "topic", "hears"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/b", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "b", False),
        ("#", "a", True),
    ],
)
async def test_filters(pattern: str, topic: str, hears: bool) -> None:
    assert watch(pattern)[0].take(message(topic)) is hears


async def test_messages_come_in_order_and_before_the_end() -> None:
    one, ended = watch("a/+")
    for topic in ("a/1", "b/1", "a/2"):
        one.take(message(topic))
    ended.set_result(None)
    assert [(await one.next()).topic for _ in range(2)] == ["a/1", "a/2"]
    with pytest.raises(ConnectionLost):
        await one.next()


async def test_it_wakes_who_waits() -> None:
    one, _ = watch("a")
    waiting = asyncio.create_task(one.next())
    await asyncio.sleep(0)
    one.take(message("a", b"x"))
    assert (await waiting).payload == b"x"


async def test_it_holds_only_so_many_and_so_much() -> None:
    one, _ = watch("a")
    for _ in range(MAX_WAITING + 1):
        assert one.take(message("a"))
    for _ in range(MAX_WAITING):
        await one.next()
    for _ in range(2):
        one.take(message("a", bytes(MAX_WAITING_BYTES // 2 + 1)))
    one.take(message("a", b"short"))
    assert len((await one.next()).payload) == MAX_WAITING_BYTES // 2 + 1
    assert (await one.next()).payload == b"short"
