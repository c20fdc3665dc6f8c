"""`muster ca`: what an operator types and hears, with keys here or elsewhere, the service down."""

import stat
from pathlib import Path

import pytest

from broker.adapters.ca.home import MusterHome
from tests.support.commands import Operator


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
    assert "Nothing was changed" in operator.succeeds("ca", "rollover", "finish", "--dry-run").err
    (said,) = operator.succeeds("ca", "rollover", "cancel", "--json").json()
    assert (said["phase"], said["cancelled"]) == ("leaving", True)


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
