"""One device that asks without end, as fast as its broker lets it: its neighbours claim all the
same."""

import asyncio
import ssl
import struct
from pathlib import Path

from broker.protocol.codes import Code
from broker.protocol.topics import DeviceOrigin, Operation, device_topic
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from device_client.identity import Identity
from tests.support.flooding import flooding
from tests.support.ports import free_port
from tests.support.scraping import requests_counted
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually

_BLOB = 100
"""Messages in one write, and so in one TLS record."""


def _publishes(topic: str) -> bytes:
    name = struct.pack("!H", len(topic)) + topic.encode()
    body = [name + struct.pack("!H", number) + b"{}" for number in range(1, _BLOB + 1)]
    return b"".join(bytes([0x32, len(each)]) + each for each in body)


def _context(stack: Stack, identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(stack.home.server_anchors))
    context.load_cert_chain(identity.chain_file, identity.key_file)
    return context


async def _is_flooded(stack: Stack) -> bool:
    """Whether more has come than the service has in hand at once."""
    assert stack.plan.metrics_port is not None
    counted = await requests_counted(stack.plan.metrics_port)
    of = {code: n for (_, _, code), n in counted.items()}
    return of.get(Code.RATE_LIMITED, 0) > 700


async def _claim(stack: Stack, serial: str, folder: Path) -> float:
    """Has a device become a member; how long that takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    identity = await stack.claim_device(serial, folder / serial)
    assert identity.device_id == f"lamp-{serial}"
    return loop.time() - began


async def test_a_neighbour_becomes_a_member_while_a_device_asks_without_end(tmp_path: Path) -> None:
    plan = Plan(BrokerKind.EMBEDDED, in_process=False, metrics_port=free_port())
    async with running_stack(tmp_path / "stack", plan) as stack:
        await stack.installation.standard(["flooder", "quiet", "flooded"])
        flooder = await stack.claim_device("flooder", tmp_path / "flooder")
        quiet_s = await _claim(stack, "quiet", tmp_path)
        blob = _publishes(device_topic(DeviceOrigin(flooder.device_id), Operation.CONFIRM))
        context = _context(stack, flooder)
        async with flooding(stack.ports[Zone.FLEET], context, flooder.device_id, blob) as flood:
            await eventually(lambda: _is_flooded(stack))
            flooded_s = await _claim(stack, "flooded", tmp_path)
            assert not flood.has_ended, "it is slowed, and no more than that"
        assert flooded_s < 5 * quiet_s + 2.0
        assert not stack.process.lines("rejection_not_published")
