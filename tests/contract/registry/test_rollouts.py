"""Rollouts, each device's part in them, and their tally."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.lifecycle import DeviceState
from broker.core.records import EventKind
from broker.core.rollout import Image, Progress, Rollout, RolloutState, Selection, Timing
from broker.core.rollout_pace import Bucket, Pace, StopRule
from broker.core.rollout_steps import LATE
from broker.core.update_records import Part
from broker.ports.registry import RegistryError, WriteTransaction
from broker.ports.rollouts import Usable
from broker.protocol.names import DeviceId, GroupName
from broker.protocol.updates import ImageFacts
from tests.support.records import NOW, a_fingerprint
from tests.support.registries import add_batch, an_event, device_number

IMAGE = Image(
    "lamp/2.bin",
    a_fingerprint("image"),
    1 << 40,
    ImageFacts(
        model="lamp",
        hw_revs=("a", "b"),
        version="2.0-rc.1",
        security_counter=3,
        depends={"modem": "1.2"},
        support_until=NOW,
    ),
)


def a_rollout(number: int = 1) -> Rollout:
    return Rollout(
        name=f"r{number}",
        number=number,
        images=(IMAGE,),
        selection=Selection(group=GroupName("lamps")),
        pace=Pace(per_minute=100, percent=(1.5, 100.0)),
        timing=Timing(NOW, NOW + timedelta(days=1), "22:00-04:00"),
        stop=StopRule(0.01, 7),
        started_at=NOW,
    )


def a_part(number: int, progress: Progress = Progress.QUEUED, **changes: object) -> Part:
    part = Part("r1", device_number(number).id, progress, NOW, draw=100 - number)
    return replace(part, **changes)  # type: ignore[arg-type]


async def save(registry: SqlRegistry, *parts: Part) -> None:
    def work(tx: WriteTransaction) -> None:
        for part in parts:
            tx.save_part(part)

    await registry.write(work)


@pytest.fixture
async def rolling(registry: SqlRegistry) -> SqlRegistry:
    """`r1` and the devices `lamp-1` to `lamp-4`."""

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        for number in (1, 2, 3, 4):
            tx.save_device(device_number(number, state=DeviceState.ACTIVE))
        tx.save_rollout(a_rollout())

    await registry.write(work)
    return registry


async def test_a_rollout_is_kept_as_it_is(rolling: SqlRegistry) -> None:
    full = replace(
        a_rollout(2),
        selection=Selection(devices=(DeviceId("lamp-1"),)),
        pace=Pace(wave_size=5),
        state=RolloutState.ABORTED,
        state_at=NOW,
        reason="too many",
        moving=False,
        keep_open=True,
        again=True,
        wave=3,
        bucket=Bucket(0.1 + 0.2, NOW),
        enlisted=True,
        enlisted_to="lamp-3",
        joined_to=1 << 40,
    )
    await rolling.write(lambda tx: tx.save_rollout(full))
    assert await rolling.read(lambda tx: tx.rollout("r2")) == full
    assert await rolling.read(lambda tx: tx.rollouts(10)) == [full, a_rollout()]
    assert await rolling.read(lambda tx: tx.rollouts(1)) == [full]
    assert await rolling.read(lambda tx: tx.moving_rollouts()) == [a_rollout()]
    assert await rolling.read(lambda tx: tx.newest_rollout_number()) == 2
    assert await rolling.read(lambda tx: tx.rollout("r9")) is None


async def test_two_rollouts_never_share_a_number(rolling: SqlRegistry) -> None:
    same = replace(a_rollout(2), number=1)
    with pytest.raises(RegistryError):
        await rolling.write(lambda tx: tx.save_rollout(same))


async def test_a_part_is_kept_as_it_is(rolling: SqlRegistry) -> None:
    full = a_part(2, Progress.REFUSED, sequence=7, code="no_space", detail="3 MiB left", wave=2)
    await save(rolling, a_part(1), full)
    assert await rolling.read(lambda tx: tx.part("r1", full.device_id)) == full
    assert await rolling.read(lambda tx: tx.part("r1", a_part(3).device_id)) is None
    everyone = await rolling.read(lambda tx: tx.parts("r1", [], None, 10))
    assert everyone == [a_part(1), full]
    after = await rolling.read(lambda tx: tx.parts("r1", [], a_part(1).device_id, 10))
    assert after == [full]
    assert await rolling.read(lambda tx: tx.parts("r1", [Progress.REFUSED], None, 10)) == [full]


async def test_the_queue_has_an_order_of_its_own(rolling: SqlRegistry) -> None:
    late = a_part(4, wave=LATE)
    await save(rolling, a_part(1), a_part(2), a_part(3), late)
    nothing = Usable("by us", NOW)
    found = await rolling.read(lambda tx: tx.candidates("r1", 0, nothing, 0, 2))
    assert [each.part for each in found] == [a_part(3), a_part(2)]
    found = await rolling.read(lambda tx: tx.candidates("r1", LATE, nothing, 0, 9))
    assert [each.part for each in found] == [late]


async def test_the_tally_follows_every_step(rolling: SqlRegistry) -> None:
    await save(rolling, a_part(1), a_part(2), a_part(3))
    await save(rolling, a_part(1, Progress.ASSIGNED), a_part(2, Progress.ASSIGNED))
    assert await rolling.read(lambda tx: tx.tally("r1")) == {
        (0, Progress.QUEUED): 1,
        (0, Progress.ASSIGNED): 2,
    }
    rolled_back = a_part(1, Progress.ROLLED_BACK, code="health_check_failed")
    await save(rolling, rolled_back, rolled_back, a_part(2, Progress.INSTALLED, wave=1))
    assert await rolling.read(lambda tx: tx.tally("r1")) == {
        (0, Progress.QUEUED): 1,
        (0, Progress.ROLLED_BACK): 1,
        (1, Progress.INSTALLED): 1,
    }
    codes = await rolling.read(lambda tx: tx.failure_codes("r1"))
    assert codes == {"health_check_failed": 1}


async def test_one_transaction_sees_its_own_tally(rolling: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> dict[tuple[int, Progress], int]:
        tx.save_part(a_part(1))
        tx.save_part(a_part(1, Progress.ASSIGNED))
        tx.save_part(a_part(1, Progress.INSTALLED))
        return dict(tx.tally("r1"))

    assert await rolling.write(work) == {(0, Progress.INSTALLED): 1}


async def test_the_silent_are_those_who_were_told_and_said_nothing(rolling: SqlRegistry) -> None:
    told = NOW - timedelta(hours=2)
    await save(
        rolling,
        a_part(1, Progress.ASSIGNED, changed_at=told),
        a_part(2, Progress.ASSIGNED),
        a_part(3, Progress.DOWNLOADING, changed_at=told),
    )
    since = NOW - timedelta(hours=1)
    told_only, more = [Progress.ASSIGNED], [Progress.ASSIGNED, Progress.DOWNLOADING]
    assert await rolling.read(lambda tx: tx.count_silent("r1", told_only, since)) == 1
    assert await rolling.read(lambda tx: tx.count_silent("r1", more, since)) == 2


async def test_those_who_left_the_fleet_are_found(rolling: SqlRegistry) -> None:
    await save(rolling, a_part(1, Progress.ASSIGNED), a_part(2, Progress.ASSIGNED), a_part(3))

    def leave(tx: WriteTransaction) -> None:
        for number in (1, 3):
            tx.save_device(device_number(number, state=DeviceState.RETIRED))

    await rolling.write(leave)
    found = await rolling.read(lambda tx: tx.gone_parts("r1", 10))
    assert found == [a_part(1, Progress.ASSIGNED)]


async def test_who_joins_is_found_in_the_order_of_joining(rolling: SqlRegistry) -> None:
    begin = await rolling.read(lambda tx: tx.last_event_id())
    for number in (2, 1):
        event = an_event(kind=EventKind.DEVICE_ACTIVE, device_id=f"lamp-{number}")
        await rolling.write(lambda tx, event=event: tx.add_event(event))  # type: ignore[misc]
    await rolling.write(lambda tx: tx.add_event(an_event()))
    (first, one), (second, two) = await rolling.read(lambda tx: tx.joined_after(begin, 10))
    assert (one, two) == ("lamp-2", "lamp-1")
    assert begin < first < second
    assert await rolling.read(lambda tx: tx.joined_after(second, 10)) == []
    assert await rolling.read(lambda tx: tx.last_event_id()) > second


async def test_parts_that_stand_in_several_places_are_paged_as_one_list(
    rolling: SqlRegistry,
) -> None:
    places = (Progress.REFUSED, Progress.CANCELLED, Progress.REFUSED, Progress.QUEUED)
    saved = [a_part(number, progress) for number, progress in enumerate(places, 1)]
    await save(rolling, *saved)
    among = [Progress.CANCELLED, Progress.REFUSED]
    assert await rolling.read(lambda tx: tx.parts("r1", among, None, 2)) == saved[:2]
    after = saved[1].device_id
    assert await rolling.read(lambda tx: tx.parts("r1", among, after, 2)) == saved[2:3]


async def test_parts_are_read_together_as_one_by_one(rolling: SqlRegistry) -> None:
    await save(rolling, a_part(1), a_part(3, Progress.ASSIGNED))
    ids = [device_number(number).id for number in (1, 2, 3)]

    def work(tx: WriteTransaction) -> list[Part]:
        tx.save_part(a_part(1, Progress.ASSIGNED))
        return tx.parts_of("r1", ids)

    expected = [a_part(1, Progress.ASSIGNED), a_part(3, Progress.ASSIGNED)]
    assert await rolling.write(work) == expected
    assert await rolling.read(lambda tx: tx.parts_of("r1", ids)) == expected
