"""What a client may hold of the server: so many connections, so much of a request, for so long."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from broker.entry.http import server
from broker.entry.http.protocol import BoundedProtocol, address_of
from broker.entry.http.server import Allowed, HttpListenError, serving
from tests.support.http import ask
from tests.support.ports import free_port
from tests.support.waiting import eventually

WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_PIECE = b"x" * 65_536


async def hello(_: Request) -> Response:
    return PlainTextResponse("hello")


async def read_all(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def endless(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield _PIECE
            await asyncio.sleep(0)  # else it would spin, once nobody listens any more

    return StreamingResponse(pieces())


PAGES = Starlette(
    routes=[
        Route("/", hello),
        Route("/body", read_all, methods=["POST"]),
        Route("/endless", endless),
    ]
)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(PAGES, "127.0.0.1", 0) as found:
        yield found


@asynccontextmanager
async def connection(
    port: int, own: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(own, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader, within: float = 60.0) -> None:
    """Returns when the server has hung up, in whatever way."""
    async with asyncio.timeout(within):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost",
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123",
    ],
    ids=["nothing", "half a head", "half a body"],
)
async def test_a_request_that_doesn_t_come_ends_the_connection(
    port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "request_s", 0.3)
    async with connection(port) as (reader, writer):
        writer.write(sent)
        await ended(reader)


async def test_a_second_request_that_doesn_t_come_ends_the_connection(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "request_s", 0.3)
    async with connection(port) as (reader, writer):
        writer.write(WHOLE)
        await reader.readuntil(b"hello")
        writer.write(b"GET / HTTP/1.1\r\n")
        await ended(reader)


async def test_a_request_that_dribbles_in_has_no_more_time_than_another(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "request_s", 0.3)

    async def dribble(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET / HTTP/1.1\r\n")
            while True:
                writer.write(b"A: b\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with connection(port) as (reader, writer):
        dribbling = asyncio.create_task(dribble(writer))
        await ended(reader)
        dribbling.cancel()
        await asyncio.wait([dribbling])


async def test_an_answer_that_isn_t_read_ends_the_connection(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "stall_s", 0.3)
    lost = asyncio.Event()
    was_lost = BoundedProtocol.connection_lost

    def note(self: BoundedProtocol, error: Exception | None) -> None:
        was_lost(self, error)
        lost.set()

    monkeypatch.setattr(BoundedProtocol, "connection_lost", note)
    async with connection(port) as (_, writer):
        writer.write(WHOLE.replace(b"GET /", b"GET /endless"))
        async with asyncio.timeout(60):
            await lost.wait()


async def test_one_connection_too_many_is_refused_and_the_others_live(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "max_connections", 2)
    async with connection(port) as (first, writer), connection(port) as (_, _second):
        writer.write(WHOLE)
        assert b"200" in await first.readline()
        async with connection(port) as (third, _third):
            await ended(third)
        writer.write(WHOLE)
        assert b"hello" in await first.readuntil(b"hello")


async def test_places_come_free_again(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "max_connections", 1)

    async def is_served() -> bool:
        with contextlib.suppress(OSError):
            return (await ask(port, "/")).status == 200
        return False

    for _ in range(5):
        await eventually(is_served)


async def test_one_address_leaves_places_for_the_others() -> None:
    async with (
        serving(PAGES, "127.0.0.1", 0, Allowed(of_one_address=2)) as port,
        connection(port) as (first, writer),
        connection(port),
    ):
        writer.write(WHOLE)
        await first.readuntil(b"hello")
        async with connection(port) as (third, _):
            await ended(third)
        async with connection(port, "127.0.0.2") as (other, others):
            others.write(WHOLE)
            await other.readuntil(b"hello")


def test_of_ipv6_a_network_is_an_address() -> None:
    found = [
        address_of(("2001:db8::1", 1)),
        address_of(("2001:db8::ffff:2", 9)),
        address_of(("2001:db8:0:1::1", 1)),
        address_of(("fe80::1%eth0", 1)),
        address_of(("192.0.2.1", 1)),
        address_of(None),
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 5


async def test_a_flood_of_requests_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUESTS_BURST", 3)
    monkeypatch.setattr(BoundedProtocol, "request_s", 0.5)
    begun = []

    async def counted(_: Request) -> Response:
        begun.append(1)
        return PlainTextResponse("hello")

    pages = Starlette(routes=[Route("/", counted)])
    async with (
        serving(pages, "127.0.0.1", 0, Allowed(per_second=0.001)) as port,
        connection(port) as (first, writer),
        connection(port) as (second, other),
    ):
        writer.write(WHOLE * 100)
        for _ in range(3):
            await first.readuntil(b"hello")
        other.write(WHOLE)
        await ended(second)
    assert len(begun) == 3


async def test_who_waits_has_its_turn_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUESTS_BURST", 1)
    async with serving(PAGES, "127.0.0.1", 0, Allowed(per_second=100)) as port:

        async def asks() -> None:
            async with connection(port) as (reader, writer), asyncio.timeout(60):
                writer.write(WHOLE * 5)
                for _ in range(5):
                    await reader.readuntil(b"hello")

        async with connection(port) as (_, writer):
            writer.write(WHOLE * 100)  # and goes away
        await asyncio.gather(*(asks() for _ in range(4)))


async def test_a_head_that_is_too_long_is_refused(port: int) -> None:
    async with connection(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000)
        assert b" 400 " in await reader.readline()
        await ended(reader)


@pytest.mark.parametrize(
    "head",
    [b"Transfer-Encoding: chunked", b"Content-Length: 2049", b"Content-Length: 99999999999999"],
)
@pytest.mark.parametrize("path", [b"/body", b"/"])
async def test_a_body_that_may_be_endless_is_refused_before_it_is_read(
    port: int, path: bytes, head: bytes
) -> None:
    """A byte in a chunk of its own costs as much as thousands: nobody else was answered."""
    async with connection(port) as (reader, writer):
        writer.write(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
        writer.write(b"1\r\nA\r\n" * 10_000)
        assert b" 400 " in await reader.readline()
        await ended(reader)


async def test_a_body_of_a_question_s_size_is_read(port: int) -> None:
    assert (await ask(port, "/body", method="POST", body=b"x" * 2048)).body == b"2048"


async def test_the_end_doesn_t_wait_for_who_reads_for_ever() -> None:
    async with serving(PAGES, "127.0.0.1", 0) as port, connection(port) as (reader, writer):
        writer.write(WHOLE.replace(b"GET /", b"GET /endless"))
        await reader.read(1)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 60


async def test_signals_stay_the_service_s() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    async with serving(PAGES, "127.0.0.1", 0) as port:
        assert (await ask(port, "/")).status == 200
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_taken_port_is_explained() -> None:
    async with serving(PAGES, "127.0.0.1", 0) as port:
        with pytest.raises(HttpListenError, match="taken") as refused:
            async with serving(PAGES, "127.0.0.1", port):
                pass
    assert "http.port" in refused.value.remedy


async def test_the_port_is_free_afterwards() -> None:
    port = free_port()
    for _ in range(2):
        async with serving(PAGES, "127.0.0.1", port) as found:
            assert found == port
            assert (await ask(port, "/")).status == 200
