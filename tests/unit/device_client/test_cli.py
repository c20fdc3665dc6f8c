"""The command line: what is remembered, what is refused, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.protocol.bundle import write_bundle
from broker.protocol.messages import Rejected
from device_client import cli, keystore, status
from device_client.agent import Agent
from device_client.enrollment import Enrollment
from device_client.errors import RequestRejected, TimedOut, Unreachable
from device_client.identity import Identity
from device_client.keys import KeyType
from device_client.status import Membership
from device_client.status_note import Activity, StatusFile
from tests.support import device_claims
from tests.support.device_claims import NOW, Service


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def bundle(tmp_path: Path, service: Service) -> str:
    path = tmp_path / "bundle.json"
    path.write_bytes(write_bundle(service.enrollment().bundle))
    return str(path)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, service: Service) -> None:
    """An agent that needs no network."""

    async def claim(
        _self: Agent, _timeout_s: float | None = None, *, wait: bool = True
    ) -> Identity:
        assert wait
        return device_claims.enroll(keystore.looked_at(tmp_path / "state"), service)

    monkeypatch.setattr(Agent, "claim", claim)


def run(tmp_path: Path, command: str, *arguments: str) -> int:
    return cli.main([command, "--state", str(tmp_path / "state"), *arguments])


def remembered(tmp_path: Path) -> Enrollment | None:
    return keystore.looked_at(tmp_path / "state").enrollment()


@pytest.mark.usefixtures("agent")
def test_all_that_is_given_is_remembered(tmp_path: Path, bundle: str, service: Service) -> None:
    arguments = ["--serial", "A1", "--parameter", "site=oslo", "--key-type", "p384"]
    assert run(tmp_path, "claim", "--bundle", bundle, *arguments) == 0
    expected = Enrollment(
        bundle=service.enrollment().bundle,
        serial="A1",
        parameters={"site": "oslo"},
        key_type=KeyType.P384,
    )
    assert remembered(tmp_path) == expected
    assert run(tmp_path, "claim") == 0
    assert remembered(tmp_path) == expected


@pytest.mark.usefixtures("agent")
def test_the_serial_number_is_the_hardware_s(
    tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "hardware_serial", lambda: "from-hardware")
    assert run(tmp_path, "claim", "--bundle", bundle) == 0
    claim = remembered(tmp_path)
    assert claim is not None
    assert claim.serial == "from-hardware"


def test_no_serial_number_anywhere(
    tmp_path: Path,
    bundle: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "hardware_serial", lambda: None)
    assert run(tmp_path, "claim", "--bundle", bundle) == cli.FAILED
    assert "--serial" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["claim", "run"])
def test_a_device_without_a_bundle(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, command) == cli.FAILED
    assert "bundle_invalid" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"{" * 70_000])
def test_a_bundle_that_is_none(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(content)
    assert run(tmp_path, "claim", "--bundle", str(path), "--serial", "A1") == cli.FAILED
    assert "muster claim-cert create" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--serial", "a b"], ["--serial", "A1", "--parameter", "Site=oslo"]]
)
def test_what_the_protocol_does_not_allow(
    tmp_path: Path, bundle: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "claim", "--bundle", bundle, *arguments) == cli.FAILED
    assert "argument_invalid" in capsys.readouterr().err
    assert remembered(tmp_path) is None


@pytest.mark.parametrize(
    "arguments", [["--parameter", "site"], ["--key-type", "dsa"], ["--timeout", "soon"]]
)
def test_usage(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, "claim", *arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("error", "exit_status"),
    [
        (Unreachable("No network.", "Plug it in."), cli.FAILED),
        (TimedOut("Too late.", "Plug it in."), cli.TIMED_OUT),
        (
            RequestRejected(
                Rejected(request_id="1", code="claim_revoked", message="No.", remedy="Plug it in.")
            ),
            cli.REFUSED,
        ),
    ],
)
def test_every_failure_has_an_exit_status_and_a_remedy(
    tmp_path: Path,
    bundle: str,
    error: Exception,
    exit_status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def claim(*_: object, **__: object) -> Identity:
        raise error

    monkeypatch.setattr(Agent, "claim", claim)
    assert run(tmp_path, "claim", "--bundle", bundle, "--serial", "A1") == exit_status
    said = capsys.readouterr()
    assert str(error) in said.err
    assert "Plug it in." in said.err
    assert said.out == ""


def test_status_of_a_device_that_knows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir()
    assert run(tmp_path, "status", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["membership"] == Membership.NO_BUNDLE
    assert report["device_id"] is None
    assert not any((tmp_path / "state").iterdir())


def test_status_of_a_directory_that_isn_t_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "status") == cli.FAILED
    said = capsys.readouterr()
    assert "state_missing" in said.err
    assert str(tmp_path / "state") in said.err
    assert said.out == ""
    assert not (tmp_path / "state").exists()


def test_status_into_a_pipe_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "device_client", "status", "--state", str(tmp_path)]
    with os.fdopen(writer, "wb") as pipe:
        ended = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stderr) == (cli.FAILED, b"")


def test_status_of_a_member(
    tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = device_claims.claim(tmp_path / "state", service)
    assert run(tmp_path, "status", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["membership"] == Membership.CONFIRMED
    assert report["certificate_serial"] == identity.certificate_serial
    assert report["fleet"] == {"host": "localhost", "port": 8883}
    assert run(tmp_path, "status") == 0
    assert "lamp-A1" in capsys.readouterr().out


def test_the_last_error_is_told_until_it_is_over(tmp_path: Path) -> None:
    with keystore.opened(tmp_path):
        file = StatusFile(tmp_path)
        file.note(Activity.CONNECTING)
        file.note_error(Unreachable("No network.", "Plug it in."), NOW)
        report = status.report(tmp_path)
        assert report.activity is Activity.CONNECTING
        assert report.last_error is not None
        assert report.last_error.code == "unreachable"
        assert report.last_error.at == NOW
        file.note(Activity.ONLINE)
        assert status.report(tmp_path).last_error is None


def test_the_same_error_is_written_once(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    file.note_error(Unreachable("No network."), NOW)
    written = (tmp_path / "status.json").stat().st_ino
    file.note_error(Unreachable("No network."), NOW)
    assert (tmp_path / "status.json").stat().st_ino == written
