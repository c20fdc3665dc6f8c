"""Many messages on their way at once: counted together, where a task, a timer and an event for each
would cost more than sending it.
"""

import asyncio
from collections.abc import Sequence

import aiomqtt
from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

Messages = Sequence[tuple[str, bytes]]
"""Topics and payloads."""


class _Countdown:
    """How many the broker doesn't have yet."""

    def __init__(self, count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = count

    def one_less(self) -> None:
        self._left -= 1
        if self._left == 0 and not self.done.done():
            self.done.set_result(None)


class ManyAtOnce:
    """Publishes on a client's connection, beside what the client publishes itself."""

    def __init__(self, client: aiomqtt.Client) -> None:
        # aiomqtt waits for each message alone; paho, beneath it, tells of each acknowledgement.
        self._paho: Client = client._client
        self._waiting: dict[int, _Countdown] = {}
        self._others = self._paho.on_publish
        self._paho.on_publish = self._acknowledged

    async def retain(self, messages: Messages) -> None:
        """Returns when the broker has them all; they reach it in this order. Some hundreds at most:
        it hands them all over in one go.

        Raises:
            aiomqtt.MqttError: one couldn't be sent. That the connection ends isn't noticed here.
        """
        if not messages:
            return
        countdown = _Countdown(len(messages))
        sent: list[int] = []
        try:
            for topic, payload in messages:
                info = self._paho.publish(topic, payload, qos=1, retain=True)
                if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    raise aiomqtt.MqttCodeError(info.rc, "could not publish")
                self._waiting[info.mid] = countdown
                sent.append(info.mid)
            await countdown.done
        finally:
            for mid in sent:
                if self._waiting.get(mid) is countdown:
                    del self._waiting[mid]

    def _acknowledged(
        self, client: Client, userdata: object, mid: int, code: ReasonCode, properties: Properties
    ) -> None:
        countdown = self._waiting.pop(mid, None)
        if countdown is not None:
            countdown.one_less()
        elif self._others is not None:
            self._others(client, userdata, mid, code, properties)  # type: ignore[call-arg]
