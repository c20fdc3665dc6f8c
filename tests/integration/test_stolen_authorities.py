"""The running service on Mosquitto, which knows clients by name, beside a thief of its name."""

from contextlib import AsyncExitStack
from pathlib import Path

from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.certificates import forged
from tests.support.peers import peer
from tests.support.stack import Plan, running_stack


async def test_a_thief_of_the_service_s_name_doesn_t_throw_it_off(tmp_path: Path) -> None:
    async with running_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as stack:
        await stack.installation.standard(["A1"])
        async with AsyncExitStack() as thieves:
            for zone in Zone:
                client = forged(stack.home, zone, f"muster-service-{zone}", tmp_path)
                thief = await thieves.enter_async_context(peer(stack.ports[zone], client))
                await thief.hear("#")
            await stack.claim_device("A1", tmp_path / "A1")
        assert await stack.is_active("A1")
        for broker in stack.brokers.values():
            assert "closing old connection" not in broker.log()
