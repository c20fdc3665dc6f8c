"""`python -m tests.bench.bare_publisher PLAN`: publishes messages made before, and no more.

What it takes is what the link, TLS and the broker take; a service can only add to it.
"""

import asyncio
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import structlog

from broker.adapters.ca.home import MusterHome
from broker.entry.mqtt.link import BrokerLink, LinkSettings, LinkTls
from broker.protocol.messages import Endpoint
from broker.protocol.topics import DEVICE_REQUESTS
from broker.protocol.zones import Zone, service_name

BEGAN: Final = "began at "
TOOK: Final = "CPU seconds: "
_PAGE: Final = 250
_AT_ONCE: Final = 2
"""As the service publishes them."""


@dataclass(frozen=True)
class BarePlan:
    """Where it connects, and what it publishes."""

    home: str
    port: int
    messages: dict[str, bytes]


async def _publish(plan: BarePlan) -> None:
    link = _link(plan)
    running = asyncio.create_task(link.run())
    await link.connected.wait()
    messages = list(plan.messages.items())
    # The system's monotonic clock, which all processes share.
    print(f"{BEGAN}{time.monotonic()}", flush=True)
    used_s = time.process_time()
    pages = [messages[begin : begin + _PAGE] for begin in range(0, len(messages), _PAGE)]
    async with asyncio.TaskGroup() as sending:
        at_once = asyncio.Semaphore(_AT_ONCE)
        for page in pages:
            await at_once.acquire()
            task = sending.create_task(link.retain(page))
            task.add_done_callback(lambda _: at_once.release())
    print(f"{TOOK}{time.process_time() - used_s}", flush=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _link(plan: BarePlan) -> BrokerLink:
    home = MusterHome(Path(plan.home))
    pair = home.service(Zone.FLEET)
    settings = LinkSettings(
        zone=Zone.FLEET,
        broker=Endpoint(host="localhost", port=plan.port),
        tls=LinkTls(pair.certificate, pair.key, home.server_anchors),
        name=service_name(Zone.FLEET),
        subscription=DEVICE_REQUESTS,
        concurrent=1,
    )
    return BrokerLink(settings, _ignore, _nothing_waits)


async def _ignore(zone: Zone, topic: str, payload: bytes) -> None:
    """Nobody asks."""


async def _nothing_waits(zone: Zone) -> None:
    """There is no outbox."""


def main() -> None:
    """Publishes once and ends."""
    # What the link logs would stand among what whoever started this reads.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=BarePlan)
    asyncio.run(_publish(plan))


if __name__ == "__main__":
    main()
