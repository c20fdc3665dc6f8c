"""One MQTT connection over TLS, on the asyncio event loop.

There is no MQTT library under it, for measured reasons. paho-mqtt costs a device 2 MB of memory,
takes packets of any size and connects in a thread that can't be cancelled; aiomqtt on top of it
reports a connection that ends before CONNACK, which under TLS 1.3 is how a broker refuses a
certificate, as a time-out much later.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, cast

from broker.protocol.messages import Endpoint
from broker.protocol.zones import Zone
from device_client import dialing, packets
from device_client.errors import (
    CertificateRefused,
    ConnectionLost,
    DeviceError,
    ServerNotTrusted,
    Unreachable,
)
from device_client.packets import (
    ConnAck,
    Malformed,
    Packet,
    PingResp,
    PubAck,
    Publication,
    SubAck,
)
from device_client.watching import Watch

log = logging.getLogger(__name__)

_GOODBYE_S: Final = 1.0
_REFUSALS: Final = frozenset({4, 5})
"""CONNACK's "bad user name or password" and "not authorized" (MQTT 3.1.1, 3.2.2.3)."""
_PACKET_IDS: Final = 65_535
_TURNS: Final = 4
"""Of the loop: it looks, reads, closes, and says so."""
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME: chain and host name as ever, but not the dates."""
_CERTIFICATE_EXPIRED: Final = "CERTIFICATE_EXPIRED"
"""TLS's alert 45 (RFC 8446, 6.2) in OpenSSL's name for it."""


class DateJudge(Protocol):
    """What a device thinks of a server certificate's dates, as its clock may be wrong."""

    def suit_the_clock(self) -> bool:
        """Whether OpenSSL, which looks at the clock, may judge first."""

    def may_differ(self, verify_code: int) -> bool:
        """Whether to judge where OpenSSL has refused with this code."""

    def judge(self, certificate: bytes, is_checked: bool) -> bool:
        """Whether the certificate (DER) is in date; if not, that's unproven. Or raises DeviceError.

        `is_checked` is whether OpenSSL was content with the dates.
        """


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where to connect, as whom, and how long to wait."""

    zone: Zone
    endpoint: Endpoint
    client_id: str
    context: ssl.SSLContext
    timeout_s: float
    """For each step: TCP and TLS, CONNACK, SUBACK, PUBACK."""
    keepalive_s: int
    dates: DateJudge | None = None
    """None for OpenSSL alone."""

    def __str__(self) -> str:
        """For people."""
        return f"The {self.zone} broker {self.endpoint.host}:{self.endpoint.port}"


class Connection(asyncio.Protocol):
    """An accepted connection; all waits are limited to the address's timeout but a watch's."""

    def __init__(self, address: Address) -> None:
        """Only `connected` makes one."""
        self.is_provisional = False
        """Whether the server's certificate is over by an unproven clock: believe nothing that is
        said here but a proof of the time."""
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._decoder = packets.Decoder()
        self._watches: list[Watch] = []
        self._granted: set[str] = set()
        self._accepted: asyncio.Future[ConnAck] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._acknowledged: dict[int, asyncio.Future[bool]] = {}
        self._last_packet_id = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered_pings = 0
        self._pings: deque[asyncio.Future[bool] | None] = deque()
        """Whose answer comes next, and next; none for those that only keep it alive."""
        self._heard_at = self._loop.time()
        self._alert = ""
        self._has_spoken = False

    @property
    def dates(self) -> DateJudge | None:
        """By whom the server's certificate was judged."""
        return self._address.dates

    @asynccontextmanager
    async def watch(self, *filters: str, retained: bool = True) -> AsyncIterator[Watch]:
        """What comes on topics that match the filters (MQTT 3.1.1, 4.7), until the block's end.

        It hears everything from before the broker has granted the subscription. What the broker
        retains comes first, and to other watches of the same filter too; with `retained` unset a
        filter that was granted already is not asked for again, which saves a round trip.

        Raises:
            ConnectionLost: the connection ended, or the subscription wasn't granted in time.
        """
        watch = Watch(filters, self._ended)
        self._watches.append(watch)
        try:
            wanted = filters if retained else [one for one in filters if one not in self._granted]
            if wanted:
                await self.subscribe(*wanted)
            yield watch
        finally:
            self._watches.remove(watch)

    async def subscribe(self, *filters: str) -> None:
        """Returns when the broker has granted all subscriptions.

        Raises:
            ConnectionLost: the connection ended, or they weren't granted in time.
        """
        packet_id = self._new_packet_id()
        await self._acknowledgement(packet_id, packets.subscribe(packet_id, filters))
        self._granted.update(filters)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Returns when the broker has acknowledged the message.

        Raises:
            ConnectionLost: the connection ended, or no acknowledgement came in time.
        """
        packet_id = self._new_packet_id()
        await self._acknowledgement(packet_id, packets.publish(packet_id, topic, payload))

    async def ping(self) -> None:
        """Returns when the broker has answered what was asked just now.

        Raises:
            ConnectionLost: the connection ended, or no answer came in time.
        """
        answered: asyncio.Future[bool] = self._loop.create_future()
        self._pings.append(answered)
        self._write(packets.PINGREQ)
        await self._first_of(answered)
        if not answered.done():
            raise self._lost()

    @property
    def silent_s(self) -> float:
        """For how long nothing has come, not even a part of a packet."""
        return self._loop.time() - self._heard_at

    async def until_lost(self) -> None:
        """Waits for the end.

        Raises:
            ConnectionLost: always.
        """
        await asyncio.wait((self._ended,))
        raise self._lost()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is up."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Something has arrived."""
        self._unanswered_pings = 0
        self._heard_at = self._loop.time()
        try:
            for packet in self._decoder.feed(data):
                self._handle(packet)
        except Malformed as error:
            log.warning("%s sent %s", self._address, error)
            self._abort()

    def connection_lost(self, error: Exception | None) -> None:
        """It has ended, for whatever reason."""
        self._alert = getattr(error, "reason", None) or ""
        if not self._ended.done():
            self._ended.set_result(None)

    async def _open(self) -> None:
        dates, context = self._address.dates, self._address.context
        if dates is None:
            await self._secure()
        else:
            is_checked = dates.suit_the_clock() and await self._secure(unless=dates.may_differ)
            if not is_checked:
                context.verify_flags |= _NO_CHECK_TIME
                await self._secure()
            self.is_provisional = not dates.judge(self._server_certificate(), is_checked)
        await self._hear()
        if not self._ended.done():
            self._has_spoken = True
            self._write(packets.connect(self._address.client_id, self._address.keepalive_s))
        await self._accept()
        self._ping_later()

    async def _secure(self, unless: Callable[[int], bool] = lambda _: False) -> bool:
        """TCP and TLS; false where the server's certificate failed with a code to pass over."""
        endpoint = self._address.endpoint
        try:
            async with asyncio.timeout(self._address.timeout_s):
                await self._loop.create_connection(
                    lambda: self,
                    sock=await dialing.dial(endpoint.host, endpoint.port),
                    ssl=self._address.context,
                    server_hostname=cast(str, dialing.in_ascii(endpoint.host)),
                    ssl_shutdown_timeout=_GOODBYE_S,
                )
        except TimeoutError as error:
            raise Unreachable(f"{self._address} takes too long to answer.") from error
        except ssl.SSLCertVerificationError as error:
            if unless(error.verify_code):
                return False
            raise _explained(error, self._address) from error
        except (OSError, ValueError) as error:
            raise _explained(error, self._address) from error
        return True

    def _server_certificate(self) -> bytes:
        transport = cast(asyncio.Transport, self._transport)
        secured = cast(ssl.SSLObject, transport.get_extra_info("ssl_object"))
        return cast(bytes, secured.getpeercert(binary_form=True))

    async def _hear(self) -> None:
        """Takes in a refusal that has arrived already.

        In TLS 1.3 the broker judges our certificate when our side is done (RFC 8446, 4.4.2), and
        writing to a connection that it has reset would lose the alert that says why.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _accept(self) -> None:
        """Returns when the broker has accepted us."""
        await self._first_of(self._accepted)
        if self._accepted.done():
            code = self._accepted.result().code
            if code in _REFUSALS:
                raise CertificateRefused(self._address.zone)
            if code != 0:
                raise Unreachable(f"{self._address} refuses connections with code {code}.")
        elif self._ended.done():
            raise CertificateRefused(
                self._address.zone, expired=_CERTIFICATE_EXPIRED in self._alert
            )
        else:
            raise Unreachable(f"{self._address} takes connections and then says nothing.")

    async def _close(self) -> None:
        """Says goodbye, and doesn't wait long for the other side's."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is None:
            return
        if self._has_spoken:
            self._write(packets.DISCONNECT)
        self._transport.close()
        try:
            await asyncio.wait((self._ended,), timeout=_GOODBYE_S)
        finally:
            self._abort()

    async def _acknowledgement(self, packet_id: int, packet: bytes) -> None:
        acknowledged: asyncio.Future[bool] = self._loop.create_future()
        self._acknowledged[packet_id] = acknowledged
        self._write(packet)
        try:
            await self._first_of(acknowledged)
        finally:
            del self._acknowledged[packet_id]
        if not acknowledged.done() or not acknowledged.result():
            raise self._lost()

    async def _first_of(self, future: "asyncio.Future[ConnAck] | asyncio.Future[bool]") -> None:
        """Returns when it's done, when the connection has ended, or when the time is over."""
        await asyncio.wait(
            (future, self._ended),
            timeout=self._address.timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )

    def _handle(self, packet: Packet) -> None:
        match packet:
            case ConnAck() if not self._accepted.done():
                self._accepted.set_result(packet)
            case SubAck(packet_id, granted):
                self._acknowledge(packet_id, granted)
            case PubAck(packet_id):
                self._acknowledge(packet_id, True)
            case Publication():
                self._take(packet)
            case PingResp():
                self._answer_ping()
            case _:
                pass

    def _take(self, message: Publication) -> None:
        taken = [watch.take(message) for watch in self._watches]
        if not any(taken):
            log.debug("nobody waits for a message on %s", message.topic)
        if message.packet_id is not None:
            self._write(packets.puback(message.packet_id))

    def _acknowledge(self, packet_id: int, granted: bool) -> None:
        waiting = self._acknowledged.get(packet_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(granted)

    def _answer_ping(self) -> None:
        answered = self._pings.popleft() if self._pings else None
        if answered is not None and not answered.done():
            answered.set_result(True)

    def _keep_alive(self) -> None:
        """Pings, and ends a connection whose other side has gone without a word."""
        if self._unanswered_pings >= 2:
            log.warning("%s doesn't answer any more", self._address)
            self._abort()
            return
        self._unanswered_pings += 1
        self._pings.append(None)
        self._write(packets.PINGREQ)
        self._ping_later()

    def _ping_later(self) -> None:
        self._timer = self._loop.call_later(self._address.keepalive_s / 2, self._keep_alive)

    def _write(self, packet: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(packet)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _new_packet_id(self) -> int:
        self._last_packet_id = self._last_packet_id % _PACKET_IDS + 1
        return self._last_packet_id

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"The connection was lost. {self._address} may be restarting.")


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Connection]:
    """A connection that the broker accepted, ended with the block.

    Raises:
        Unreachable: no network, no broker, or one that is busy.
        ServerNotTrusted: the server isn't the one that the anchors and host name ask for.
        CertificateRefused: the broker hung up on our certificate.
    """
    connection = Connection(address)
    try:
        await connection._open()
        yield connection
    finally:
        await connection._close()


def _explained(error: OSError | ValueError, address: Address) -> DeviceError:
    match error:
        case ssl.SSLCertVerificationError():
            return ServerNotTrusted(
                f"{address} can't prove who it is: {error.verify_message}.",
                "Check the device's clock and the host name; if they are right, don't trust it.",
            )
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            return CertificateRefused(address.zone, expired=_CERTIFICATE_EXPIRED in reason)
        case ssl.SSLError():
            return Unreachable(f"{address} doesn't speak TLS as it should: {error.reason}.")
        case OSError():
            return Unreachable(f"{address} can't be reached: {error.strerror or error}.")
        case _:
            return Unreachable(f"{address} isn't a valid address: {error}.")
