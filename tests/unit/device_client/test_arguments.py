"""The command line of `muster-device`: what it can say, and how it's refused."""

from pathlib import Path

import pytest

from device_client.arguments import MISUSED, Command, Options, parse
from device_client.keys import KeyType


def test_a_command_alone() -> None:
    assert parse(["run"]) == Options(command=Command.RUN)


def test_all_that_a_claim_can_be_given() -> None:
    said = (
        "claim -v --state s --bundle=b --serial A1 --parameter site=oslo --parameter line=a=b "
        "--key-type ed25519 --model meter --hw-rev A --update-config c --update-root r "
        "--timeout 1.5 --no-wait"
    )
    assert parse(said.split()) == Options(
        command=Command.CLAIM,
        state=Path("s"),
        verbose=True,
        bundle=Path("b"),
        serial="A1",
        parameter=(("site", "oslo"), ("line", "a=b")),
        key_type=KeyType.ED25519,
        model="meter",
        hw_rev="A",
        update_config=Path("c"),
        update_root=Path("r"),
        timeout=1.5,
        no_wait=True,
    )


def test_options_may_come_first_and_the_last_word_counts() -> None:
    options = parse(["--state", "one", "status", "--state=two", "--json"])
    assert options == Options(command=Command.STATUS, state=Path("two"), json=True)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "the command is one of claim, renew, run, status"),
        ("fly", "not 'fly'"),
        ("run away", "not 'run away'"),
        ("run --nonsense", "--nonsense"),
        ("run -x", "-x"),
        ("run --state", "--state requires argument"),
        ("claim --no-wait=1", "--no-wait must not have an argument"),
        ("run --timeout 1", "'run' has no option --timeout"),
        ("status --serial A1", "'status' has no option --serial"),
        ("claim --timeout soon", "--timeout soon"),
        ("claim --key-type dsa", "--key-type dsa"),
        ("claim --parameter site", "--parameter site: it isn't NAME=VALUE"),
    ],
)
def test_what_it_cannot_say(said: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(said.split())
    assert caught.value.code == MISUSED
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("said", ["--help", "-h", "claim --help", "claim --timeout soon -h"])
def test_help(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(said.split())
    assert caught.value.code == 0
    helped = capsys.readouterr().out
    assert all(f"\n  {command}" in helped for command in Command)
    for name in Options.__dataclass_fields__:
        assert name == "command" or f"--{name.replace('_', '-')}" in helped
