"""Any container may die in the middle of claims: no device is lost, doubled or orphaned."""

import asyncio
from pathlib import Path

import pytest

from broker.core.lifecycle import CertificateState, DeviceState
from device_client.identity import Identity
from tests.containers.site import Site
from tests.support.stack import Stack
from tests.support.waiting import eventually

SERIALS = [f"S{number:03}" for number in range(500)]
AT_ONCE = 4
BEFORE = AFTER = 6
"""How many claims at least end before the restart, and begin when it's over."""


async def restart(site: Site, container: str) -> None:
    """Kill -9, and up again."""
    await asyncio.to_thread(site.project.kill, container)
    await asyncio.to_thread(site.project.start, container)


@pytest.mark.parametrize("container", ["claim-broker", "fleet-broker", "database", "service"])
async def test_a_restart_in_the_middle_of_claims(
    site: Site, stack: Stack, tmp_path: Path, container: str
) -> None:
    await stack.installation.standard(SERIALS)
    waiting, members = iter(SERIALS), dict[str, Identity]()
    is_over = False

    async def claims() -> None:
        """One after the other, for as long as the restart lasts and a little longer."""
        after = 0
        while after < AFTER:
            after += is_over
            serial = next(waiting)
            members[serial] = await stack.claim_device(serial, tmp_path / serial, within=120)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(claims())
        await eventually(lambda: len(members) >= BEFORE, within=60)
        await restart(site, container)
        is_over = True

    devices, certificates = await stack.devices(), await stack.certificates()
    assert sorted(d.serial for d in devices) == sorted(members)
    assert {d.state for d in devices} == {DeviceState.ACTIVE}
    live = [c for c in certificates if c.state is not CertificateState.REVOKED]
    assert {c.certificate_sha256 for c in live} == {
        member.certificate_sha256 for member in members.values()
    }
    assert len(live) == len(members)


async def test_all_of_it_may_go_down_and_come_up(site: Site, stack: Stack, tmp_path: Path) -> None:
    """What is in volumes is all there is: containers made anew go on where the old ones ended."""
    await stack.installation.standard(["A1", "B2"])
    first = await stack.claim_device("A1", tmp_path / "A1")
    await asyncio.to_thread(site.project.compose, "down", "--timeout", "5")
    await asyncio.to_thread(site.project.up)
    assert await stack.claim_device("A1", tmp_path / "A1") == first
    await stack.claim_device("B2", tmp_path / "B2")
    assert await stack.is_active("B2")
