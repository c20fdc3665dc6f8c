"""`muster doctor`: each fault is found, and named with what to do."""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.audit_files import AuditFolder, FileAuditKey
from broker.adapters.run_lock import held, note_registry
from broker.core.findings import Finding
from broker.operating.examination import examine
from broker.operating.installation import open_installation
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.commands import Operator
from tests.support.stack import Plan, Stack, prepared_stack

GROUP = """
[groups.lamps]
claim_certificates = ["batch-1"]
device_name = "lamp-{serial}"
quota = 5
"""


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    """An operator with a new installation, whose brokers don't run."""
    installed = Operator(tmp_path / "home", tmp_path, capsys)
    installed.succeeds("init", installed.home, "--claim-port", "0", "--fleet-port", "0")
    return installed


def found(operator: Operator, level: str) -> list[dict[str, Any]]:
    return [each for each in operator("doctor", "--json").json() if each["level"] == level]


def test_a_new_installation_has_no_errors_but_advice(operator: Operator) -> None:
    outcome = operator.succeeds("doctor", "--json")
    assert {tuple(each) for each in outcome.json()} == {
        ("level", "check", "subject", "message", "remedy")
    }
    warnings = [each["check"] for each in outcome.json() if each["level"] == "warning"]
    assert sorted(warnings) == ["broker", "broker", "group", "passphrase", "root_key"]
    assert all(each["remedy"] for each in found(operator, "warning"))


def test_what_is_fine_is_shown_when_asked_for(operator: Operator) -> None:
    assert "\nok\t" not in operator.succeeds("doctor").out
    assert "\nok\t" in operator.succeeds("doctor", "--all").out


@pytest.mark.parametrize(
    ("path", "mode", "subject"),
    [
        ("ca/claim.key", 0o640, "ca/claim.key"),
        ("ca", 0o755, "ca"),
        ("muster.toml", 0o644, "muster.toml"),
        ("registry.db", 0o644, "registry.db"),
        ("run", 0o777, "run"),
        ("trust", 0o775, "trust"),
        ("crl", 0o777, "crl"),
        ("", 0o777, "home"),
    ],
)
def test_what_others_can_get_at_is_an_error(
    operator: Operator, path: str, mode: int, subject: str
) -> None:
    (operator.home / path).chmod(mode)
    (error,) = found(operator, "error")
    assert error["subject"] == subject
    assert "chmod" in error["remedy"]
    assert operator("doctor").status == 1


def test_a_key_that_is_not_its_certificates_is_an_error(operator: Operator) -> None:
    tls = operator.home / "tls"
    (tls / "claim-broker.key").write_bytes((tls / "fleet-broker.key").read_bytes())
    (error,) = found(operator, "error")
    assert error["check"] == "key"


def test_a_missing_registry_is_an_error(operator: Operator) -> None:
    (operator.home / "registry.db").unlink()
    (error,) = found(operator, "error")
    assert error["check"] == "registry"
    assert not (operator.home / "registry.db").exists()


def test_an_offline_root_key_is_as_it_should_be(operator: Operator) -> None:
    (operator.home / "ca" / "root.key").unlink()
    assert "root_key" not in [each["check"] for each in found(operator, "warning")]
    assert found(operator, "error") == []


def test_a_rollover_that_waits_for_the_service_says_so(operator: Operator) -> None:
    started = operator.succeeds("ca", "rollover", "start")
    assert "No service runs" in started.err
    errors = found(operator, "error")
    assert {each["subject"] for each in errors} == {"trust/fleet-clients.pem", "crl/fleet.pem"}
    assert all(each["remedy"].startswith("start the service") for each in errors)


SECRET = b"correct horse"


def encrypt(path: Path) -> None:
    """As doctor says."""
    new = path.with_suffix(".new")
    line: list[str | Path] = [
        "openssl",
        "pkcs8",
        "-topk8",
        "-scrypt",
        "-in",
        path,
        "-out",
        new,
        "-passout",
        "stdin",
    ]
    subprocess.run(line, input=SECRET, check=True, capture_output=True, timeout=60)
    new.chmod(0o600)
    new.replace(path)


def sealing(operator: Operator) -> tuple[AuditFolder, Path]:
    """An installation whose log has been sealed, and an operator's passphrase file."""
    folder = AuditFolder(operator.home)
    FileAuditKey.opened(folder, None)
    return folder, operator.file("passphrase", SECRET.decode())


