"""What an HTTP server may do to a download: delay it, and never more than that."""

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.protocol.zones import Zone
from device_client.fetch import exchange
from device_client.fetch.errors import (
    FetchError,
    ImageTooLong,
    ImageTooSlow,
    ImageUnavailable,
    SourceUnfit,
)
from device_client.fetch.exchange import Reach, reach_of
from device_client.fetch.limits import FetchLimits
from device_client.fetch.plan import fetch
from tests.support.certificates import Certificates
from tests.support.hostile_http import (
    Asked,
    HostileServer,
    Talk,
    answers,
    honest,
    hostile,
    silent,
    whole_only,
)
from tests.support.sinks import QUICK, MemorySink, quick, target_of
from tests.support.waiting import eventually

IMAGE = bytes(range(256)) * 1000
LENGTH = len(IMAGE)


async def fetched(
    *servers: HostileServer,
    sink: MemorySink | None = None,
    limits: FetchLimits = QUICK,
    image: bytes = IMAGE,
    anchors: str = "",
) -> MemorySink:
    """The sink after a download that succeeded."""
    into = sink or MemorySink()
    urls = [server.url for server in servers]
    await fetch(target_of(image, *urls), into, None, limits, anchors)
    assert bytes(into.data) == image
    return into


async def failed(
    *servers: HostileServer, sink: MemorySink | None = None, limits: FetchLimits = QUICK
) -> FetchError:
    """Why a download couldn't be made; more than the image never gets into the sink."""
    into = sink or MemorySink()
    with pytest.raises(FetchError) as error:
        await fetch(target_of(IMAGE, *(s.url for s in servers)), into, None, limits, "")
    assert into.position <= LENGTH
    return error.value


async def test_an_image_comes_in_one_piece() -> None:
    async with hostile(honest(IMAGE)) as server:
        await fetched(server)
    (asked,) = server.asked
    assert "range" not in asked.headers
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["host"] == f"localhost:{server.port}"


async def test_nothing_is_asked_for_when_there_is_nothing_left() -> None:
    async with hostile(honest(IMAGE)) as server:
        await fetched(server, sink=MemorySink(IMAGE))
        await fetched(server, image=b"")
    assert server.asked == []


async def test_a_cut_costs_no_byte_twice() -> None:
    async with hostile(honest(IMAGE, cut_after=70_001)) as server:
        sink = await fetched(server)
    assert [asked.start for asked in server.asked] == [0, 70_001, 140_002, 210_003]
    assert [asked.headers.get("if-range") for asked in server.asked] == [None, *['"v1"'] * 3]
    assert sum(talk.sent for talk in server.talks) == LENGTH
    assert sink.restarts == 0


async def test_what_an_earlier_fetch_left_is_gone_on_with() -> None:
    async with hostile(honest(IMAGE)) as server:
        await fetched(server, sink=MemorySink(IMAGE[:1234]))
    (asked,) = server.asked
    assert asked.start == 1234
    assert server.talks[0].sent == LENGTH - 1234


async def test_a_reset_is_a_cut() -> None:
    async def reset(asked: Asked, talk: Talk) -> None:
        await talk.head(200, Content_Length=LENGTH, ETag='"v1"')
        await talk.body(IMAGE[:5000])
        talk.reset()

    async with hostile(reset, honest(IMAGE)) as server:
        await fetched(server)
    assert len(server.asked) == 2


async def test_a_server_without_ranges_starts_over() -> None:
    async with hostile(whole_only(IMAGE, cut_after=5000), whole_only(IMAGE)) as server:
        sink = await fetched(server)
    assert sink.restarts == 1
    assert server.asked[1].start == 5000


async def test_a_server_that_always_starts_over_is_given_up() -> None:
    async with hostile(whole_only(IMAGE, cut_after=5000)) as server:
        error = await failed(server)
    assert isinstance(error, ImageUnavailable)
    assert "resumed" in str(error)
    assert len(server.asked) == QUICK.restarts + 2


async def test_another_version_in_the_middle_is_begun_from_its_first_byte() -> None:
    other = IMAGE[::-1]
    async with hostile(honest(other, '"old"', 5000), honest(IMAGE, '"new"')) as server:
        sink = await fetched(server)
    assert server.asked[1].headers["if-range"] == '"old"'
    assert sink.restarts == 1


async def test_another_version_whose_server_ignores_if_range_is_noticed() -> None:
    async def careless(asked: Asked, talk: Talk) -> None:
        span = f"bytes {asked.start}-{LENGTH - 1}/{LENGTH}"
        await talk.head(206, Content_Range=span, ETag='"new"')
        await talk.body(b"!" * (LENGTH - asked.start))

    async with hostile(honest(b"?" * LENGTH, '"old"', 5000), careless, honest(IMAGE)) as server:
        sink = await fetched(server)
    assert sink.restarts == 1
    assert [asked.start for asked in server.asked] == [0, 5000, 0]


