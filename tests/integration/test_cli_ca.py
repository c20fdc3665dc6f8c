"""`muster ca`: what an operator types and hears, with keys here or elsewhere, the service down."""

import asyncio
import itertools
import re
import stat
from pathlib import Path

import pytest

from broker.adapters.ca.home import MusterHome
from broker.adapters.registry import SqlRegistry
from broker.core.ca_rollover import Phase, Rollover
from broker.core.infrastructure_rollover import ServerPhase
from broker.core.lifecycle import CertificateState, DeviceState
from broker.ports.registry import WriteTransaction
from tests.support.commands import Operator, Outcome
from tests.support.records import NOW
from tests.support.registries import add_batch, certificate_number, device_number


@pytest.fixture
def nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    """An operator without an installation yet."""
    for name in ("MUSTER_HOME", "MUSTER_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Operator(tmp_path / "home", tmp_path, capsys)


@pytest.fixture
def operator(nobody: Operator) -> Operator:
    """One whose authorities' keys are encrypted."""
    passphrase = nobody.file("passphrase", "correct horse\n")
    nobody.succeeds("init", nobody.home, "--passphrase-file", passphrase)
    return nobody


def test_a_start_with_the_root_s_key_elsewhere(operator: Operator) -> None:
    home, passphrase = MusterHome(operator.home), operator.folder / "passphrase"
    offline = operator.folder / "root.key"
    home.root.key.rename(offline)
    missing = operator("ca", "rollover", "start", "--passphrase-file", passphrase)
    assert missing.status == 1
    assert "file_missing" in missing.err
    options = ("--root-key", offline, "--passphrase-file", passphrase)
    operator.succeeds("ca", "rollover", "start", *options, "--dry-run")
    assert not home.operational_of(2).key.exists()
    for _ in range(2):
        (said,) = operator.succeeds("ca", "rollover", "start", *options, "--json").json()
        assert (said["phase"], said["old"], said["new"]) == ("introducing", 1, 2)
    assert stat.S_IMODE(home.operational_of(2).key.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in home.operational_of(2).key.read_bytes()
    assert not home.operational_of(3).certificate.exists()


@pytest.mark.parametrize("authority", ["rollover", "infrastructure"])
def test_a_root_key_that_isn_t_there_is_asked_for_by_its_option(
    operator: Operator, authority: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MusterHome(operator.home).root.key.unlink()
    monkeypatch.chdir(operator.folder)
    (operator.folder / "media").mkdir()
    start = ("ca", authority, "start", "--passphrase-file", "passphrase")
    offline = operator(*start)
    assert "[file_missing]" in offline.err
    assert "--root-key FILE" in offline.err
    misnamed = operator(*start, "--root-key", "nokey")
    assert "error: 'nokey' doesn't exist. [file_missing]" in misnamed.err
    assert "the name that --root-key gives" in misnamed.err
    folder = operator(*start, "--root-key", "media")
    assert "error: 'media' can't be read: Is a directory. [file_unreadable]" in folder.err
    assert "not its folder" in folder.err
    assert {each.status for each in (offline, misnamed, folder)} == {1}


@pytest.mark.parametrize("options", [(), ("--passphrase-file", "wrong")])
def test_a_passphrase_that_the_service_couldn_t_use_starts_nothing(
    operator: Operator, options: tuple[str, ...]
) -> None:
    operator.file("wrong", "staple\n")
    refused = operator("ca", "rollover", "start", *options)
    assert refused.status == 1
    assert "passphrase_" in refused.err
    assert not MusterHome(operator.home).operational_of(2).key.exists()
    (said,) = operator.succeeds("ca", "rollover", "status", "--json").json()
    assert said["phase"] is None


def test_the_root_may_have_a_passphrase_of_its_own(operator: Operator, nobody: Operator) -> None:
    other = Operator(operator.folder / "other", operator.folder, operator.capture)
    own = other.file("own", "battery staple\n")
    other.succeeds("init", other.home, "--passphrase-file", own)
    home = MusterHome(operator.home)
    home.root.key.unlink()
    home.root.key.write_bytes(MusterHome(other.home).root.key.read_bytes())
    home.root.key.chmod(0o600)
    passphrase = operator.folder / "passphrase"
    options = ("--passphrase-file", passphrase, "--root-passphrase-file", own)
    refused = operator("ca", "rollover", "start", *options)
    assert refused.status == 1
    assert "key_mismatch" in refused.err, "another installation's root signs nothing here"


def test_each_act_says_what_comes_next(operator: Operator) -> None:
    passphrase = operator.folder / "passphrase"
    assert "never was" in operator.succeeds("ca", "rollover", "status").err
    operator.succeeds("ca", "rollover", "start", "--passphrase-file", passphrase)
    assert "muster doctor" in operator.succeeds("ca", "rollover", "status", "--left").err
    for act in ("finish", "pause", "resume"):
        refused = operator("ca", "rollover", act)
        assert refused.status == 1
        assert "rollover_state" in refused.err
    assert "Nothing was changed" in operator.succeeds("ca", "rollover", "cancel", "--dry-run").err
    (said,) = operator.succeeds("ca", "rollover", "cancel", "--json").json()
    assert (said["phase"], said["cancelled"]) == ("leaving", True)


def stand_at(operator: Operator, phase: Phase, *, is_return: bool = False) -> None:
    """As if the rollover were there, with a device that only the old authority lets in."""

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        tx.save_device(device_number(1, state=DeviceState.ACTIVE))
        tx.save_certificate(certificate_number(1, state=CertificateState.ACTIVE, confirmed_at=NOW))
        tx.save_ca_rollover(Rollover(1, 2, phase, NOW, is_return))

    async def run() -> None:
        async with SqlRegistry(f"sqlite:///{operator.home / 'registry.db'}") as registry:
            await registry.write(work)

    asyncio.run(run())


def verdict(outcome: Outcome) -> tuple[int, list[str]]:
    return outcome.status, re.findall(r"\[\w+\]", outcome.err)


@pytest.mark.parametrize(
    "act", [("finish",), ("finish", "--abandon", "1"), ("cancel",)], ids=" ".join
)
def test_a_dry_run_is_decided_as_the_act_is_and_changes_nothing(
    operator: Operator, act: tuple[str, ...]
) -> None:
    verdicts = set()
    for phase, is_return in itertools.product(Phase, (False, True)):
        stand_at(operator, phase, is_return=is_return)
        tried = operator("ca", "rollover", *act, "--dry-run")
        (said,) = operator.succeeds("ca", "rollover", "status", "--json").json()
        assert (said["phase"], said["cancelled"]) == (phase, is_return)
        done = operator("ca", "rollover", *act)
        assert verdict(tried) == verdict(done), (phase, is_return, tried.err, done.err)
        assert ("Nothing was changed" in tried.err) is (tried.status == 0)
        verdicts.add(tried.status)
    assert verdicts == {0, 1}


def test_who_is_left_and_which_key_may_go_is_named(operator: Operator) -> None:
    stand_at(operator, Phase.MOVING)
    refused = operator("ca", "rollover", "finish")
    assert "[devices_left]" in refused.err
    assert "'muster ca rollover status --left'" in refused.err
    assert "lamp-1" in operator.succeeds("ca", "rollover", "status", "--left").out
    (said,) = operator.succeeds(
        "ca", "rollover", "finish", "--abandon", "1", "--dry-run", "--json"
    ).json()
    assert (said["dry_run"], said["phase"]) == (True, "moving")
    stand_at(operator, Phase.DONE)
    key = MusterHome(operator.home.resolve()).operational_of(1).key
    assert str(key) in operator.succeeds("ca", "rollover", "status").err


def test_who_watches_without_a_terminal_reads_lines(operator: Operator) -> None:
    stand_at(operator, Phase.DONE)
    watched = operator.succeeds("ca", "rollover", "status", "--watch")
    assert "done: 0 of 1 devices have moved" in watched.err


def test_the_infrastructure_s_steps_are_tried_as_they_are_done(operator: Operator) -> None:
    """Each refuses as the step itself would, and changes nothing where it would be done."""
    options = ("--passphrase-file", operator.folder / "passphrase")
    ca = ("ca", "infrastructure")
    for step in ("fleet", "claim", "finish", "cancel"):
        tried, done = operator(*ca, step, *options, "--dry-run"), operator(*ca, step, *options)
        assert verdict(tried) == verdict(done) == (1, ["[rollover_state]"])
    (said,) = operator.succeeds(*ca, "start", *options, "--dry-run", "--json").json()
    assert (said["dry_run"], said["phase"], said["new"]) == (True, "introduced", 2)
    assert "never was" in operator.succeeds(*ca, "status").err
    assert not MusterHome(operator.home).infrastructure_of(2).certificate.exists()
    operator.succeeds(*ca, "start", *options)
    tried = operator(*ca, "fleet", *options, "--dry-run")
    assert verdict(tried) == verdict(operator(*ca, "fleet", *options))
    tried = operator.succeeds(*ca, "cancel", *options, "--dry-run")
    assert "Nothing was changed" in tried.err
    assert ServerPhase.CANCELLED in tried.out
    assert "introduced" in operator.succeeds(*ca, "status").out
    assert "passphrase_missing" in operator(*ca, "cancel", "--dry-run").err
    operator.succeeds(*ca, "cancel", *options)
    key = MusterHome(operator.home.resolve()).infrastructure_of(2).key
    assert str(key) in operator.succeeds(*ca, "status").err


def test_the_infrastructure_s_steps_have_their_order(operator: Operator) -> None:
    options = ("--passphrase-file", operator.folder / "passphrase")
    assert "never was" in operator.succeeds("ca", "infrastructure", "status").err
    assert operator("ca", "infrastructure", "finish", *options).status == 1
    for _ in range(2):
        (said,) = operator.succeeds("ca", "infrastructure", "start", *options, "--json").json()
        assert (said["phase"], said["bundle_version"]) == ("introduced", 2)
    early = operator("ca", "infrastructure", "fleet", *options)
    assert "hasn't taken up the trust bundle" in early.err
    shown = operator.succeeds("ca", "infrastructure", "status")
    assert "muster ca infrastructure fleet" in shown.err


def test_the_infrastructure_s_rollover_is_cancelled_and_another_started(operator: Operator) -> None:
    options = ("--passphrase-file", operator.folder / "passphrase")
    assert operator("ca", "infrastructure", "cancel", *options).status == 1
    operator.succeeds("ca", "infrastructure", "start", *options)
    for _ in range(2):
        (said,) = operator.succeeds("ca", "infrastructure", "cancel", *options, "--json").json()
        assert (said["phase"], said["bundle_version"]) == ("cancelled", 3)
    servers = operator.home / "trust" / "servers.pem"
    assert servers.read_text() == (operator.home / "ca" / "infrastructure.crt").read_text()
    (said,) = operator.succeeds("ca", "infrastructure", "start", *options, "--json").json()
    assert (said["phase"], said["new"], said["bundle_version"]) == ("introduced", 3, 4)


def test_a_claim_bundle_names_both_anchors_and_the_root(operator: Operator) -> None:
    options = ("--passphrase-file", operator.folder / "passphrase")
    operator.succeeds("ca", "infrastructure", "start", *options)
    bundle = operator.folder / "batch.bundle"
    operator.succeeds(
        *("claim-cert", "create", "batch-1", "--max-claims", "5", "--expires", "30d"),
        *("--output", bundle, *options),
    )
    text = bundle.read_text()
    assert '"version":2' in text
    assert text.count("BEGIN CERTIFICATE") == 4, "its own, the root, and two anchors"
