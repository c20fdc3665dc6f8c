"""`muster rotate` as an operator types it, without a service that would carry anything out."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from broker.adapters.registry import SqlRegistry
from broker.adapters.run_lock import held
from broker.core.campaign import CampaignId, CampaignState, Rotation, RotationState, counted
from broker.core.lifecycle import DeviceState
from broker.ports.registry import WriteTransaction
from tests.support.commands import Operator
from tests.support.records import NOW
from tests.support.registries import add_batch, certificate_number, device_number


@pytest.fixture
def operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    """An operator whose fleet has two members and a suspended one, of one claim certificate."""
    for name in ("MUSTER_HOME", "MUSTER_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    operator = Operator(tmp_path / "home", tmp_path, capsys)
    operator.succeeds("init", operator.home)
    write(operator, _add_fleet)
    return operator


def _add_fleet(tx: WriteTransaction) -> None:
    add_batch(tx)
    for number in (1, 2, 3):
        state = DeviceState.SUSPENDED if number == 3 else DeviceState.ACTIVE
        tx.save_device(device_number(number, state=state))
        tx.save_certificate(certificate_number(number))


def write(operator: Operator, work: Callable[[WriteTransaction], None]) -> None:
    async def run() -> None:
        async with SqlRegistry(f"sqlite:///{operator.home / 'registry.db'}") as registry:
            await registry.write(work)

    asyncio.run(run())


def test_a_campaign_s_life(operator: Operator) -> None:
    started = operator.succeeds("rotate", "start", "--all", "--wave", "1", "--reason", "drill")
    assert started.out == "campaign 1\n"
    assert "To renew: 2 devices, 60 a minute: about 1 minute," in started.err
    assert "without a proven certificate: 1 device." in started.err
    assert "rotate status 1 --watch" in started.err
    (told,) = operator.succeeds("rotate", "status", "--json").json()
    assert (told["state"], told["wave_size"], told["per_minute"]) == ("running", 1, 60)
    assert operator.succeeds("rotate", "pause", "1").out == "campaign 1 is paused\n"
    assert operator.succeeds("rotate", "pause", "1").out == "campaign 1 is paused\n"
    assert operator.succeeds("rotate", "resume", "1").out == "campaign 1 is running\n"
    assert operator.succeeds("rotate", "cancel", "1").out == "campaign 1 is cancelled\n"
    assert "campaign\t1\n" in operator.succeeds("rotate", "status").out
    refused = operator("rotate", "resume", "1")
    assert refused.status == 1
    assert "[campaign_over]" in refused.err
    # Nothing is left to do for it, so there is nothing to wait for.
    watched = operator.succeeds("rotate", "status", "1", "--watch")
    assert "campaign 1 cancelled, 0 waiting, 0 ordered, 0 of 0 done with" in watched.err
    listed = operator.succeeds("rotate", "list").out.splitlines()
    assert listed[0].split("\t") == ["id", "state", "devices", "done", "started", "reason"]
    assert listed[1].split("\t")[:4] == ["1", "cancelled", "all devices", "0/0"]
    events = operator.succeeds("events", "--kind", "rotation.cancelled").out
    assert "campaign 1" in events


def test_a_campaign_is_steered_in_json(operator: Operator) -> None:
    operator.succeeds("rotate", "start", "--claim", "batch-7")
    for act, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        (said,) = operator.succeeds("rotate", act, "1", "--json").json()
        assert (said["id"], said["state"]) == (1, state)


@pytest.mark.parametrize(
    ("options", "members", "held"),
    [
        (("--all",), 2, 1),
        (("--group", "lamps"), 2, 1),
        (("--claimed-by", "batch-7"), 2, 1),
        (("--device", "lamp-1"), 1, 0),
        (("--device", "lamp-1", "--device", "lamp-3"), 1, 1),
    ],
)
def test_a_dry_run_says_how_many_and_starts_nothing(
    operator: Operator, options: tuple[str, ...], members: int, held: int
) -> None:
    shown = operator.succeeds("rotate", "start", *options, "--dry-run", "--json")
    assert shown.json() == [{"members": members, "held": held, "left_out": 0}]
    assert "Nothing was changed" in shown.err
    assert operator.succeeds("rotate", "list", "--json").json() == []


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("start",), 2, "one of --device"),
        (("start", "--all", "--group", "lamps"), 2, "one of --device"),
        (("start", "--all", "--per-minute", "0"), 2, "per-minute"),
        (("start", "--all", "--reason", "x" * 201), 2, "--reason"),
        (("start", "--group", "ovens"), 1, "[group_unknown]"),
        (("start", "--device", "nobody"), 1, "[device_unknown]"),
        (("start", "--claimed-by", "batch-8"), 1, "[claim_certificate_unknown]"),
        (("status",), 1, "[campaign_unknown]"),
        (("pause", "9"), 1, "[campaign_unknown]"),
    ],
)
def test_what_can_t_be_done_says_so(
    operator: Operator, arguments: tuple[str, ...], status: int, told: str
) -> None:
    refused = operator("rotate", *arguments)
    assert refused.status == status
    assert told in refused.err
    assert operator.succeeds("rotate", "list", "--json").json() == []


def test_who_hasn_t_followed_can_be_listed(operator: Operator) -> None:
    operator.succeeds("rotate", "start", "--device", "lamp-1", "--device", "lamp-2")
    first = CampaignId(1)

    def order(tx: WriteTransaction) -> None:
        campaign = tx.campaign(first)
        assert campaign is not None
        waiting = Rotation(first, device_number(1).id)
        ordered = replace(waiting, state=RotationState.ORDERED, version=17, ordered_at=NOW)
        tx.save_rotation(ordered)
        tx.save_campaign(counted(campaign, waiting, ordered))

    write(operator, order)
    told, row = operator.succeeds("rotate", "status", "1", "--open", "--json").json()
    assert (told["waiting"], told["ordered"]) == (1, 1)
    assert (row["device_id"], row["order"]) == ("lamp-1", 17)
    assert "lamp-1\t17" in operator.succeeds("rotate", "status", "--open").out
    cancelled = operator.succeeds("rotate", "cancel", "1")
    assert "Taken back: 1 order." in cancelled.err


def test_devices_are_revoked_or_rotate_but_not_both(operator: Operator) -> None:
    revoke = ("claim-cert", "revoke", "batch-7")
    refused = operator(*revoke, "--revoke-devices", "--rotate-devices")
    assert refused.status == 2
    shown = operator.succeeds(*revoke, "--rotate-devices", "--dry-run")
    assert "To renew: 2 devices," in shown.err
    assert "stay members" not in shown.out
    operator.succeeds(*revoke, "--rotate-devices")
    (told,) = operator.succeeds("rotate", "list", "--json").json()
    assert (told["selected_by"], told["selected"]) == ("claim", "batch-7")
    assert told["reason"] == "claim certificate batch-7 was revoked"


def test_a_revocation_that_is_repeated_starts_one_campaign(operator: Operator) -> None:
    revoke = ("claim-cert", "revoke", "batch-7", "--rotate-devices")
    assert "No service runs on this home" in operator.succeeds(*revoke).err
    again = operator.succeeds(*revoke)
    assert "Campaign 1 is running" in again.err
    assert "None is started" in operator.succeeds(*revoke, "--dry-run").err
    write(operator, _carry_out_first)
    assert "2 have followed" in operator.succeeds(*revoke).err
    (only,) = operator.succeeds("rotate", "list", "--json").json()
    assert only["id"] == 1


def _carry_out_first(tx: WriteTransaction) -> None:
    campaign = tx.campaign(CampaignId(1))
    assert campaign is not None
    tx.save_campaign(replace(campaign, state=CampaignState.DONE, done=2, is_listed=True))


def test_after_a_campaign_that_was_cancelled_another_starts(operator: Operator) -> None:
    revoke = ("claim-cert", "revoke", "batch-7", "--rotate-devices")
    operator.succeeds(*revoke)
    operator.succeeds("rotate", "cancel", "1")
    assert operator.succeeds(*revoke).out.endswith("campaign 2\n")


def test_that_nobody_carries_it_out_is_said_while_it_is_so(operator: Operator) -> None:
    said = "No service runs on this home"
    assert said in operator.succeeds("rotate", "start", "--all").err
    assert said not in operator.succeeds("rotate", "start", "--all", "--dry-run").err
    with held(operator.home / "run" / "service.lock"):
        assert said not in operator.succeeds("rotate", "start", "--all").err


def test_a_wave_has_a_bound(operator: Operator) -> None:
    assert operator("rotate", "start", "--all", "--wave", "1000001").status == 2


@pytest.mark.parametrize("words", [("status",), ("pause",), ("resume",), ("cancel",)], ids=" ".join)
@pytest.mark.parametrize("number", ["0", "-1", "9" * 30, "seven"])
def test_what_is_no_campaigns_number_is_wrong_usage(
    operator: Operator, words: tuple[str, ...], number: str
) -> None:
    assert operator("rotate", *words, "--", number).status == 2
