"""What an operator does to devices: in the registry at once, and owed by the broker until done."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.core.lock_out import WATCH_S
from broker.core.records import EventKind, LockOut, RevocationReason
from broker.ports.registry import WriteTransaction
from broker.protocol.codes import Code
from broker.protocol.names import CertificateSerial, DeviceId, SerialNumber
from broker.services import device_acts
from broker.services.device_acts import Acted, Effect, Wanted
from broker.services.lapse import LapseService
from broker.services.lock_out import LockOuts
from broker.services.problems import Problem, ProblemCode
from tests.support.csrs import fresh_key
from tests.support.desk import CONFIRM_WITHIN, Desk
from tests.support.records import a_fingerprint

LAMP = DeviceId("lamp-A1")


class Broker:
    """Meets `broker.ports.brokers.BrokerControl`; remembers whom it threw off."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.is_down = False

    async def apply_crl(self) -> None:
        raise AssertionError("lock-outs apply no CRL")

    async def disconnect(self, name: str) -> int:
        if self.is_down:
            raise ConnectionError("the broker is down")
        self.ended.append(name)
        return 1


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def lock_outs(desk: Desk, broker: Broker) -> LockOuts:
    return LockOuts(desk.registry, broker, desk.clock)


async def act(desk: Desk, what: DeviceInput, new_id: str = "o1", name: DeviceId = LAMP) -> Acted:
    (acted,) = [
        each
        async for each in device_acts.carry_out(
            desk.registry, desk.clock, [(name, new_id)], Wanted(what, "lost")
        )
    ]
    return acted


async def owed(desk: Desk) -> list[LockOut]:
    found: list[LockOut] = await desk.read("waiting_lock_outs", 100)
    return found


async def test_a_revocation_is_one_transaction_with_all_that_it_needs(desk: Desk) -> None:
    certificate = await desk.join("A1")
    wanted = await desk.read("counter", "crl.fleet.wanted")
    acted = await act(desk, DeviceInput.REVOKE)
    assert (acted.effect, acted.before, acted.after, acted.certificates) == (
        *(Effect.DONE, DeviceState.ACTIVE, DeviceState.REVOKED, 1),
    )
    (now,) = await desk.certificates()
    assert (now.state, now.revoked_for) == (CertificateState.REVOKED, RevocationReason.OPERATOR)
    assert [line.serial for line in await desk.read("revocations", desk.clock.now())] == [
        certificate.serial
    ]
    (lock_out,) = await owed(desk)
    assert lock_out == acted.lock_out
    assert lock_out.serials == (certificate.serial,)
    assert lock_out.crl_wanted == await desk.read("counter", "crl.fleet.wanted") == wanted + 1
    kinds = [event.kind for event in await desk.events()]
    assert kinds[-2:] == [EventKind.CERTIFICATE_REVOKED, EventKind.DEVICE_REVOKED]
    assert (await desk.events())[-1].detail == "1 certificates: lost"


@pytest.mark.parametrize("what", [DeviceInput.REVOKE, DeviceInput.SUSPEND, DeviceInput.RETIRE])
async def test_doing_it_again_changes_nothing(desk: Desk, what: DeviceInput) -> None:
    await desk.join("A1")
    first = await act(desk, what)
    before = await desk.everything()
    again = await act(desk, what, "o2")
    assert again.effect is Effect.UNCHANGED
    assert again.lock_out == first.lock_out
    assert await desk.everything() == before


async def test_what_cannot_be_done_changes_nothing(desk: Desk) -> None:
    await desk.join("A1")
    before = await desk.everything()
    acted = await act(desk, DeviceInput.RECLAIM)
    assert (acted.effect, acted.lock_out) == (Effect.IMPOSSIBLE, None)
    assert await desk.everything() == before


async def test_a_plan_changes_nothing(desk: Desk) -> None:
    await desk.join("A1")
    before = await desk.everything()
    wanted = Wanted(DeviceInput.REVOKE)
    (planned,) = await device_acts.plan(desk.registry, desk.clock.now(), [LAMP], wanted)
    assert (planned.effect, planned.after) == (Effect.DONE, DeviceState.REVOKED)
    assert await desk.everything() == before


