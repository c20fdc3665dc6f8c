"""A commit whose answer was lost: the work runs again, and finds that it has been done."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters.registry import SqlRegistry
from broker.core.ca_rollover import InForce, in_force
from broker.core.campaign import CampaignInput, CampaignState, Selection, SelectionKind
from broker.core.lifecycle import DeviceInput
from broker.core.records import EventKind
from broker.core.rollout import Progress, RolloutInput
from broker.core.rollout import Selection as RolloutSelection
from broker.protocol.bundle import ClaimBundle
from broker.protocol.messages import Endpoint, TrustBundle
from broker.protocol.names import CertificateSerial, ClaimName, DeviceId, SerialNumber
from broker.protocol.updates import Phase
from broker.services import (
    ca_movement,
    campaigns,
    claim_certificates,
    device_acts,
    enrollments,
    groups,
)
from broker.services import rollouts as rollout_acts
from broker.services.ca_rollover import CaRollovers, Pace
from broker.services.ca_rollover_steps import CaRolloverSteps
from broker.services.claim_certificates import NewClaim, Wanted
from broker.services.lock_out import LockOuts
from broker.services.recovery_approval import approve_recovery
from tests.support.desk import GROUP, Desk, open_desk
from tests.support.fake_updates import FakeRepository
from tests.support.lost_commits import LostCommits, all_rows
from tests.support.operating import SetClock
from tests.support.records import a_claim_certificate, a_group
from tests.support.rollouts import NEVER, UpdateDesk, in_waves

Act = Callable[[Desk], Awaitable[object]]
LAMP = DeviceId("lamp-A1")
ALL = Selection(SelectionKind.ALL)
SERIALS = [SerialNumber(f"B{number}") for number in range(3)]


class PaperAuthority:
    """Signs nothing."""

    def issue(self, name: ClaimName, not_after: Any, now: Any) -> NewClaim:
        endpoint, trust = Endpoint(host="localhost", port=8884), TrustBundle(version=1, anchors="a")
        bundle = ClaimBundle(
            claim_name=name, certificate="c", private_key="k", claim=endpoint, trust_bundle=trust
        )
        return NewClaim(bundle, CertificateSerial("abc"), now, not_after)

    def sign_crl(self, *_: object) -> bytes:
        raise NotImplementedError


class MemoryFile:
    """A bundle's file."""

    text: bytes | None = None

    def write(self, text: bytes) -> None:
        self.text = text

    def discard(self) -> None:
        self.text = None


class Broker:
    """Trusts whom the registry names, and ends every connection."""

    def __init__(self) -> None:
        self.trusted_in_force: InForce | None = None

    async def apply_crl(self) -> None:
        pass

    async def disconnect(self, name: str) -> int:
        return 1


async def create_claim(desk: Desk) -> object:
    file = MemoryFile()
    wanted = Wanted("batch-8", 500, timedelta(days=30))
    made = await claim_certificates.create(
        desk.registry, desk.clock, PaperAuthority(), wanted, file
    )
    assert file.text is not None, "the bundle alone holds the key of what is registered"
    return made


async def revoke_claim(desk: Desk) -> object:
    return await claim_certificates.revoke(desk.registry, desk.clock, "batch-7")


async def apply_group(desk: Desk) -> object:
    return await groups.apply(desk.registry, desk.clock, [a_group(quota=7)])


async def do(desk: Desk, *acts: DeviceInput) -> object:
    done = []
    for number, act in enumerate(acts):
        wanted = device_acts.Wanted(act, "lost")
        devices = [(LAMP, f"act-{number}")]
        done += [
            each async for each in device_acts.carry_out(desk.registry, desk.clock, devices, wanted)
        ]
    return done


async def put_out(desk: Desk) -> object:
    await do(desk, DeviceInput.REVOKE)
    lock_outs = LockOuts(desk.registry, Broker(), desk.clock)
    waiting = await desk.read("waiting_lock_outs", 10)
    await lock_outs.carry_out(waiting, desk.clock.now())
    return len(waiting)


