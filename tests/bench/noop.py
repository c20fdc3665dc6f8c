"""`python -m tests.bench.noop PLAN`: answers the devices' traffic without a service behind it.

The same link to the same brokers, the same topics, and answers that the service itself could have
given, of the same size; but they were made before, so nothing is decided, signed or stored. What
it can do on a machine is what brokers, TLS and devices leave over.
"""

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from broker.adapters.ca.home import MusterHome
from broker.entry.mqtt.link import BrokerLink, LinkSettings, LinkTls
from broker.protocol.messages import Endpoint
from broker.protocol.topics import CLAIM_REQUESTS, DEVICE_REQUESTS, Outcome, answer_topic
from broker.protocol.zones import Zone, service_name

READY: Final = "no-op responder is ready"
_REQUESTS: Final = {Zone.CLAIM: CLAIM_REQUESTS, Zone.FLEET: DEVICE_REQUESTS}
_CONCURRENT: Final = 512
"""The service's default."""


@dataclass(frozen=True)
class NoopPlan:
    """Where it connects, and what it answers to a request on which topic."""

    home: str
    ports: dict[Zone, int]
    answers: dict[str, bytes]


class _Responder:
    def __init__(self, plan: NoopPlan) -> None:
        home = MusterHome(Path(plan.home))
        self._answers = plan.answers
        self._links = {zone: self._link(home, zone, plan.ports[zone]) for zone in Zone}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for link in self._links.values():
                tasks.create_task(link.run())
            for link in self._links.values():
                await link.connected.wait()
            print(READY, flush=True)

    def _link(self, home: MusterHome, zone: Zone, port: int) -> BrokerLink:
        pair = home.service(zone)
        settings = LinkSettings(
            zone=zone,
            broker=Endpoint(host="localhost", port=port),
            tls=LinkTls(pair.certificate, pair.key, home.server_anchors),
            name=service_name(zone),
            subscription=_REQUESTS[zone],
            concurrent=_CONCURRENT,
        )
        return BrokerLink(settings, self._answer, _nothing_waits)

    async def _answer(self, zone: Zone, topic: str, payload: bytes) -> None:
        answer = self._answers[topic]
        await self._links[zone].publish(answer_topic(topic, Outcome.ACCEPTED), answer)


async def _nothing_waits(zone: Zone) -> None:
    """There is no outbox."""


async def _until_stopped(responder: _Responder) -> None:
    running = asyncio.create_task(responder.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        return


def main() -> None:
    """Answers until SIGTERM."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=NoopPlan)
    asyncio.run(_until_stopped(_Responder(plan)))


if __name__ == "__main__":
    main()