async def test_devices_are_chosen_by_name_and_by_group(desk: Desk) -> None:
    await desk.join("A1")
    await desk.join("A2")
    chosen = await device_acts.choose(desk.registry, ["lamp-A2"], "lamps")
    assert chosen == ["lamp-A2", "lamp-A1"]
    for ids, group, code in (
        (["nobody"], None, ProblemCode.DEVICE_UNKNOWN),
        ([], "nothing", ProblemCode.GROUP_UNKNOWN),
        ([], None, ProblemCode.VALUE_INVALID),
    ):
        with pytest.raises(Problem) as refused:
            await device_acts.choose(desk.registry, ids, group)
        assert refused.value.code is code


async def test_the_quota_follows(desk: Desk) -> None:
    await desk.join("A1")
    counts = []
    for number, what in enumerate(
        (DeviceInput.SUSPEND, DeviceInput.REVOKE, DeviceInput.RECLAIM, DeviceInput.RETIRE)
    ):
        await act(desk, what, f"o{number}")
        counts.append((await desk.counts())[1])
    assert counts == [1, 1, 0, 0]


async def test_a_key_that_was_revoked_never_counts_again(desk: Desk) -> None:
    key, older = fresh_key(), fresh_key()
    await desk.enroll("A1", older)
    desk.clock.at += CONFIRM_WITHIN
    await desk.lapsing.revoke_unconfirmed()
    await desk.join("A1", key)
    await act(desk, DeviceInput.REVOKE)
    assert await desk.refused_enroll("A1", key) is Code.KEY_IN_USE
    await act(desk, DeviceInput.RECLAIM)
    assert await desk.refused_enroll("A1", key) is Code.KEY_IN_USE
    await desk.join("A1", fresh_key())
    assert (await desk.device()).state is DeviceState.ACTIVE


async def test_a_suspension_is_lifted_whole(desk: Desk) -> None:
    before = await desk.join("A1")
    await act(desk, DeviceInput.SUSPEND)
    (held,) = await desk.certificates()
    assert held == replace(before, held_at=desk.clock.now())
    (line,) = await desk.read("revocations", desk.clock.now())
    assert line.reason is RevocationReason.SUSPENDED
    acted = await act(desk, DeviceInput.RESUME, "o2")
    assert acted.certificates == 1
    assert await desk.certificates() == [before]
    assert await desk.read("revocations", desk.clock.now()) == []
    # The suspension isn't owed any more; that it is lifted is.
    assert [each.act for each in await owed(desk)] == [DeviceInput.RESUME]


async def test_what_is_owed_is_paid_when_the_broker_is_back(
    desk: Desk, lock_outs: LockOuts, broker: Broker
) -> None:
    await desk.join("A1")
    await act(desk, DeviceInput.REVOKE)
    broker.is_down = True
    with pytest.raises(ConnectionError):
        await lock_outs.carry_out(await owed(desk), desk.clock.now())
    assert len(await owed(desk)) == 1
    broker.is_down = False
    desk.clock.at += timedelta(seconds=2)
    await lock_outs.carry_out(await owed(desk), desk.clock.now())
    assert broker.ended == [LAMP]
    assert await owed(desk) == []
    done = await desk.read("lock_out", "o1")
    assert done.is_complete
    event = (await desk.events())[-1]
    assert event.kind is EventKind.DEVICE_LOCKED_OUT
    assert event.detail == "revoke: CRL in force after 2000 ms, disconnected after 2000 ms"


async def watched(desk: Desk, lock_outs: LockOuts, seconds: int) -> None:
    for _ in range(seconds):
        desk.clock.at += timedelta(seconds=1)
        await lock_outs.watch()


async def test_it_is_repeated_each_second_for_a_while(
    desk: Desk, lock_outs: LockOuts, broker: Broker
) -> None:
    await desk.join("A1")
    await act(desk, DeviceInput.REVOKE)
    await lock_outs.carry_out(await owed(desk), desk.clock.now())
    await lock_outs.watch()
    await watched(desk, lock_outs, int(WATCH_S))
    assert len(broker.ended) == 1 + WATCH_S
    await watched(desk, lock_outs, 10)
    assert len(broker.ended) == 1 + WATCH_S
    assert await desk.read("open_lock_outs", 10) == []