async def approve(desk: Desk) -> object:
    return await approve_recovery(desk.registry, desk.clock, [LAMP], timedelta(hours=1))


async def rotate(desk: Desk) -> object:
    return await campaigns.start(desk.registry, desk.clock, campaigns.Wanted(ALL))


async def rotate_and_steer(desk: Desk) -> object:
    campaign = await campaigns.start(desk.registry, desk.clock, campaigns.Wanted(ALL))
    return [
        await campaigns.change(desk.registry, desk.clock, campaign.id, each)
        for each in (CampaignInput.PAUSE, CampaignInput.RESUME, CampaignInput.CANCEL)
    ]


def updates_of(desk: Desk) -> UpdateDesk:
    """Whose director signs the same alike."""
    return UpdateDesk(desk, FakeRepository(key=Ed25519PrivateKey.from_private_bytes(bytes(32))))


async def push(desk: Desk) -> object:
    return await updates_of(desk).push()


async def push_and_steer(desk: Desk) -> object:
    await updates_of(desk).push(hold=True)
    steer = partial(rollout_acts.steer, desk.registry, desk.clock, "r1")
    return [
        await steer(each, None)
        for each in (
            RolloutInput.RELEASE,
            RolloutInput.PAUSE,
            RolloutInput.RESUME,
            RolloutInput.CANCEL,
        )
    ]


async def push_and_report(desk: Desk, phase: Phase) -> None:
    updates, names = updates_of(desk), ("lamp-X1", "lamp-X2")
    await updates.add(*names)
    selection = RolloutSelection(devices=tuple(DeviceId(name) for name in names))
    await updates.push(stop=NEVER, selection=selection)
    await updates.director.advance()
    await updates.everybody_says(phase)


async def push_and_fail(desk: Desk) -> None:
    await push_and_report(desk, Phase.ROLLED_BACK)
    await updates_of(desk).director.advance()


async def push_and_succeed(desk: Desk) -> None:
    await push_and_report(desk, Phase.INSTALLED)


async def retry(desk: Desk, *devices: str) -> object:
    return await rollout_acts.retry(desk.registry, desk.clock, "r1", devices)


async def push_in_waves(desk: Desk) -> None:
    await updates_of(desk).push(pace=in_waves(40, 100))


async def tell(desk: Desk) -> object:
    updates = updates_of(desk)
    await updates.director.advance()
    return await updates.at(Progress.ASSIGNED)


async def push_at_a_pace(desk: Desk) -> None:
    await updates_of(desk).push(pace=in_waves(100, per_minute=1))


async def begin_rollover(desk: Desk) -> object:
    rollovers = CaRollovers(desk.registry, desk.clock)
    planned = await rollovers.planned(Pace(per_minute=120, wave_size=5))
    return await rollovers.start(planned)


async def move(desk: Desk) -> None:
    await begin_rollover(desk)
    broker = Broker()
    steps = CaRolloverSteps(desk.registry, broker, desk.clock)  # type: ignore[arg-type]
    for _ in range(3):
        broker.trusted_in_force = in_force(await desk.read("ca_rollover"))
        await steps.advance()


async def move_and_pause(desk: Desk) -> None:
    await move(desk)
    await CaRollovers(desk.registry, desk.clock).pause()


async def move_and_tell_all(desk: Desk) -> None:
    await move(desk)
    (campaign,) = await desk.read("campaigns", 1)
    ended = replace(campaign, waiting=0, dropped=campaign.waiting, state=CampaignState.DONE)
    await desk.write(("save_campaign", ended))


async def steered(desk: Desk, name: str, *arguments: object) -> object:
    return await getattr(CaRollovers(desk.registry, desk.clock), name)(*arguments)


