"""Reaching a host by its name: which of its addresses, and what is left behind."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from device_client import dialing

LOOPBACK = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as listening:
        yield listening


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Bound, so nobody else has the port, and refusing, as it doesn't listen."""
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        yield bound


def resolve_to(monkeypatch: pytest.MonkeyPatch, *places: dialing.Place) -> None:
    async def found(host: bytes, _port: int, **kind: socket.SocketKind) -> list[object]:
        assert (host, kind) == (b"broker.example", {"type": socket.SOCK_STREAM})
        return [(family, kind["type"], 0, "", address) for family, address in places]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)


def place_of(bound: socket.socket) -> dialing.Place:
    return socket.AF_INET, bound.getsockname()


async def test_a_name_is_reached(listener: socket.socket) -> None:
    with await dialing.dial("localhost", listener.getsockname()[1]) as reached:
        assert reached.getpeername() == listener.getsockname()
        assert reached.getblocking() is False


async def test_the_next_address_when_one_refuses(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, silent: socket.socket
) -> None:
    resolve_to(monkeypatch, place_of(silent), place_of(listener))
    with await dialing.dial("broker.example", 1) as reached:
        assert reached.getpeername() == listener.getsockname()


async def test_the_next_address_beside_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, silent: socket.socket
) -> None:
    reach, gone = dialing._reached, asyncio.Event()

    async def slow(place: dialing.Place) -> socket.socket:
        if place == place_of(listener):
            return await reach(place)
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    monkeypatch.setattr(dialing, "_reached", slow)
    resolve_to(monkeypatch, place_of(silent), place_of(listener))
    with await dialing.dial("broker.example", 1) as reached:
        assert reached.getpeername() == listener.getsockname()
    assert gone.is_set()


async def test_two_that_get_through_at_once_leave_one(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    made: list[socket.socket] = []
    both = asyncio.Event()

    async def together(place: dialing.Place) -> socket.socket:
        connection = socket.create_connection(place[1])
        made.append(connection)
        if len(made) == 2:
            both.set()
        await both.wait()
        return connection

    monkeypatch.setattr(dialing, "_reached", together)
    resolve_to(monkeypatch, place_of(listener), place_of(listener))
    with await dialing.dial("broker.example", 1) as reached:
        assert [each for each in made if each.fileno() >= 0] == [reached]


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, silent: socket.socket) -> None:
    resolve_to(monkeypatch, place_of(silent), place_of(silent))
    with pytest.raises(ConnectionRefusedError):
        await dialing.dial("broker.example", 1)


async def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch)
    with pytest.raises(OSError, match="no address"):
        await dialing.dial("broker.example", 1)


def test_the_families_alternate() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found: list[dialing.Place] = [(six, "a"), (six, "b"), (six, "c"), (four, "d"), (four, "e")]
    assert [address for _, address in dialing._by_turns(found)] == ["a", "d", "b", "e", "c"]


@pytest.mark.parametrize(
    ("host", "wire"),
    [
        ("broker.example", b"broker.example"),
        ("::1", b"::1"),
        ("bücher.example", b"xn--bcher-kva.example"),
    ],
)
def test_names_on_the_wire(host: str, wire: bytes) -> None:
    assert dialing.in_ascii(host) == wire


def test_what_is_no_name() -> None:
    with pytest.raises(ValueError, match="label"):
        dialing.in_ascii("ü" * 64)
