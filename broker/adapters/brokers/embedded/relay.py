"""The relay of a connection that has been admitted: client ⇄ gate ⇄ core, until one has enough."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from broker.adapters.brokers.embedded import packets
from broker.adapters.brokers.embedded.connect import Admission
from broker.adapters.brokers.embedded.core import Core
from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.gate import Gate, Passage
from broker.adapters.brokers.embedded.limits import BrokerLimits
from broker.adapters.brokers.embedded.pace import Throttle
from broker.adapters.brokers.embedded.pipe import CoreReader, CoreWriter, Outbox
from broker.adapters.brokers.embedded.stream import ClientStream

_log = logging.getLogger(__name__)

_BATCH: Final = 64 * 1024
_UNREAD_BY_CORE: Final = 64 * 1024
_POLL_S: Final = 0.005
_SETTLE_S: Final = 1.0
_FINISH_S: Final = 0.5
"""amqtt misses an end that comes right after the CONNECT; then the session is cancelled."""
_KEEPALIVE_GRACE: Final = 1.5
"""MQTT 3.1.1, section 3.1.2.10."""

_WITHOUT_WILL: Final = {Ending.CLIENT_LEFT, Ending.LOCKED_OUT, Ending.BROKER_STOPPED}
"""The last word of a client that left in order isn't sent; that of one locked out isn't wanted."""
_AT_ONCE: Final = {Ending.LOCKED_OUT, Ending.BROKER_STOPPED, Ending.TAKEN_OVER, Ending.STALLED}


class Relay:
    """Runs one admitted connection. `must_wait` says whether the client should be read no further
    for now; without a `throttle` it sends as fast as it likes."""

    def __init__(
        self,
        stream: ClientStream,
        core: Core,
        admission: Admission,
        limits: BrokerLimits,
        session_id: str,
        must_wait: Callable[[], bool],
        throttle: Throttle | None,
    ) -> None:
        is_service = admission.identity.is_service
        self._stream = stream
        self._core = core
        self._admission = admission
        self._limits = limits
        self._session_id = session_id
        self._must_wait = must_wait
        self._throttle = throttle
        self._gate = Gate(admission.rights, limits.max_filters, self._denied)
        self._reader = CoreReader()
        self._moved = asyncio.Event()
        self._over = asyncio.Event()
        self._ended: Ended | None = None
        self.denied = 0
        self.outbox = Outbox(limits.max_outgoing_service if is_service else limits.max_outgoing)
        self._writer = CoreWriter(stream.address, self._from_core, self.outbox.room)

    def end(self, ended: Ended) -> None:
        """Has the relay end for this reason, unless it is ending for another already."""
        if self._ended is None:
            self._ended = ended
            if ended.ending in _AT_ONCE:
                self._stream.abort()
            self._over.set()

    async def run(self) -> Ended:
        """Relays until it is over; then nothing of the session is left in the core."""
        self._reader.feed(self._admission.for_core(self._session_id))
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(self._until_over(self._serve_core()))
                inbound = tasks.create_task(self._until_over(self._inbound()))
                outbound = tasks.create_task(self._until_over(self._outbound()))
                await self._over.wait()
                inbound.cancel()
                await self._leave_core(serving)
                outbound.cancel()
        finally:
            await self._core.forget(self._session_id)
        return self._ended or Ended(Ending.INTERNAL)

    async def _until_over(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs one part of the relay; when that ends, all of it does."""
        try:
            await work
        except Ended as ended:
            self.end(ended)
        except Exception as error:
            _log.exception("The relay of %s failed.", self._session_id)
            self.end(Ended(Ending.INTERNAL, type(error).__name__))

    async def _serve_core(self) -> None:
        await self._core.serve(self._reader, self._writer)
        raise Ended(Ending.INTERNAL, "the core left")

    async def _inbound(self) -> None:
        silence_s = self._admission.keep_alive_s * _KEEPALIVE_GRACE or self._limits.idle_max_s
        while True:
            try:
                async with asyncio.timeout(silence_s):
                    frame = await self._stream.next_frame()
            except TimeoutError:
                raise Ended(Ending.SILENT, f"no packet for {silence_s:g} s") from None
            filters = packets.filters_in(frame, self._limits.max_filters_in_packet)
            if self._throttle is not None:
                await self._throttle.turn(max(1, filters))
            self._pass(self._gate.from_client(frame))
            while self._is_full():
                await self._wait_for_core()

    async def _outbound(self) -> None:
        while True:
            batch = await self.outbox.take(_BATCH)
            await self._stream.send(batch, self._limits.write_s)

    def _from_core(self, frame: bytes) -> None:
        try:
            self._pass(self._gate.from_core(frame))
        except Ended as ended:
            self.end(ended)
            raise ConnectionResetError(str(ended)) from ended
        self._moved.set()

    def _pass(self, passage: Passage) -> None:
        self._reader.feed(passage.to_core)
        if passage.to_client:
            self.outbox.put(passage.to_client)
        if passage.leaving:
            raise Ended(Ending.CLIENT_LEFT)

    def _is_full(self) -> bool:
        return (
            self._gate.settling
            or self._reader.waiting > _UNREAD_BY_CORE
            or self._core.is_busy(self._session_id)
            or self._must_wait()
        )

    async def _wait_for_core(self) -> None:
        """Until the core answers something, or a moment has passed."""
        self._moved.clear()
        try:
            async with asyncio.timeout(_POLL_S):
                await self._moved.wait()
        except TimeoutError:
            return

    async def _leave_core(self, serving: asyncio.Task[None]) -> None:
        """Ends the session in the core, after what the client had published has been passed on."""
        ending = self._ended.ending if self._ended else Ending.INTERNAL
        if ending not in (Ending.LOCKED_OUT, Ending.BROKER_STOPPED):
            await self._settle()
        if ending in _WITHOUT_WILL:
            # No end of stream after it: amqtt might see that first, and publish the will.
            self._reader.feed(packets.DISCONNECT)
        else:
            self._reader.feed_eof()
        await asyncio.wait({serving}, timeout=_FINISH_S)
        serving.cancel()

    async def _settle(self) -> None:
        # Twice in a row, since amqtt hands a packet from task to task before it counts.
        quiet = 0
        try:
            async with asyncio.timeout(_SETTLE_S):
                while quiet < 2:
                    idle = not self._reader.waiting and self._core.has_settled(self._session_id)
                    quiet = quiet + 1 if idle else 0
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return

    def _denied(self, action: str, topic: str) -> None:
        self.denied += 1
        if self.denied == 1:
            who = self._admission.identity
            _log.warning(
                "%s/%s may not %s %.80r; further denials are only counted.",
                who.name, who.client_id, action, topic,
            )  # fmt: skip