@pytest.mark.parametrize("back", [DeviceInput.RESUME, DeviceInput.RECLAIM])
async def test_it_stops_for_who_comes_back(
    desk: Desk, lock_outs: LockOuts, broker: Broker, back: DeviceInput
) -> None:
    await desk.join("A1")
    await act(desk, DeviceInput.SUSPEND if back is DeviceInput.RESUME else DeviceInput.REVOKE)
    await lock_outs.carry_out(await owed(desk), desk.clock.now())
    await lock_outs.watch()
    await act(desk, back, "o2")
    if back is DeviceInput.RECLAIM:
        await desk.join("A1", fresh_key())
    await lock_outs.carry_out(await owed(desk), desk.clock.now())
    await watched(desk, lock_outs, int(WATCH_S) - 1)
    assert broker.ended == [LAMP]
    await watched(desk, lock_outs, 10)
    # Who was reclaimed is thrown off once more: an old connection may have slipped in.
    assert len(broker.ended) == (1 if back is DeviceInput.RESUME else 2)


async def test_a_lapse_is_owed_too_and_once(
    desk: Desk, lock_outs: LockOuts, broker: Broker
) -> None:
    await desk.enroll("A1")
    desk.clock.at += CONFIRM_WITHIN
    await LapseService(desk.registry, desk.clock).revoke_unconfirmed()
    (lock_out,) = await owed(desk)
    assert lock_out.act is DeviceInput.LAPSE
    await lock_outs.carry_out([lock_out], desk.clock.now())
    assert broker.ended == [LAMP]


async def test_suspects_without_a_live_certificate_are_thrown_off(
    desk: Desk, lock_outs: LockOuts, broker: Broker
) -> None:
    await desk.join("A1")
    await desk.join("A2")
    await act(desk, DeviceInput.REVOKE)
    lock_outs.suspect([LAMP, DeviceId("lamp-A2")])
    await lock_outs.watch()
    await lock_outs.watch()
    assert broker.ended == [LAMP]


async def crowded(desk: Desk, count: int) -> None:
    """So many devices whose old certificate's grace is over, and their lock-outs."""
    lamp, live = await desk.device(), (await desk.certificates())[-1]

    def work(tx: WriteTransaction) -> None:
        for number in range(count):
            name, serial = DeviceId(f"other-{number}"), SerialNumber(f"B{number}")
            tx.save_device(replace(lamp, id=name, serial=serial))
            certificate = replace(
                live,
                serial=CertificateSerial(f"{number:x}"),
                device_id=name,
                key_sha256=a_fingerprint(f"key {number}"),
                certificate_sha256=a_fingerprint(f"certificate {number}"),
            )
            tx.save_certificate(certificate)
            tx.save_lock_out(
                LockOut(f"s{number}", name, DeviceInput.CONFIRM, (), desk.clock.now(), 0)
            )

    await desk.registry.write(work)


async def test_an_operator_s_act_waits_for_no_sweep(
    desk: Desk, lock_outs: LockOuts, broker: Broker
) -> None:
    await desk.join("A1")
    await crowded(desk, 500)
    await act(desk, DeviceInput.REVOKE)
    in_turn = await desk.read("waiting_lock_outs", 200)
    await lock_outs.carry_out(in_turn, desk.clock.now())
    assert broker.ended[0] == LAMP
    # The next act, which may come at this moment, doesn't wait for all of them either.
    assert len(broker.ended) == 51
    while in_turn := await desk.read("waiting_lock_outs", 200):
        await lock_outs.carry_out(in_turn, desk.clock.now())
    assert sorted(broker.ended) == sorted([LAMP, *(f"other-{n}" for n in range(500))])


async def test_a_sweep_keeps_no_revocation_from_being_repeated(
    desk: Desk, lock_outs: LockOuts, broker: Broker
) -> None:
    # Who holds a handshake back gets into Mosquitto after the CRL; only repetition ends that.
    await desk.join("A1")
    await crowded(desk, 600)
    while in_turn := await desk.read("waiting_lock_outs", 200):
        await lock_outs.carry_out(in_turn, desk.clock.now())
    await lock_outs.watch()
    desk.clock.at += timedelta(seconds=1)
    await act(desk, DeviceInput.REVOKE)
    await lock_outs.carry_out(await owed(desk), desk.clock.now())
    broker.ended.clear()
    for seconds in range(1, 6):
        await lock_outs.watch()
        desk.clock.at += timedelta(seconds=1)
        assert broker.ended == [LAMP] * (seconds - 1)
    desk.clock.at += timedelta(seconds=WATCH_S)
    for _ in range(10):
        await lock_outs.watch()
    assert await desk.read("open_lock_outs", 1000) == []
    assert set(broker.ended) == {LAMP}
