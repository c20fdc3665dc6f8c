"""What an operator does to the devices of a running installation, and waiting for its effect."""

import itertools
import os
import uuid
from dataclasses import replace
from pathlib import Path

from broker.adapters.clock import SystemClock
from broker.composition.registries import open_registry
from broker.core.lifecycle import DeviceInput
from broker.core.records import LockOut
from broker.ports.registry import WriteTransaction
from broker.protocol.names import DeviceId
from broker.protocol.zones import Zone
from broker.services import device_acts
from broker.services.act_progress import follow
from broker.services.device_acts import Acted, Wanted
from device_client.identity import Identity
from tests.support.certificates import Client
from tests.support.forking import muster
from tests.support.knocking import Answer, knock
from tests.support.stack import Stack

_FOLLOW_S = 60.0
_batches = itertools.count(1)


async def act(
    stack: Stack, act: DeviceInput, *ids: str, within_s: float = _FOLLOW_S
) -> list[Acted]:
    """Does it to all of them in the registry, and waits until the broker owes nothing."""
    async with open_registry(stack.home, stack.installation.settings) as registry:
        devices = [(DeviceId(each), uuid.uuid4().hex) for each in ids]
        clock = SystemClock()
        acted = [
            each
            async for each in device_acts.carry_out(registry, clock, devices, Wanted(act, "a test"))
        ]
        asked = [each.lock_out for each in acted if each.lock_out is not None]
        await follow(registry, asked, within_s, lambda _: None)
    return acted


async def lock_outs(stack: Stack, device_id: str) -> list[LockOut]:
    """All that the device ever had, oldest first."""
    async with open_registry(stack.home, stack.installation.settings) as registry:
        return await registry.read(lambda tx: tx.lock_outs_of(DeviceId(device_id)))


async def is_complete(stack: Stack, device_id: str) -> bool:
    """Whether the broker owes nothing to the last act on the device."""
    found = await lock_outs(stack, device_id)
    return bool(found) and found[-1].is_complete


async def end_watch(stack: Stack, device_id: str) -> None:
    """As if the time were over in which its lock-outs are repeated."""

    def work(tx: WriteTransaction) -> None:
        for each in tx.lock_outs_of(DeviceId(device_id)):
            tx.save_lock_out(replace(each, ended_at=each.requested_at))

    async with open_registry(stack.home, stack.installation.settings) as registry:
        await registry.write(work)


def as_client(stack: Stack, identity: Identity) -> Client:
    """A device's certificate in files."""
    return Client(
        identity.device_id, identity.chain_file, identity.key_file, stack.home.server_anchors
    )


async def joined(stack: Stack, place: Path, *serials: str) -> list[Client]:
    """Devices that are members, as clients; their serial numbers are put on the list."""
    await stack.installation.enroll(serials)
    folder = place / f"joined-{next(_batches)}"
    folder.mkdir()
    return [
        as_client(stack, await stack.claim_device(serial, folder / serial)) for serial in serials
    ]


async def is_admitted(stack: Stack, client: Client) -> bool:
    """Whether the fleet's broker lets it in now."""
    return await knock(stack.ports[Zone.FLEET], client) is Answer.ADMITTED


async def run_muster(stack: Stack, *arguments: str) -> tuple[int, str, str]:
    """A command of the operator's in a process of its own: status, stdout, stderr."""
    environment = {name: value for name, value in os.environ.items() if name[:7] != "MUSTER_"}
    return await muster(["--home", str(stack.home.path), *arguments], environment)
