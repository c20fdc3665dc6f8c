"""Messages on their way to a broker: one future for all that are waited for together, where aiomqtt
has a task, a timer and an event for each.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from paho.mqtt.client import Client, error_string
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.ports.brokers import PublishError

Messages = Sequence[tuple[str, bytes]]
"""Topics and payloads."""

_TIMEOUT_S: Final = 10.0


class _Countdown:
    """How many the broker doesn't have yet."""

    def __init__(self, count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = count

    def one_less(self) -> None:
        self._left -= 1
        if self._left == 0 and not self.done.done():
            self.done.set_result(None)

    def give_up(self) -> None:
        if not self.done.done():
            self.done.set_exception(PublishError("the connection ended"))


class Publishing:
    """Publishes on one connection with QoS 1, and hears what the broker has; nobody else may
    publish on it."""

    def __init__(self, paho: Client) -> None:
        self._paho = paho
        self._waiting: dict[int, _Countdown] = {}
        paho.on_publish = self._acknowledged

    async def publish(self, topic: str, payload: bytes) -> None:
        """Returns when the broker has the message.

        Raises:
            PublishError: it couldn't be sent, or the broker didn't say in time that it has it.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._send([(topic, payload)], retain=False)
        except TimeoutError:
            raise PublishError("the broker didn't acknowledge it in time") from None

    async def retain(self, messages: Messages) -> None:
        """Returns when the broker has them all; they reach it in this order. Some hundreds at most:
        it hands them all over in one go.

        Raises:
            PublishError: one couldn't be sent, or the connection ended before the broker had all.
        """
        if messages:
            await self._send(messages, retain=True)

    def end(self) -> None:
        """The connection has ended: nothing that waits will be acknowledged any more."""
        for countdown in set(self._waiting.values()):
            countdown.give_up()

    async def _send(self, messages: Messages, *, retain: bool) -> None:
        countdown = _Countdown(len(messages))
        sent: list[int] = []
        try:
            for topic, payload in messages:
                sent.append(self._hand_over(topic, payload, retain))
                self._waiting[sent[-1]] = countdown
            await countdown.done
        finally:
            for mid in sent:
                if self._waiting.get(mid) is countdown:
                    del self._waiting[mid]

    def _hand_over(self, topic: str, payload: bytes, retain: bool) -> int:
        try:
            info = self._paho.publish(topic, payload, qos=1, retain=retain)
        except (OSError, ValueError) as error:
            raise PublishError(str(error)) from error
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise PublishError(error_string(info.rc))
        return info.mid

    def _acknowledged(
        self, client: Client, userdata: object, mid: int, code: ReasonCode, properties: Properties
    ) -> None:
        countdown = self._waiting.pop(mid, None)
        if countdown is not None:
            countdown.one_less()