def test_what_doctor_says_of_keys_in_the_clear_covers_all_that_a_passphrase_opens(
    operator: Operator,
) -> None:
    folder, passphrase = sealing(operator)
    (operator.home / "ca" / "root.key").unlink()
    (warning,) = [each for each in found(operator, "warning") if each["check"] == "passphrase"]
    plain = [*sorted((operator.home / "ca").glob("*.key")), folder.key]
    assert all(str(key.relative_to(operator.home)) in warning["message"] for key in plain)
    for key in plain:
        encrypt(key)
    options: list[list[str | Path]] = [[], ["--passphrase-file", passphrase]]
    for given in options:
        findings = operator("doctor", "--json", "--all", *given).json()
        assert not [each for each in findings if each["check"] == "passphrase"]
        assert not [each for each in findings if each["level"] == "error"]
        assert [each["level"] for each in findings if each["check"] == "audit_log"] == ["ok"]


def test_the_log_is_sealed_by_a_key_in_the_clear_when_the_others_are_encrypted(
    operator: Operator,
) -> None:
    """As the updates' online keys sign: a passphrase that came later stops nothing."""
    folder, passphrase = sealing(operator)
    for key in (operator.home / "ca").glob("*.key"):
        encrypt(key)
    FileAuditKey.opened(folder, SECRET)
    findings = operator("doctor", "--json", "--all", "--passphrase-file", passphrase).json()
    assert [each["level"] for each in findings if each["check"] == "audit_log"] == ["ok"]
    (warning,) = [each for each in findings if each["check"] == "passphrase"]
    assert "audit/audit.key" in warning["message"]


@pytest.mark.parametrize("fault", ["encrypted", "exposed", "missing", "damaged"])
def test_a_log_that_can_not_be_sealed_is_an_error_at_once_which_says_why(
    operator: Operator, fault: str
) -> None:
    key = sealing(operator)[0].key
    match fault:
        case "encrypted":
            encrypt(key)
        case "exposed":
            key.chmod(0o640)
        case "missing":
            key.unlink()
        case _:
            key.write_bytes(b"-----BEGIN")
    (error,) = found(operator, "error")
    assert (error["check"], error["subject"]) == ("audit_log", "audit log")
    assert error["message"].startswith("Nothing is sealed")
    assert "audit.key" in error["message"]