async def tell_many_anew(desk: Desk) -> object:
    """So many that they aren't named, and stand in no list yet when the work ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ca_movement, "MAX_NAMED", 2)
        return await steered(desk, "resume")


async def nothing(desk: Desk) -> None:
    pass


ACTS: dict[str, tuple[Act, Act]] = {
    "claim certificate created": (nothing, create_claim),
    "claim certificate revoked": (nothing, revoke_claim),
    "group applied": (nothing, apply_group),
    "device suspended and resumed": (
        nothing,
        lambda desk: do(desk, DeviceInput.SUSPEND, DeviceInput.RESUME),
    ),
    "device revoked and reclaimed": (
        nothing,
        lambda desk: do(desk, DeviceInput.REVOKE, DeviceInput.RECLAIM),
    ),
    "device retired": (nothing, lambda desk: do(desk, DeviceInput.RETIRE)),
    "device put out": (nothing, put_out),
    "recovery approved": (nothing, approve),
    "campaign started": (nothing, rotate),
    "campaign steered": (nothing, rotate_and_steer),
    "rollout started": (nothing, push),
    "rollout steered": (nothing, push_and_steer),
    "rollout retried": (push_and_fail, retry),
    "rollout retried for one": (push_and_fail, lambda desk: retry(desk, "lamp-X1")),
    "wave told": (push_in_waves, tell),
    "one a minute told": (push_at_a_pace, tell),
    "rollout done": (push_and_succeed, tell),
    "rollover started": (nothing, begin_rollover),
    "rollover cancelled": (move, lambda desk: steered(desk, "cancel")),
    "rollover paused": (move, lambda desk: steered(desk, "pause")),
    "rollover resumed": (move_and_pause, lambda desk: steered(desk, "resume")),
    "rest told anew": (move_and_tell_all, lambda desk: steered(desk, "resume")),
    "many told anew": (move_and_tell_all, tell_many_anew),
    "rollover finished": (move, lambda desk: steered(desk, "finish", 5)),
}


@pytest.mark.parametrize("name", ACTS)
async def test_what_was_done_although_nobody_heard_of_it_is_done_once(
    tmp_path: Path, name: str
) -> None:
    prepare, act = ACTS[name]
    once, again = tmp_path / "once", tmp_path / "again"
    once.mkdir()
    again.mkdir()
    async with open_desk(once) as desk:
        await open_group(desk)
        for serial in ("A1", "A2", "A3", "A4", "A5"):
            await desk.join(serial)
        await prepare(desk)
        now = desk.clock.at = desk.clock.at + timedelta(hours=1)
    shutil.copy(once / "registry.db", again)
    async with at_desk(once, now) as desk:
        expected = await act(desk)
    async with at_desk(again, now) as desk:
        commits = LostCommits(desk.clock)
        with commits.losing():
            assert await act(desk) == expected
    assert commits.lost > 0
    assert all_rows(f"sqlite:///{again}/registry.db") == all_rows(f"sqlite:///{once}/registry.db")


@asynccontextmanager
async def at_desk(folder: Path, now: datetime) -> AsyncIterator[Desk]:
    """At what was prepared."""
    async with SqlRegistry(f"sqlite:///{folder}/registry.db") as registry:
        yield Desk(registry, SetClock(now))


async def open_group(desk: Desk) -> None:
    claim = a_claim_certificate(not_before=desk.clock.now())
    await desk.open_group(a_group(), claim, "A1", "A2", "A3", "A4", "A5")


async def test_what_an_import_added_stands_on_the_list_once(registry: SqlRegistry) -> None:
    desk = Desk(registry)
    await open_group(desk)
    with LostCommits(desk.clock).losing():
        done = await enrollments.import_serials(
            registry, desk.clock, GROUP, SERIALS, lambda _: None
        )
    assert (done.added + done.known, done.bad) == (3, 0)
    assert await desk.read("count_enrollments", GROUP) == 8
    imported = [each for each in await desk.events() if each.kind is EventKind.ENROLLMENTS_IMPORTED]
    assert [each.detail for each in imported] == ["3 serial numbers"]


async def test_it_is_so_on_both_databases(registry: SqlRegistry) -> None:
    desk = Desk(registry, SetClock())
    with LostCommits(desk.clock).losing():
        await create_claim(desk)
    assert (await desk.read("claim_certificate", ClaimName("batch-8"))).serial == "abc"
    assert [each.kind for each in await desk.events()] == [EventKind.CLAIM_CERTIFICATE_CREATED]
