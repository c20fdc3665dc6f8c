"""`muster devices suspend|revoke|retire|…` as an operator types them, without a service."""

import asyncio
import io
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.lifecycle import DeviceState
from broker.ports.registry import ReadTransaction, WriteTransaction
from tests.support.commands import Operator, command, plain_environment
from tests.support.registries import add_batch, certificate_number, device_number
from tests.support.waiting import eventually

STATES = (DeviceState.ACTIVE, DeviceState.ACTIVE, DeviceState.SUSPENDED, DeviceState.RETIRED)


class Terminal(io.StringIO):
    """A person who types this."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    """An operator whose fleet has two members, a suspended device and a retired one."""
    for name in ("MUSTER_HOME", "MUSTER_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    operator = Operator(tmp_path / "home", tmp_path, capsys)
    operator.succeeds("init", operator.home)
    asyncio.run(_write(operator, _add_fleet))
    return operator


def _add_fleet(tx: WriteTransaction) -> None:
    add_batch(tx)
    for number, state in enumerate(STATES, start=1):
        tx.save_device(device_number(number, state=state))
        tx.save_certificate(certificate_number(number))


async def _write(operator: Operator, work: Callable[[WriteTransaction], None]) -> None:
    async with SqlRegistry(f"sqlite:///{operator.home / 'registry.db'}") as registry:
        await registry.write(work)


def states(operator: Operator) -> list[str]:
    return [each["state"] for each in operator.succeeds("devices", "list", "--json").json()]


def test_an_interrupted_act_says_what_stands(operator: Operator) -> None:
    """The wait for the broker ends with Ctrl-C; what was committed doesn't."""
    arguments = ("devices", "retire", "lamp-1", "lamp-2", "--timeout", "600")
    with subprocess.Popen(
        command("--home", operator.home, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=plain_environment(),
        # Who runs the tests in the background ignores it, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        asyncio.run(_until_both_are_retired(operator))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line.split("\t")[:3] for line in out.splitlines()[1:]] == [
        ["lamp-1", "done", "active → retired"],
        ["lamp-2", "done", "active → retired"],
    ]
    assert "in the registry this retire is done for 2 of 2 devices, and that is for ever" in err
    assert "The service completes it" in err


async def _until_both_are_retired(operator: Operator) -> None:
    def read(view: ReadTransaction) -> bool:
        found = [view.device(device_number(number).id) for number in (1, 2)]
        return all(each is not None and each.state is DeviceState.RETIRED for each in found)

    async with SqlRegistry(f"sqlite:///{operator.home / 'registry.db'}") as registry:
        await eventually(lambda: registry.read(read), within=60)


def test_without_a_terminal_a_whole_group_is_retired_only_when_told_so(operator: Operator) -> None:
    retire = ("devices", "retire", "--group", "lamps", "--timeout", "0")
    refused = operator(*retire)
    assert refused.status == 1
    assert "[confirmation_missing]" in refused.err
    assert "Retire 3 devices" in refused.err
    assert "--yes" in refused.err
    assert states(operator) == [*STATES]
    operator.succeeds(*retire, "--dry-run")
    operator.succeeds(*retire, "--yes")
    assert set(states(operator)) == {"retired"}
    operator.succeeds(*retire)  # nobody is left whom it could harm


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("", 1), ("y\n", 0)])
def test_on_a_terminal_it_asks_before_a_whole_group_is_retired(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    asked = operator("devices", "retire", "--group", "lamps", "--timeout", "0")
    assert asked.status == status
    assert "They can never come back" in asked.err
    assert (set(states(operator)) == {"retired"}) is (status == 0)


def test_the_json_of_a_dry_run_isn_t_that_of_the_act(operator: Operator) -> None:
    revoke = ("devices", "revoke", "lamp-1", "--timeout", "0", "--json")
    (tried,) = operator.succeeds(*revoke, "--dry-run").json()
    assert (tried["dry_run"], tried["effect"], tried["after"]) == (
        *(True, "would_be_done", "revoked"),
    )
    (done,) = operator.succeeds(*revoke).json()
    assert (done["dry_run"], done["effect"]) == (False, "done")
    (again,) = operator.succeeds(*revoke, "--dry-run").json()
    assert (again["dry_run"], again["effect"]) == (True, "unchanged")


@pytest.mark.parametrize(
    ("act", "device", "said"),
    [
        ("reclaim", 1, "lamp-1: active. Only a device that is revoked can be reclaimed; now it"),
        ("reclaim", 1, "can be suspended, revoked or retired."),
        ("suspend", 4, "lamp-4: retired. Only a device that is active or rotating can be susp"),
        ("suspend", 4, "that state is for ever"),
    ],
)
def test_what_is_impossible_is_explained(
    operator: Operator, act: str, device: int, said: str
) -> None:
    refused = operator("devices", act, f"lamp-{device}")
    assert refused.status == 1
    assert said in " ".join(refused.err.split())


def test_a_home_that_was_found_and_not_named_is_said(operator: Operator) -> None:
    operator.home.rename(operator.folder / "muster-home")
    found = Operator(operator.folder / "muster-home", operator.folder, operator.capture)
    arguments = ("devices", "suspend", "lamp-1", "--timeout", "0")
    assert "Home: " not in found.succeeds(*arguments).err
    for line in (arguments, ("claim-cert", "revoke", "batch-7"), ("renew",), ("update", "discard")):
        assert f"Home: {found.home}." in found.unnamed(*line).err, line
    assert "Home: " not in found.unnamed("devices", "list").err
