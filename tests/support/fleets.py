"""Several devices that claim at once, and what must be true of a fleet whatever happened."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from broker.core.lifecycle import CertificateState, DeviceState
from device_client import keystore
from device_client.identity import Identity
from tests.support.stack import STUBBORN, Stack


class Fleet:
    """Devices with state folders of their own in `place`."""

    def __init__(self, stack: Stack, place: Path, serials: Sequence[str]) -> None:
        self.stack = stack
        self.place = place
        self.serials = serials

    async def register(self) -> None:
        """Puts them on the allow-list of the group that is there already."""
        await self.stack.installation.enroll(self.serials)

    async def claim(self, within: float = 60.0) -> dict[str, Identity]:
        """All of them claim at once, each until it is a member."""
        async with asyncio.TaskGroup() as tasks:
            claims = {
                serial: tasks.create_task(
                    self.stack.claim_device(
                        serial, self.place / serial, timing=STUBBORN, within=within
                    )
                )
                for serial in self.serials
            }
        return {serial: task.result() for serial, task in claims.items()}

    def identity(self, serial: str) -> Identity:
        """What a device has on its disk."""
        found = keystore.looked_at(self.place / serial).current()
        assert found is not None, f"{serial} has no identity"
        return found

    async def assert_whole(self) -> None:
        """Every device is a member by exactly one certificate, whose key it holds."""
        devices = {str(d.serial): d for d in await self.stack.devices()}
        certificates = await self.stack.certificates()
        for serial in self.serials:
            identity = self.identity(serial)
            assert devices[serial].state is DeviceState.ACTIVE, serial
            (live,) = [
                c
                for c in certificates
                if c.device_id == devices[serial].id and c.state is not CertificateState.REVOKED
            ]
            assert live.state is CertificateState.ACTIVE, serial
            assert live.key_sha256 == identity.key_sha256, serial
            assert live.certificate_sha256 == identity.certificate_sha256, serial
            assert identity.confirmed_at is not None, serial
        await assert_consistent(self.stack)


async def assert_consistent(stack: Stack) -> None:
    """No serial number twice, no certificate without its device, and the counts are right."""
    devices, certificates = await stack.devices(), await stack.certificates()
    assert max(Counter(d.serial for d in devices).values(), default=1) == 1
    assert len({d.id for d in devices}) == len(devices)
    assert len({c.serial for c in certificates}) == len(certificates)
    assert {c.device_id for c in certificates} <= {d.id for d in devices}
    holders = [d for d in devices if d.state is not DeviceState.REGISTERED]
    assert (await stack.installation.group()).devices == len(holders)
    counted = [c for c in certificates if c.confirmed_at or c.state is not CertificateState.REVOKED]
    assert (await stack.installation.claim_certificate()).claims == len(counted)
