"""Campaigns and their devices: kept as they are, paged by state, and counted by selection."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.campaign import (
    Campaign,
    CampaignId,
    CampaignState,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
)
from broker.core.lifecycle import DeviceState
from broker.ports.registry import DeviceFilter, RegistryError, WriteTransaction
from broker.protocol.names import CertificateSerial, ClaimName, DeviceId, GroupName
from tests.support.records import NOW
from tests.support.registries import add_batch, certificate_number, device_number

ONE = CampaignId(1)
BARE = Campaign(ONE, Selection(SelectionKind.ALL), 60, None, NOW, NOW, NOW)
FULL = Campaign(
    id=CampaignId(2),
    selection=Selection(SelectionKind.GROUP, "lamps"),
    per_minute=5,
    wave_size=100,
    created_at=NOW,
    fresh_from=NOW - timedelta(days=1),
    paced_to=NOW + timedelta(microseconds=1),
    reason="a leak",
    state=CampaignState.CANCELLED,
    ended_at=NOW,
    listed_to=DeviceId("lamp-3"),
    is_listed=True,
    waiting=1,
    ordered=2,
    done=3,
    dropped=4,
    withdrawn=5,
    wave=6,
    wave_given=7,
    wave_settled=8,
    wave_full_at=NOW,
)


def rotation(number: int, **changes: Any) -> Rotation:
    return replace(Rotation(ONE, device_number(number).id), **changes)


async def save(registry: SqlRegistry, *rows: Campaign | Rotation) -> None:
    def work(tx: WriteTransaction) -> None:
        for row in rows:
            if isinstance(row, Campaign):
                tx.save_campaign(row)
            else:
                tx.save_rotation(row)

    await registry.write(work)


@pytest.fixture
async def members(registry: SqlRegistry) -> SqlRegistry:
    """A registry that knows `lamp-1` to `lamp-3`, the last of them suspended."""

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        for number in (1, 2, 3):
            state = DeviceState.SUSPENDED if number == 3 else DeviceState.ACTIVE
            tx.save_device(device_number(number, state=state))
            tx.save_certificate(certificate_number(number))

    await registry.write(work)
    return registry


async def test_a_campaign_is_kept_as_it_is(registry: SqlRegistry) -> None:
    await save(registry, BARE, FULL)
    assert await registry.read(lambda tx: tx.campaign(ONE)) == BARE
    assert await registry.read(lambda tx: tx.campaign(FULL.id)) == FULL
    assert await registry.read(lambda tx: tx.campaign(CampaignId(3))) is None
    assert await registry.read(lambda tx: tx.campaigns(10)) == [FULL, BARE]
    assert await registry.read(lambda tx: tx.campaigns(1)) == [FULL]


async def test_active_is_what_gives_orders_or_waits_for_some(registry: SqlRegistry) -> None:
    paused = replace(BARE, id=CampaignId(3), state=CampaignState.PAUSED)
    still_followed = replace(paused, id=CampaignId(4), ordered=1)
    over = replace(FULL, id=CampaignId(5), ordered=0)
    await save(registry, BARE, FULL, paused, still_followed, over)
    assert await registry.read(lambda tx: tx.active_campaigns()) == [BARE, FULL, still_followed]


async def test_devices_are_paged_by_state(members: SqlRegistry) -> None:
    ordered = rotation(
        2,
        state=RotationState.ORDERED,
        wave=1,
        version=17,
        newest_before=CertificateSerial("2"),
        ordered_at=NOW,
    )
    await save(members, BARE, rotation(1), ordered, rotation(3))

    async def page(state: RotationState, after: str = "", limit: int = 10) -> list[Rotation]:
        return await members.read(lambda tx: tx.rotations(ONE, state, after, limit))

    assert await page(RotationState.WAITING) == [rotation(1), rotation(3)]
    assert await page(RotationState.WAITING, limit=1) == [rotation(1)]
    assert await page(RotationState.WAITING, "lamp-1") == [rotation(3)]
    assert await page(RotationState.ORDERED) == [ordered]
    done = replace(ordered, state=RotationState.DONE, settled_at=NOW)
    await save(members, done)
    assert await page(RotationState.DONE) == [done]
    assert await page(RotationState.ORDERED) == []


async def test_the_last_order_of_a_device_is_that_of_all_its_campaigns(
    members: SqlRegistry,
) -> None:
    other = replace(rotation(1, version=9), campaign=FULL.id)
    await save(members, BARE, FULL, rotation(1, version=17), other, rotation(2))
    ids = [device_number(number).id for number in (1, 2, 3)]
    assert await members.read(lambda tx: tx.last_orders(ids)) == {ids[0]: 17}
    assert await members.read(lambda tx: tx.last_orders([])) == {}


async def test_a_transaction_sees_what_it_has_saved(members: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.save_campaign(BARE)
        tx.save_rotation(rotation(1, version=3))
        assert tx.campaign(ONE) == BARE
        assert tx.campaigns(1) == [BARE]
        assert tx.active_campaigns() == [BARE]
        assert tx.rotations(ONE, RotationState.WAITING, "", 1) == [rotation(1, version=3)]
        assert tx.last_orders([rotation(1).device_id]) == {rotation(1).device_id: 3}

    await members.write(work)


async def test_a_row_concerns_a_device_and_a_campaign_that_exist(members: SqlRegistry) -> None:
    with pytest.raises(RegistryError):
        await save(members, rotation(1))
    await save(members, BARE)
    with pytest.raises(RegistryError):
        await save(members, replace(rotation(1), device_id=DeviceId("nobody")))


@pytest.mark.parametrize(
    ("wanted", "active", "suspended"),
    [
        (None, 2, 1),
        (DeviceFilter(), 2, 1),
        (DeviceFilter(group=GroupName("lamps"), limit=1), 2, 1),
        (DeviceFilter(group=GroupName("ovens")), 0, 0),
        (DeviceFilter(claim_name=ClaimName("batch-7")), 2, 1),
        (DeviceFilter(claim_name=ClaimName("batch-8")), 0, 0),
        (DeviceFilter(state=DeviceState.ACTIVE), 2, 0),
        (DeviceFilter(after=DeviceId("lamp-1")), 1, 1),
    ],
)
async def test_devices_are_counted_by_selection(
    members: SqlRegistry, wanted: DeviceFilter | None, active: int, suspended: int
) -> None:
    counts = await members.read(lambda tx: tx.count_devices(wanted))
    assert set(counts) == set(DeviceState)
    assert counts[DeviceState.ACTIVE] == active
    assert counts[DeviceState.SUSPENDED] == suspended
