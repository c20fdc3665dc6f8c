"""Nobody who may only ask can end the service's own connection."""

from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiomqtt

from broker.app import SERVICE_NAMES
from broker.protocol.zones import Zone
from tests.support.peers import peer
from tests.support.stack import Stack


async def test_the_service_can_t_be_thrown_off_by_its_name(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    async with AsyncExitStack() as attack:
        with suppress(aiomqtt.MqttError):  # a broker may also refuse the name
            name = SERVICE_NAMES[Zone.CLAIM]
            await attack.enter_async_context(
                peer(stack.ports[Zone.CLAIM], stack.claim_client(), name)
            )
        await stack.claim_device("A1", tmp_path / "A1", within=5)
    assert await stack.is_active("A1")