def test_open_groups_are_called_out(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("MUSTER_CLAIM__PORT", "8884")  # named in a bundle, and never opened
        _make_claim_certificate(operator)
    text = GROUP + 'serials = "any"\nreprovision = "replace"\n'
    operator.succeeds("group", "apply", operator.file("g.toml", text))
    messages = [each["message"] for each in found(operator, "warning") if each["check"] == "group"]
    assert any("OPEN TO ANY SERIAL NUMBER" in message for message in messages)
    assert any("replace" in message for message in messages)


def _make_claim_certificate(operator: Operator) -> None:
    operator.succeeds(
        "claim-cert", "create", "batch-1", "--max-claims", "5", "--output", operator.folder / "b"
    )


def test_a_revoked_claim_certificate_that_its_crl_lacks_is_an_error_until_it_is_signed(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_CLAIM__PORT", "8884")  # named in a bundle, and never opened
    _make_claim_certificate(operator)
    key, elsewhere = operator.home / "ca" / "claim.key", operator.folder / "claim.key"
    key.rename(elsewhere)
    assert operator("claim-cert", "revoke", "batch-1").status == 1
    (error,) = [each for each in found(operator, "error") if each["check"] == "claim_crl"]
    assert error["subject"] == "crl/claim.pem"
    assert "batch-1" in error["message"]
    assert "'muster claim-cert revoke batch-1'" in error["remedy"]
    elsewhere.rename(key)
    operator.succeeds("claim-cert", "revoke", "batch-1")
    assert not [each for each in found(operator, "error") if each["check"] == "claim_crl"]


def test_missing_settings_are_a_warning(operator: Operator) -> None:
    (operator.home / "muster.toml").unlink()
    (warning,) = [each for each in found(operator, "warning") if each["check"] == "settings"]
    assert "the defaults are in force" in warning["message"]


def test_settings_that_are_no_file_are_an_error(operator: Operator) -> None:
    (operator.home / "muster.toml").unlink()
    (operator.home / "muster.toml").mkdir(0o700)
    (error,) = [each for each in found(operator, "error") if each["check"] == "settings"]
    assert error["subject"] == "muster.toml"


@pytest.fixture
async def mosquittos(tmp_path: Path) -> AsyncIterator[Stack]:
    """Both zones' Mosquittos, without the service."""
    async with prepared_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as stack:
        yield stack


async def steering(stack: Stack) -> dict[str, Finding]:
    """What doctor finds of each zone's broker besides MQTT."""
    findings = await examine(open_installation(stack.installation.home.path, None))
    return {each.subject: each for each in findings if each.check == "broker_control"}


def levels(findings: dict[str, Finding]) -> tuple[str, str]:
    return findings["claim broker"].level, findings["fleet broker"].level


async def meeting(stack: Stack, check: str) -> list[tuple[str, str]]:
    """What doctor finds where brokers listen."""
    findings = await examine(open_installation(stack.installation.home.path, None))
    return [(each.level, each.message) for each in findings if each.check == check]


async def test_exchanged_ports_are_noticed(
    mosquittos: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = {"PORT": "broker_for_devices", "SERVICE_PORT": "broker"}
    for check in checks.values():
        assert [level for level, _ in await meeting(mosquittos, check)] == ["ok", "ok"]
    for setting, check in checks.items():
        ports = mosquittos.ports if setting == "PORT" else mosquittos.service_ports
        with monkeypatch.context() as environment:
            environment.setenv(f"MUSTER_CLAIM__{setting}", str(ports[Zone.FLEET]))
            environment.setenv(f"MUSTER_FLEET__{setting}", str(ports[Zone.CLAIM]))
            (level, message), other = await meeting(mosquittos, check)
        assert (level, other[0]) == ("error", "error")
        assert "muster-fleet-broker instead of muster-claim-broker" in message


async def test_the_devices_listener_is_not_the_service_s(
    mosquittos: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = mosquittos.ports[Zone.FLEET]
    monkeypatch.setenv("MUSTER_FLEET__SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("MUSTER_FLEET__SERVICE_PORT", str(port))
    levels = [level for level, _ in await meeting(mosquittos, "broker")]
    assert levels == ["ok", "error"]


async def test_a_mosquitto_without_a_service_is_called_out(mosquittos: Stack) -> None:
    installation = open_installation(mosquittos.installation.home.path, None)

    async def service() -> list[str]:
        return [each.level for each in await examine(installation) if each.check == "service"]

    assert await service() == ["warning"]
    with held(installation.home.run / "service.lock"):
        assert await service() == []


async def test_a_mosquitto_that_does_not_run_can_not_be_steered(mosquittos: Stack) -> None:
    assert levels(await steering(mosquittos)) == ("ok", "ok")
    await mosquittos.brokers[Zone.FLEET].kill()
    findings = await steering(mosquittos)
    assert levels(findings) == ("ok", "error")
    assert "admin.sock" in findings["fleet broker"].message
    assert findings["fleet broker"].remedy


@pytest.mark.parametrize("content", ["", "0", "-1", "4194305", "9" * 30])  # 2 ** 22 is the most
async def test_a_pid_file_names_a_process_that_lives(mosquittos: Stack, content: str) -> None:
    pid_file = mosquittos.brokers[Zone.CLAIM].endpoint.pid_file
    pid_file.write_text(content)
    findings = await steering(mosquittos)
    assert levels(findings) == ("error", "ok")
    assert str(pid_file) in findings["claim broker"].message


async def test_a_pid_file_of_the_other_broker_is_an_error(mosquittos: Stack) -> None:
    claim, fleet = (mosquittos.brokers[zone].endpoint.pid_file for zone in (Zone.CLAIM, Zone.FLEET))
    claim.write_text(fleet.read_text())
    assert levels(await steering(mosquittos)) == ("error", "ok")


async def test_exchanged_sockets_are_noticed(
    mosquittos: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is in order, but the service would have the other zone's broker read a CRL."""
    for zone, other in ((Zone.CLAIM, Zone.FLEET), (Zone.FLEET, Zone.CLAIM)):
        endpoint = mosquittos.brokers[other].endpoint
        monkeypatch.setenv(f"MUSTER_{zone.upper()}__PID_FILE", str(endpoint.pid_file))
        monkeypatch.setenv(f"MUSTER_{zone.upper()}__ADMIN_SOCKET", str(endpoint.admin_socket))
    findings = await steering(mosquittos)
    assert levels(findings) == ("error", "error")
    assert "another broker's" in findings["fleet broker"].message


async def test_a_reload_socket_is_looked_at_without_a_reload(
    mosquittos: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mosquittos.brokers[Zone.CLAIM].endpoint.admin_socket.with_name("reload.sock")
    monkeypatch.setenv("MUSTER_CLAIM__RELOAD_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.bind(str(path))
        supervisor.listen()
        supervisor.setblocking(False)
        assert levels(await steering(mosquittos)) == ("ok", "ok")
        with pytest.raises(BlockingIOError):
            supervisor.accept()
    findings = await steering(mosquittos)
    assert levels(findings) == ("error", "ok")
    assert str(path) in findings["claim broker"].message


def test_another_registry_than_the_service_s_is_an_error(operator: Operator) -> None:
    lock, registry = operator.home / "run" / "service.lock", operator.home / "registry.db"
    with held(lock):
        note_registry(lock, registry.stat().st_ino)
        assert found(operator, "error") == []
        copy = registry.with_suffix(".copy")
        shutil.copy(registry, copy)
        copy.replace(registry)
        (error,) = found(operator, "error")
    assert error["check"] == "registry_replaced"
    assert found(operator, "error") == [], "no service runs on it any more"
