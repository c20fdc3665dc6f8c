"""What is prepared for a queue, and what giving it does to everything else that is kept."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.lifecycle import DeviceState
from broker.core.prepared import Candidate, Prepared
from broker.core.rollout import Image, Progress, Rollout, Selection, Timing
from broker.core.rollout_pace import Pace, StopRule
from broker.core.update_records import DeviceUpdate, GivenAssignment, Part
from broker.ports.registry import WriteTransaction
from broker.ports.rollouts import Usable
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic
from broker.protocol.updates import ImageFacts
from tests.support.records import NOW, a_fingerprint
from tests.support.registries import add_batch, device_number

IMAGE = Image(
    "lamp/2.bin",
    a_fingerprint("image"),
    9,
    ImageFacts(model="lamp", version="2", security_counter=1),
)
USABLE = Usable("by us", NOW - timedelta(days=1))
SOON = NOW + timedelta(minutes=1)


def a_rollout(number: int = 1) -> Rollout:
    everyone, pace = Selection(everyone=True), Pace()
    name = f"r{number}"
    return Rollout(name, number, (IMAGE,), everyone, pace, Timing(), StopRule(), NOW, wave=2)


def given_to(candidate: Candidate, rollout: str = "r1") -> GivenAssignment:
    return GivenAssignment(
        device_id=candidate.device.id,
        sequence=candidate.known.sequence + 1,
        rollout=rollout,
        nonce="n" * 32,
        issued_at=NOW,
        expires=NOW + timedelta(days=14),
        targets=((IMAGE.path, IMAGE.sha256),),
    )


@pytest.fixture
async def queued(registry: SqlRegistry) -> SqlRegistry:
    """`lamp-1` to `lamp-4` in the queue of `r1`, in this order."""

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        tx.save_rollout(a_rollout())
        for number in (1, 2, 3, 4):
            device = device_number(number, state=DeviceState.ACTIVE)
            tx.save_device(device)
            tx.save_part(Part("r1", device.id, Progress.QUEUED, NOW, draw=number))

    await registry.write(work)
    return registry


async def candidates(registry: SqlRegistry, rollout: str = "r1") -> list[Candidate]:
    return await registry.read(lambda tx: tx.candidates(rollout, 0, USABLE, 0, 10))


async def names(registry: SqlRegistry) -> list[str]:
    return [each.device.id for each in await candidates(registry)]


async def prepare(registry: SqlRegistry, rollout: str = "r1", count: int = 4) -> None:
    found = (await candidates(registry, rollout))[:count]
    prepared = [
        Prepared(given_to(each, rollout), each.device.id.encode(), each.as_of, "by us")
        for each in found
    ]
    await registry.write(lambda tx: tx.save_prepared(rollout, prepared))


async def give(registry: SqlRegistry, rollout: Rollout, limit: int = 10) -> int:
    return await registry.write(lambda tx: tx.give_prepared(rollout, 0, USABLE, limit, SOON))


async def change(registry: SqlRegistry, method: str, record: object) -> None:
    await registry.write(lambda tx: getattr(tx, method)(record))


async def test_whoever_is_prepared_is_no_candidate(queued: SqlRegistry) -> None:
    assert await names(queued) == ["lamp-1", "lamp-2", "lamp-3", "lamp-4"]
    assert not await queued.read(lambda tx: tx.has_prepared("r1"))
    await prepare(queued, count=3)
    assert await names(queued) == ["lamp-4"]
    assert await queued.read(lambda tx: tx.has_prepared("r1"))
    assert await queued.read(lambda tx: tx.count_prepared("r1")) == 3
    assert await queued.read(lambda tx: tx.reach("r1", 0, 2)) == 2
    assert await queued.read(lambda tx: tx.reach("r2", 0, 2)) is None


async def test_giving_moves_all_that_has_to_do_with_it(queued: SqlRegistry) -> None:
    await prepare(queued)
    assert await give(queued, a_rollout(), limit=2) == 2
    lamp = DeviceId("lamp-1")
    (part,) = await queued.read(lambda tx: tx.parts_of("r1", [lamp]))
    assert part == Part("r1", lamp, Progress.ASSIGNED, SOON, wave=2, draw=1, sequence=1)
    held = await queued.read(lambda tx: tx.given_assignment(lamp, 1))
    assert held is not None
    assert (held.targets, held.expires) == (((IMAGE.path, IMAGE.sha256),), NOW + timedelta(days=14))
    known = await queued.read(lambda tx: tx.device_update(lamp))
    assert known == DeviceUpdate(lamp, sequence=1, rollout="r1", rollout_number=1)
    retained = await queued.read(lambda tx: tx.retained_after(0, "", 10))
    topics = [desired_topic(DeviceId(name), Desired.UPDATE) for name in ("lamp-1", "lamp-2")]
    assert [(each.topic, each.payload) for each in retained] == [
        (topics[0], b"lamp-1"),
        (topics[1], b"lamp-2"),
    ]
    assert await queued.read(lambda tx: tx.tally("r1")) == {
        (0, Progress.QUEUED): 2,
        (2, Progress.ASSIGNED): 2,
    }
    assert await queued.read(lambda tx: tx.count_prepared("r1")) == 2
    assert await give(queued, a_rollout()) == 2
    assert await give(queued, a_rollout()) == 0


@pytest.mark.parametrize(
    ("method", "record"),
    [
        ("save_device", device_number(1, state=DeviceState.REVOKED)),
        ("save_device", device_number(1, state=DeviceState.ACTIVE, parameters={"model": "x"})),
        ("save_device_update", DeviceUpdate(DeviceId("lamp-1"), sequence=1)),
        ("save_device_update", DeviceUpdate(DeviceId("lamp-1"), running={"lamp/2.bin": "2"})),
        ("save_device_update", DeviceUpdate(DeviceId("lamp-1"), rolled_back=("ab",))),
        ("save_part", Part("r1", DeviceId("lamp-1"), Progress.QUEUED, NOW, draw=1, code="again")),
    ],
)
async def test_what_was_decided_on_other_facts_is_not_given(
    queued: SqlRegistry, method: str, record: object
) -> None:
    await prepare(queued)
    await change(queued, method, record)
    assert await names(queued) == ["lamp-1"]
    assert await give(queued, a_rollout()) == 3
    assert await queued.read(lambda tx: tx.given_assignment(DeviceId("lamp-1"), 1)) is None
    await prepare(queued)
    assert await give(queued, a_rollout()) == 1


async def test_what_others_signed_or_long_ago_is_not_given(queued: SqlRegistry) -> None:
    await prepare(queued)
    for usable in (Usable("by others", USABLE.since), Usable("by us", NOW + timedelta(seconds=1))):
        wanted = usable
        found = await queued.read(lambda tx, u=wanted: tx.candidates("r1", 0, u, 0, 10))  # type: ignore[misc]
        assert len(found) == 4
        told = await queued.write(
            lambda tx, u=wanted: tx.give_prepared(a_rollout(), 0, u, 10, SOON)  # type: ignore[misc]
        )
        assert told == 0


async def test_another_rollout_learns_that_it_lost_the_device(queued: SqlRegistry) -> None:
    await prepare(queued)
    await give(queued, a_rollout())

    def next_one(tx: WriteTransaction) -> None:
        tx.save_rollout(a_rollout(2))
        installed = tx.part("r1", DeviceId("lamp-4"))
        assert installed is not None
        tx.save_part(replace(installed, progress=Progress.INSTALLED))
        for number in (1, 4):
            lamp = DeviceId(f"lamp-{number}")
            tx.save_part(Part("r2", lamp, Progress.QUEUED, NOW, draw=number))

    await queued.write(next_one)
    await prepare(queued, "r2")
    assert await give(queued, a_rollout(2)) == 2
    lost, kept = await queued.read(
        lambda tx: tx.parts_of("r1", [DeviceId("lamp-1"), DeviceId("lamp-4")])
    )
    assert (lost.progress, lost.code) == (Progress.CANCELLED, "superseded")
    assert (kept.progress, kept.code) == (Progress.INSTALLED, None)
    for lamp in (DeviceId("lamp-1"), DeviceId("lamp-4")):
        before = await queued.read(lambda tx, d=lamp: tx.given_assignment(d, 1))  # type: ignore[misc]
        assert before is not None
        assert before.settled_at == SOON
    assert await queued.read(lambda tx: tx.tally("r1")) == {
        (2, Progress.ASSIGNED): 2,
        (2, Progress.CANCELLED): 1,
        (2, Progress.INSTALLED): 1,
    }
    assert await queued.read(lambda tx: tx.failure_codes("r1")) == {"superseded": 1}


async def test_what_is_dropped_is_gone(queued: SqlRegistry) -> None:
    await prepare(queued)
    assert await queued.write(lambda tx: tx.drop_prepared("r1", 3)) == 3
    assert await queued.write(lambda tx: tx.drop_prepared("r1", 3)) == 1
    assert await give(queued, a_rollout()) == 0
