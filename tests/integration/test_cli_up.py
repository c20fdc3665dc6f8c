"""`muster up`: it serves, it stops when told, and says why it can't."""

import asyncio
import signal
import subprocess
from pathlib import Path

import pytest

from broker.protocol.bundle import ClaimBundle, read_bundle
from tests.support.certificates import Client
from tests.support.commands import Operator, command, plain_environment, service
from tests.support.knocking import Answer, knock
from tests.support.ports import free_port
from tests.support.waiting import eventually


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    """An operator whose brokers have free ports."""
    installed = Operator(tmp_path / "home", tmp_path, capsys)
    ports = ("--claim-port", str(free_port()), "--fleet-port", str(free_port()))
    installed.succeeds("init", installed.home, *ports)
    return installed


def failed_start(operator: Operator) -> "subprocess.CompletedProcess[str]":
    """`muster up`, in a process of its own since it sets up the process's logging."""
    return subprocess.run(
        command("--home", operator.home, "up"),
        capture_output=True,
        text=True,
        env=plain_environment(),
        timeout=60,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_five_seconds_of_a_signal(
    operator: Operator, number: signal.Signals
) -> None:
    with service(operator.home) as process:
        process.send_signal(number)
        # By its own clock: after five seconds it ends itself, whatever hangs, with another status.
        assert process.wait(60) == 0


def test_doctor_finds_the_brokers_of_a_running_service(operator: Operator) -> None:
    alone = operator("doctor", "--json")
    assert alone.status == 1
    levels = {each["subject"]: each["level"] for each in alone.json() if each["check"] == "broker"}
    assert levels == {"claim broker": "error", "fleet broker": "error"}
    with service(operator.home):
        served = operator("doctor", "--json")
    assert served.status == 0, served.out
    levels = {each["subject"]: each["level"] for each in served.json() if each["check"] == "broker"}
    assert levels == {"claim broker": "ok", "fleet broker": "ok"}


def test_a_second_one_on_the_same_ports_says_so_and_ends(operator: Operator) -> None:
    with service(operator.home):
        second = failed_start(operator)
    assert second.returncode == 1
    assert "error: " in second.stderr
    assert "Traceback" not in second.stderr


def test_without_the_passphrase_it_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(tmp_path / "home", tmp_path, capsys)
    secret = operator.file("secret", "correct horse")
    operator.succeeds("init", operator.home, "--passphrase-file", secret)
    failed = failed_start(operator)
    assert failed.returncode == 1
    assert "[passphrase_missing]" in failed.stderr
    remedy = failed.stderr.split("try: ", 1)[1]
    assert "--passphrase-file" in remedy
    assert "MUSTER_PASSPHRASE_FILE" in remedy


def test_a_revoked_claim_certificate_is_refused_by_the_running_service(
    operator: Operator,
) -> None:
    bundle = operator.folder / "b.bundle"
    create = ("claim-cert", "create", "batch-1", "--max-claims", "5", "--output", bundle)
    operator.succeeds(*create)
    client = _client(operator, read_bundle(bundle.read_bytes()))
    port = read_bundle(bundle.read_bytes()).claim.port
    with service(operator.home):
        assert asyncio.run(knock(port, client, "device-1")) is Answer.ADMITTED
        operator.succeeds("claim-cert", "revoke", "batch-1")
        asyncio.run(eventually(lambda: _is_refused(port, client)))


async def _is_refused(port: int, client: Client) -> bool:
    return await knock(port, client, "device-1") is Answer.REFUSED


def _client(operator: Operator, bundle: ClaimBundle) -> Client:
    certificate, key = operator.folder / "claim.crt", operator.folder / "claim.key"
    certificate.write_text(bundle.certificate)
    key.touch(0o600)
    key.write_text(bundle.private_key)
    return Client(bundle.claim_name, certificate, key, operator.home / "trust" / "servers.pem")