@pytest.mark.parametrize(
    "content_range",
    [
        f"bytes 0-{LENGTH - 1}/{LENGTH}",
        f"bytes 101-{LENGTH - 1}/{LENGTH}",
        f"bytes 100-{LENGTH - 1}/{LENGTH - 1}",
        f"bytes 100-/{LENGTH}",
        "bytes */100",
        "",
        f"items 100-{LENGTH - 1}/{LENGTH}",
    ],
)
async def test_a_part_that_wasn_t_asked_for_isn_t_taken(content_range: str) -> None:
    wrong = answers(206, IMAGE[100:], Content_Range=content_range)
    sink = MemorySink(IMAGE[:100])
    async with hostile(wrong) as server:
        assert isinstance(await failed(server, sink=sink), ImageUnavailable)
    assert sink.position == 100


async def test_a_part_that_nobody_asked_for_isn_t_taken() -> None:
    span = f"bytes 0-{LENGTH - 1}/{LENGTH}"
    async with hostile(answers(206, IMAGE, Content_Range=span)) as server:
        assert isinstance(await failed(server), ImageUnavailable)


@pytest.mark.parametrize(
    ("held", "status", "headers"),
    [
        (0, 200, {"Content_Length": LENGTH + 1}),
        (9, 206, {"Content_Range": f"bytes 9-{LENGTH}/{LENGTH + 1}"}),
        (9, 206, {"Content_Range": f"bytes 9-{LENGTH}/*"}),
        (9, 206, {"Content_Range": f"bytes 9-{LENGTH - 1}/{LENGTH}", "Content_Length": LENGTH}),
    ],
)
async def test_a_length_that_is_too_long_is_refused_before_a_byte_is_taken(
    held: int, status: int, headers: dict[str, str | int]
) -> None:
    sink = MemorySink(IMAGE[:held])
    async with hostile(answers(status, b"", **headers)) as server:
        assert isinstance(await failed(server, sink=sink), ImageTooLong)
    assert sink.position == held
    assert len(server.asked) == 1


async def test_a_server_that_sends_without_end_is_left_at_the_signed_length() -> None:
    async def endless(_: Asked, talk: Talk) -> None:
        await talk.head(200)
        while True:
            await talk.body(b"x" * 10_000)

    async with hostile(endless) as server:
        error = await failed(server)
        assert error.stable_code == "image_too_long"
        await eventually(lambda: server.open == 0)
    assert len(server.asked) == 1


async def test_a_length_that_is_too_short_isn_t_the_image() -> None:
    async with hostile(answers(200, IMAGE[:-1])) as server:
        assert isinstance(await failed(server), ImageUnavailable)
    assert len(server.asked) == 1


async def test_a_server_that_dribbles_is_left_for_the_next() -> None:
    async def dribble(asked: Asked, talk: Talk) -> None:
        await talk.head(200, Content_Length=LENGTH)
        for n in range(LENGTH):
            await talk.body(IMAGE[n : n + 1])
            await asyncio.sleep(0.005)

    limits = quick(slow_window_s=0.3, least_rate=10_000.0)
    async with hostile(dribble) as slow, hostile(honest(IMAGE)) as good:
        sink = await fetched(slow, good, limits=limits)
        assert 0 < good.asked[0].start < 1000
        assert isinstance(
            await failed(slow, limits=quick(**vars_of(limits), fruitless=1)), ImageTooSlow
        )
    assert sink.restarts == 0


def vars_of(limits: FetchLimits) -> dict[str, float]:
    return {"slow_window_s": limits.slow_window_s, "least_rate": limits.least_rate}


async def test_a_byte_now_and_then_keeps_nobody_busy_for_ever() -> None:
    """Each answer brings one byte and breaks off: it gets on, but isn't worth while."""
    async with hostile(honest(IMAGE, cut_after=1)) as server:
        error = await failed(server, limits=quick(slow_window_s=100.0, least_rate=1.0))
    assert isinstance(error, ImageUnavailable)
    assert len(server.asked) == QUICK.fruitless


async def test_silence_is_waited_for_no_longer_than_the_time_limit() -> None:
    async def stall(asked: Asked, talk: Talk) -> None:
        await talk.head(200, Content_Length=LENGTH, ETag='"v1"')
        await talk.body(IMAGE[:7])
        await talk.until_gone()

    limits = quick(timeout_s=0.2, fruitless=1)
    for behaviour in (silent, stall):
        async with hostile(behaviour) as server:
            assert isinstance(await failed(server, limits=limits), ImageUnavailable)
            await eventually(lambda server=server: server.open == 0)  # type: ignore[misc]


