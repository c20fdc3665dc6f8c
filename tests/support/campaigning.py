"""Members that follow rotation orders by hand, and campaigns of a running installation."""

from collections.abc import Sequence
from pathlib import Path

from broker.adapters.clock import SystemClock
from broker.composition.registries import open_registry
from broker.core.campaign import (
    Campaign,
    CampaignId,
    CampaignInput,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
)
from broker.ports.registry import ReadTransaction
from broker.protocol import codec
from broker.protocol.messages import RotationOrder
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic
from broker.protocol.zones import Zone
from broker.services import campaigns
from broker.services.campaigns import Wanted
from tests.support.csrs import fresh_key
from tests.support.members import Holder, as_client, connected, join, prove
from tests.support.peers import peer
from tests.support.stack import Stack

FAST = 6000
"""Orders a minute: each of a few devices has its own at once."""
EVERYONE = Selection(SelectionKind.ALL)


async def members(stack: Stack, place: Path, *serials: str) -> list[Holder]:
    """Devices that are members; their serial numbers are put on the list."""
    await stack.installation.enroll(serials)
    return [await join(stack, place, serial) for serial in serials]


async def start_campaign(
    stack: Stack, selection: Selection = EVERYONE, per_minute: int = FAST, wave: int | None = None
) -> CampaignId:
    """Puts it into the registry; the service takes it up when it runs."""
    wanted = Wanted(selection, per_minute, wave, "a test")
    async with open_registry(stack.home, stack.installation.settings) as registry:
        return (await campaigns.start(registry, SystemClock(), wanted)).id


async def change_campaign(stack: Stack, number: CampaignId, happens: CampaignInput) -> None:
    """Pauses, resumes or cancels it."""
    async with open_registry(stack.home, stack.installation.settings) as registry:
        await campaigns.change(registry, SystemClock(), number, happens)


async def campaign(stack: Stack, number: CampaignId) -> Campaign:
    """How far it is."""
    async with open_registry(stack.home, stack.installation.settings) as registry:
        return await campaigns.find(registry, number)


async def rotations(stack: Stack, number: CampaignId) -> dict[DeviceId, Rotation]:
    """All its devices."""

    def work(view: ReadTransaction) -> dict[DeviceId, Rotation]:
        pages = (view.rotations(number, state, "", 10_000) for state in RotationState)
        return {row.device_id: row for page in pages for row in page}

    async with open_registry(stack.home, stack.installation.settings) as registry:
        return await registry.read(work)


async def next_order(
    stack: Stack, holder: Holder, place: Path, within: float = 60.0
) -> RotationOrder:
    """The order that is retained for the device, or comes while it's connected."""
    client = as_client(stack, holder, place)
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        await connection.hear(desired_topic(holder.device_id, Desired.ROTATION))
        heard = await connection.next(within)
    return codec.decode(heard.payload, RotationOrder)


async def renew_by_order(stack: Stack, holder: Holder, place: Path) -> Holder:
    """Waits for the order, and renews with it; what it got isn't proven yet."""
    order = await next_order(stack, holder, place)
    key = fresh_key()
    async with connected(stack, holder, place) as connection:
        return holder.given(key, await connection.renew(key, order=order.version))


async def follow(stack: Stack, holder: Holder, place: Path) -> Holder:
    """Waits for the order, renews with it, and proves what it got."""
    renewed = await renew_by_order(stack, holder, place)
    await prove(stack, renewed, place)
    return renewed


async def follow_all(stack: Stack, holders: Sequence[Holder], place: Path) -> list[Holder]:
    """Each of them does, one after the other."""
    return [await follow(stack, holder, place) for holder in holders]
