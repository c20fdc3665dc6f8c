"""One MQTT 3.1.1 connection over TLS, on paho's client and the asyncio event loop.

It sits on paho's own interface for external event loops. aiomqtt, which does the same, ignores a
connection that ends before CONNACK and reports a time-out much later. Under TLS 1.3 this is the
very way in which a broker refuses a certificate, and the agent has to tell it at once.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from broker.protocol.messages import Endpoint
from broker.protocol.zones import Zone
from device_client.errors import (
    CertificateRefused,
    ConnectionLost,
    DeviceError,
    ServerNotTrusted,
    Unreachable,
)

log = logging.getLogger(__name__)

MAX_WAITING: Final = 64
"""Messages received and not yet read; more are dropped, as QoS 1 is a hop and not a promise."""
_QOS: Final = 1
_REFUSALS: Final = frozenset({"Bad user name or password", "Not authorized"})


@dataclass(frozen=True)
class Message:
    """What arrived."""

    topic: str
    payload: bytes


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


class Connection:
    """An accepted connection; all waits are limited to the address's timeout but `receive`."""

    def __init__(self, address: Address) -> None:
        """Only `connected` makes one."""
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message] = asyncio.Queue(MAX_WAITING)
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._acknowledged: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._abandoned = False
        self._client = self._make_client()

    async def subscribe(self, *topics: str) -> None:
        """Returns when the broker has acknowledged all subscriptions.

        Raises:
            ConnectionLost: the connection ended, or no acknowledgement came.
        """
        _, mid = self._client.subscribe([(topic, _QOS) for topic in topics])
        await self._acknowledgement(mid)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Returns when the broker has acknowledged the message.

        Raises:
            ConnectionLost: the connection ended, or no acknowledgement came.
        """
        info = self._client.publish(topic, payload, _QOS)
        await self._acknowledgement(info.mid)

    async def receive(self) -> Message:
        """The next message.

        Raises:
            ConnectionLost: the connection ended.
        """
        with suppress(asyncio.QueueEmpty):
            return self._messages.get_nowait()
        waiting = asyncio.ensure_future(self._messages.get())
        try:
            await asyncio.wait((waiting, self._ended), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()
        raise self._lost()

    async def until_lost(self) -> None:
        """Waits for the end, and drops what arrives meanwhile.

        Raises:
            ConnectionLost: always.
        """
        while True:
            message = await self.receive()
            log.debug("nobody waits for a message on %s", message.topic)

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._address.timeout_s):
                await _in_thread(self._connect)
        except TimeoutError as error:
            raise Unreachable(f"{_where(self._address)} takes too long to answer.") from error
        self._attach()
        await asyncio.wait(
            {self._accepted, self._ended},
            timeout=self._address.timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._accepted.done():
            self._accepted.result()
        elif self._ended.done():
            raise CertificateRefused(self._address.zone)
        else:
            raise Unreachable(f"{_where(self._address)} accepts connections and then says nothing.")

    def _connect(self) -> None:
        """Blocks, in a thread of its own, until TLS is up and CONNECT is on its way."""
        endpoint = self._address.endpoint
        try:
            self._client.connect(endpoint.host, endpoint.port, self._address.keepalive_s)
        except OSError as error:
            raise _explained(error, self._address) from error
        except ValueError as error:
            raise Unreachable(f"{_where(self._address)} isn't a valid address: {error}.") from error
        if self._abandoned:
            self._client.disconnect()

    def _attach(self) -> None:
        client = self._client
        sock = client.socket()
        if not isinstance(sock, socket.socket):
            self._end()
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_disconnect = lambda *_: self._end()
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_write_wanted
        client.on_socket_unregister_write = self._on_write_done
        self._loop.add_reader(sock, self._read)
        if client.want_write():
            self._loop.add_writer(sock, self._write)
        self._keep_alive()

    def _close(self) -> None:
        """Says goodbye if that can be written at once, and lets go of the socket in any case."""
        self._abandoned = True
        if self._timer is not None:
            self._timer.cancel()
        sock = self._client.socket()
        self._client.disconnect()
        self._write()
        if isinstance(sock, socket.socket) and sock.fileno() >= 0:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()
        self._end()

    def _keep_alive(self) -> None:
        """Lets paho send its pings and notice a broker that is silent."""
        self._client.loop_misc()
        pause_s = max(0.2, min(self._address.keepalive_s / 4, 5))
        self._timer = self._loop.call_later(pause_s, self._keep_alive)

    async def _acknowledgement(self, mid: int | None) -> None:
        if mid is None or self._ended.done():
            raise self._lost()
        acknowledged: asyncio.Future[None] = self._loop.create_future()
        self._acknowledged[mid] = acknowledged
        try:
            await asyncio.wait(
                {acknowledged, self._ended},
                timeout=self._address.timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            del self._acknowledged[mid]
        if not acknowledged.done():
            raise self._lost()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"The connection to {_where(self._address)} was lost.")

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _read(self) -> None:
        """Reads all that TLS has decrypted: the socket won't become readable for it again."""
        sock = self._client.socket()
        try:
            self._client.loop_read()
            while isinstance(sock, ssl.SSLSocket) and sock.fileno() >= 0 and sock.pending():
                self._client.loop_read()
        except Exception:  # paho raises anything on a malformed packet
            log.warning("%s sent what can't be read", _where(self._address), exc_info=True)
            self._end()

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception:
            log.warning("can't write to %s", _where(self._address), exc_info=True)
            self._end()

    def _make_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            self._address.client_id,
            clean_session=True,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._address.timeout_s
        client.max_queued_messages_set(MAX_WAITING)
        client.tls_set_context(self._address.context)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = lambda _client, _data, mid, *_: self._on_acknowledged(mid)
        client.on_publish = lambda _client, _data, mid, *_: self._on_acknowledged(mid)
        return client

    def _on_connect(
        self, _client: object, _data: object, _flags: object, reason: Any, *_: Any
    ) -> None:
        if self._accepted.done():
            return
        if not reason.is_failure:
            self._accepted.set_result(None)
        elif str(reason) in _REFUSALS:
            self._accepted.set_exception(CertificateRefused(self._address.zone))
        else:
            self._accepted.set_exception(Unreachable(f"{_where(self._address)} says: {reason}."))

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        try:
            self._messages.put_nowait(Message(message.topic, bytes(message.payload)))
        except asyncio.QueueFull:
            log.warning("too many messages at once: one on %s was dropped", message.topic)

    def _on_acknowledged(self, mid: int) -> None:
        waiting = self._acknowledged.get(mid)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _on_write_wanted(self, _client: object, _data: object, sock: Any) -> None:
        self._loop.add_writer(sock, self._write)

    def _on_write_done(self, _client: object, _data: object, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _on_socket_close(self, _client: object, _data: object, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)


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
        connection._close()


async def _in_thread(work: Callable[[], None]) -> None:
    """Runs blocking work so that cancelling, or the program's end, needn't wait for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except Exception as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=run, name="connect", daemon=True).start()
    await done


def _explained(error: OSError, address: Address) -> DeviceError:
    where = _where(address)
    match error:
        case ssl.SSLCertVerificationError():
            return ServerNotTrusted(
                f"{where} can't prove who it is: {error.verify_message}.",
                "Check the device's clock and the host name; if they are right, don't trust it.",
            )
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            return CertificateRefused(address.zone)
        case ssl.SSLError():
            return Unreachable(f"{where} doesn't speak TLS as it should: {error.reason}.")
        case ConnectionResetError() | ConnectionAbortedError():
            return Unreachable(f"{where} broke off the connection.")
        case _:
            return Unreachable(f"{where} can't be reached: {error.strerror or error}.")


def _where(address: Address) -> str:
    return f"The {address.zone} broker {address.endpoint.host}:{address.endpoint.port}"