async def test_a_head_without_end_is_given_up() -> None:
    async def hundreds(_: Asked, talk: Talk) -> None:
        while True:
            await talk.body(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.01)

    async with hostile(hundreds) as server:
        error = await failed(server, limits=quick(timeout_s=0.2, fruitless=1))
        assert isinstance(error, ImageUnavailable)
        await eventually(lambda: server.open == 0)


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 410, 416, 304])
async def test_a_source_that_doesn_t_have_it_isn_t_asked_twice(status: int) -> None:
    async with hostile(answers(status)) as server, hostile(honest(IMAGE)) as good:
        assert isinstance(await failed(server), ImageUnavailable)
        assert len(server.asked) == 1
        await fetched(server, good)


async def test_a_busy_server_is_asked_again() -> None:
    async with hostile(answers(503), answers(429), honest(IMAGE)) as server:
        await fetched(server)
    assert len(server.asked) == 3


async def test_what_is_encoded_isn_t_taken() -> None:
    async with hostile(answers(200, IMAGE, Content_Encoding="gzip")) as server:
        assert isinstance(await failed(server), ImageUnavailable)


@pytest.mark.parametrize("noise", [b"", b"\x00" * 100, b"SSH-2.0-x\r\n", b"HTTP/1.1 200\r\n" * 500])
async def test_what_isn_t_http_is_given_up(noise: bytes) -> None:
    def behave(_: Asked, talk: Talk) -> Awaitable[None]:
        return talk.body(noise)

    async with hostile(behave) as server:
        await failed(server, limits=quick(fruitless=1, timeout_s=1.0))


async def test_redirects_are_followed_with_the_range() -> None:
    async with hostile(honest(IMAGE)) as good, hostile(answers(302, Location=good.url)) as first:
        await fetched(first, sink=MemorySink(IMAGE[:10]))
    assert good.asked[0].start == 10


async def test_redirects_in_a_circle_end() -> None:
    async with hostile(answers(307, Location="/image.bin")) as server:
        assert isinstance(await failed(server), ImageUnavailable)
    assert len(server.asked) == QUICK.redirects + 1


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://x/", "", "http://u:p@x/", "http://"]
)
async def test_redirects_to_anywhere_else_aren_t_followed(location: str) -> None:
    async with hostile(answers(301, Location=location)) as server:
        await failed(server, limits=quick(redirects=0))
        assert isinstance(await failed(server), ImageUnavailable)


@pytest.mark.parametrize("url", ["", "file:///x", "http://", "https://a:b@c/", "http://h:99999/"])
async def test_a_source_that_isn_t_one_is_left_for_the_next(url: str) -> None:
    async with hostile(honest(IMAGE)) as server:
        sink = MemorySink()
        await fetch(target_of(IMAGE, url, server.url), sink, None, QUICK, "")
    assert bytes(sink.data) == IMAGE


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


def server_tls(pki: Certificates) -> ssl.SSLContext:
    pair = pki.home.broker(Zone.FLEET)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


async def test_tls_is_trusted_by_the_bundle_s_anchors_too(pki: Certificates) -> None:
    anchors = pki.home.server_anchors.read_text()
    async with hostile(honest(IMAGE, cut_after=100_000), tls=server_tls(pki)) as server:
        await fetched(server, anchors=anchors)
        error = await failed(server)
    assert "can't prove who it is" in str(error)


async def test_tls_asks_for_the_right_host(pki: Certificates) -> None:
    async with hostile(honest(IMAGE), tls=server_tls(pki), address="127.0.0.2") as server:
        url = server.url.replace("localhost", "127.0.0.2")
        with pytest.raises(ImageUnavailable, match="can't prove"):
            await fetch(
                target_of(IMAGE, url), MemorySink(), None, QUICK,
                pki.home.server_anchors.read_text(),
            )  # fmt: skip
    assert server.asked == []


async def test_tls_isn_t_given_up_on_the_way(pki: Certificates) -> None:
    async with (
        hostile(honest(IMAGE)) as plain,
        hostile(answers(301, Location=plain.url), tls=server_tls(pki)) as server,
    ):
        target = target_of(IMAGE, server.url)
        anchors = pki.home.server_anchors.read_text()
        with pytest.raises(ImageUnavailable, match="without TLS"):
            await fetch(target, MemorySink(), None, QUICK, anchors)
    assert plain.asked == []


