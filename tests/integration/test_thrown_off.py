"""Nobody who may only ask can end the service's own connection."""

from pathlib import Path

import pytest

from broker.protocol.zones import Zone, service_name
from tests.support.peers import peer
from tests.support.stack import Stack


async def test_the_service_can_t_be_thrown_off_by_its_name(stack: Stack, tmp_path: Path) -> None:
    """If the two were one client to the broker, the service's return would end the thief."""
    await stack.installation.standard(["A1"])
    name = service_name(Zone.CLAIM)
    async with peer(stack.ports[Zone.CLAIM], stack.claim_client(), name) as thief:
        await stack.claim_device("A1", tmp_path / "A1")
        with pytest.raises(TimeoutError):
            await thief.ended(within=1.0)
    assert await stack.is_active("A1")
