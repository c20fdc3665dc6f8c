"""Applying group files: all or nothing, the same twice is nothing, and each change is on record."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.core.keys import KeyType
from broker.core.records import EnrollmentGroup, Event, EventKind, Serials
from broker.ports.registry import EventFilter, Registry, RegistryConflict
from broker.protocol.names import ClaimName, GroupName
from broker.services import groups
from broker.services.problems import Problem, ProblemCode
from tests.support.operating import NOW, SetClock, add_claims, fresh_registry


def group(name: str, *claims: str) -> EnrollmentGroup:
    return EnrollmentGroup(
        GroupName(name),
        frozenset(ClaimName(claim) for claim in claims),
        "lamp-{serial}",
        frozenset({KeyType.P256}),
        timedelta(days=90),
        quota=10,
    )


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with fresh_registry(tmp_path) as opened:
        await add_claims(opened, "b1", "b2")
        yield opened


async def applied(registry: Registry) -> list[EnrollmentGroup]:
    return sorted(await registry.read(lambda view: view.groups()), key=lambda each: each.name)


async def events(registry: Registry) -> list[Event]:
    found = await registry.read(lambda view: view.events(EventFilter(kind=EventKind.GROUP_APPLIED)))
    return found[::-1]


async def test_a_new_group_is_there_with_an_event(registry: Registry) -> None:
    (change,) = await groups.apply(registry, SetClock(), [group("lamps", "b1")])
    assert change.is_new
    assert await applied(registry) == [group("lamps", "b1")]
    (event,) = await events(registry)
    assert event.at == NOW
    assert event.group == "lamps"
    assert event.detail is not None
    assert "quota=10" in event.detail


async def test_the_same_again_changes_nothing_and_leaves_no_event(registry: Registry) -> None:
    await groups.apply(registry, SetClock(), [group("lamps", "b1")])
    (change,) = await groups.apply(registry, SetClock(), [group("lamps", "b1")])
    assert change.fields == ()
    assert len(await events(registry)) == 1


async def test_a_plan_shows_what_would_change_and_changes_nothing(registry: Registry) -> None:
    await groups.apply(registry, SetClock(), [group("lamps", "b1")])
    wanted = replace(group("lamps", "b1", "b2"), quota=20, serials=Serials.ANY)
    (change,) = await groups.plan(registry, [wanted])
    assert not change.is_new
    assert [(field.field, field.before, field.after) for field in change.fields] == [
        ("claim_certificates", "b1", "b1, b2"),
        ("quota", "10", "20"),
        ("serials", "listed", "any"),
    ]
    assert await applied(registry) == [group("lamps", "b1")]


async def test_groups_that_the_file_does_not_name_stay(registry: Registry) -> None:
    await groups.apply(registry, SetClock(), [group("lamps", "b1")])
    await groups.apply(registry, SetClock(), [group("meters", "b2")])
    assert await applied(registry) == [group("lamps", "b1"), group("meters", "b2")]


async def test_two_groups_can_trade_their_claim_certificates(registry: Registry) -> None:
    await groups.apply(registry, SetClock(), [group("lamps", "b1"), group("meters", "b2")])
    await groups.apply(registry, SetClock(), [group("lamps", "b2"), group("meters", "b1")])
    assert await applied(registry) == [group("lamps", "b2"), group("meters", "b1")]


async def test_a_claim_certificate_of_an_unnamed_group_is_not_taken_from_it(
    registry: Registry,
) -> None:
    await groups.apply(registry, SetClock(), [group("lamps", "b1")])
    with pytest.raises(RegistryConflict):
        await groups.apply(registry, SetClock(), [group("also", "b2"), group("meters", "b1")])
    assert await applied(registry) == [group("lamps", "b1")]
    assert len(await events(registry)) == 1


async def test_a_claim_certificate_must_exist(registry: Registry) -> None:
    wanted = [group("lamps", "b1", "nobody")]
    with pytest.raises(Problem, match="nobody") as caught:
        await groups.apply(registry, SetClock(), wanted)
    assert caught.value.code is ProblemCode.CLAIM_CERTIFICATE_UNKNOWN
    with pytest.raises(Problem, match="nobody"):
        await groups.plan(registry, wanted)
    assert await applied(registry) == []


async def test_applying_keeps_the_count_of_devices(registry: Registry) -> None:
    await groups.apply(registry, SetClock(), [group("lamps", "b1")])
    await registry.write(lambda view: view.count_device(GroupName("lamps"), 3))
    await groups.apply(registry, SetClock(), [replace(group("lamps", "b2"), quota=4)])
    (kept,) = await applied(registry)
    assert kept.devices == 3
    assert kept.quota == 4