@pytest.mark.parametrize("when", ["before the head", "in the body", "in the handshake"])
async def test_who_calls_it_off_waits_for_nobody(when: str) -> None:
    async def stall(asked: Asked, talk: Talk) -> None:
        if when == "in the body":
            await talk.head(200, Content_Length=LENGTH)
            await talk.body(IMAGE[:10])
        await talk.until_gone()

    async with hostile(stall) as server:
        sink = MemorySink()
        url = server.url if when != "in the handshake" else server.url.replace("http", "https")
        task = asyncio.create_task(
            fetch(target_of(IMAGE, url), sink, None, quick(timeout_s=60), "")
        )
        await eventually(lambda: server.open == 1 and (when != "in the body" or sink.position > 0))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(60):
                await task
        await eventually(lambda: server.open == 0)


async def test_who_calls_off_a_connection_that_isn_t_made_yet_waits_for_no_thread() -> None:
    """A listener whose queue is full lets a connection hang before it's made."""
    with socket.socket() as listener, ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}/image.bin"
        await eventually(lambda: _connecting(address[1]) >= 2)
        trying = fetch(target_of(IMAGE, url), MemorySink(), None, quick(timeout_s=60), "")
        before = _connecting(address[1])
        task = asyncio.create_task(trying)
        await eventually(lambda: _connecting(address[1]) > before)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(60):
            await asyncio.get_running_loop().shutdown_default_executor()


def _connecting(port: int) -> int:
    """How many connections to the port are in the state SYN_SENT (2), as the kernel tells."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    sent = [line for line in lines if line.split()[3] == "02"]
    return len([line for line in sent if line.split()[2].endswith(f":{port:04X}")])


async def test_a_sink_that_fails_ends_it_with_its_own_reason() -> None:
    class Full(MemorySink):
        async def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    async with hostile(honest(IMAGE)) as server:
        with pytest.raises(OSError, match="No space"):
            await fetched(server, sink=Full())
        await eventually(lambda: server.open == 0)
    assert len(server.asked) == 1


@settings(max_examples=40)
@given(
    image=st.binary(min_size=1, max_size=3000),
    cuts=st.lists(st.integers(1, 1500), max_size=5),
    held=st.integers(0, 3000),
)
async def test_however_often_it_is_cut_each_byte_comes_once(
    image: bytes, cuts: list[int], held: int
) -> None:
    behaviours = [honest(image, cut_after=cut) for cut in cuts]
    sink = MemorySink(image[:held])
    async with hostile(*behaviours, honest(image)) as server:
        await fetched(server, sink=sink, image=image)
    assert sum(talk.sent for talk in server.talks) == len(image) - min(held, len(image))
    assert sink.restarts == 0


def test_a_device_at_rest_has_nothing_of_it_in_memory(tmp_path: Path) -> None:
    program = (
        "import sys, device_client.fetch.plan\n"
        "found = {'http', 'http.client', 'email', 'email.parser'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path.cwd(), timeout=60)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("127.0.0.1", Reach.HERE),
        ("::1", Reach.HERE),
        ("::ffff:127.0.0.1", Reach.HERE),
        ("0.0.0.0", Reach.HERE),
        ("169.254.169.254", Reach.HERE),
        ("fe80::1%eth0", Reach.HERE),
        ("10.0.0.1", Reach.NEAR),
        ("fd00::1", Reach.NEAR),
        ("100.64.0.1", Reach.NEAR),
        ("8.8.8.8", Reach.ANYWHERE),
    ],
)
def test_from_how_far_an_address_is_reached(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


async def test_a_server_outside_leads_to_nothing_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever serves images could have a device ask what is in its own network."""
    reaches = iter([Reach.ANYWHERE, Reach.HERE])
    monkeypatch.setattr(exchange, "reach_of", lambda _: next(reaches))
    async with (
        hostile(honest(IMAGE)) as inside,
        hostile(answers(302, Location=inside.url)) as outside,
    ):
        assert isinstance(await failed(outside, limits=quick(fruitless=1)), SourceUnfit)
    assert not inside.asked


async def test_what_a_url_may_hold_that_is_secret_is_shown_to_nobody() -> None:
    for url in ("https://ann:secret@x.invalid/", "ftp://x.invalid/?token=secret", "http://[secret"):
        with pytest.raises(FetchError) as caught:
            await fetch(target_of(IMAGE, url), MemorySink(), None, QUICK, "")
        assert "secret" not in str(caught.value)


def test_an_address_doesn_t_steer_the_terminal_that_shows_it() -> None:
    assert exchange.shown(urlsplit("http://x.invalid/a\x1b[2J")) == "http://x.invalid/a�[2J"
