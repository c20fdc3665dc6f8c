"""An operator's first day, command by command, and what they hear when something is wrong."""

import asyncio
import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.adapters.brokers.embedded.errors import BrokerError, BrokerErrorCode
from broker.adapters.brokers.errors import BrokerControlCode, BrokerControlError
from broker.core.records import Event, EventKind
from broker.entry.cli.failures import report
from broker.entry.cli.main import common_first
from broker.operating import installation
from broker.protocol.bundle import read_bundle
from broker.protocol.codes import EXPLANATIONS, Code
from tests.support.commands import Operator

GROUP = """
[groups.lamps]
claim_certificates = ["batch-1"]
device_name = "lamp-{serial}"
quota = 5
"""


@pytest.fixture
def nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    """An operator without an installation yet."""
    for name in ("MUSTER_HOME", "MUSTER_PASSPHRASE_FILE", "MUSTER_CLAIM__PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Operator(tmp_path / "home", tmp_path, capsys)


@pytest.fixture
def operator(nobody: Operator) -> Operator:
    """An operator with a new installation."""
    nobody.succeeds("init", nobody.home)
    return nobody


@pytest.fixture
def equipped(operator: Operator) -> Operator:
    """An operator with a claim certificate and a group."""
    operator.succeeds("claim-cert", "create", "batch-1", "--max-claims", "5")
    operator.succeeds("group", "apply", operator.file("groups.toml", GROUP))
    return operator


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_an_installation_and_says_what_is_next(nobody: Operator) -> None:
    made = nobody.succeeds("init", nobody.home, "--host", "mqtt.example.com")
    assert made.out.strip() == str(nobody.home)
    for command in ("claim-cert create", "group apply", "enroll import", "muster up"):
        assert command in made.err
    settings = nobody.home / "muster.toml"
    assert mode(settings) == 0o600
    assert mode(nobody.home / "registry.db") == 0o600
    assert 'host = "mqtt.example.com"' in settings.read_text()
    assert 'listen = "0.0.0.0"' in settings.read_text()


def test_init_never_touches_what_is_there(operator: Operator) -> None:
    before = (operator.home / "ca" / "root.key").read_bytes()
    refused = operator("init", operator.home)
    assert refused.status == 1
    assert "[home_exists]" in refused.err
    assert (operator.home / "ca" / "root.key").read_bytes() == before


def test_an_interrupted_init_is_completed_with_the_same_keys(operator: Operator) -> None:
    key = (operator.home / "ca" / "claim.key").read_bytes()
    (operator.home / "muster.toml").unlink()
    (operator.home / "registry.db").unlink()
    operator.succeeds("init", operator.home)
    assert (operator.home / "ca" / "claim.key").read_bytes() == key
    assert operator.succeeds("group", "list", "--json").json() == []


def test_init_for_mosquitto_expects_its_stock_configuration(nobody: Operator) -> None:
    nobody.succeeds("init", nobody.home, "--fleet-broker", "mosquitto")
    text = (nobody.home / "muster.toml").read_text()
    assert 'pid_file = "/run/muster/fleet/mosquitto.pid"' in text
    assert "/run/muster/claim" not in text


def test_a_password_does_not_belong_on_the_command_line(nobody: Operator) -> None:
    refused = nobody("init", nobody.home, "--registry", "postgresql://me:hush@db/muster")
    assert refused.status == 1
    assert "hush" not in refused.err
    assert "MUSTER_REGISTRY__URL" in refused.err
    assert not nobody.home.exists()


def test_the_passphrase_opens_the_keys_and_nothing_else_does(nobody: Operator) -> None:
    right = nobody.file("right", "correct horse\n")
    wrong = nobody.file("wrong", "battery staple\n")
    nobody.succeeds("init", nobody.home, "--passphrase-file", right)
    assert b"ENCRYPTED" in (nobody.home / "ca" / "claim.key").read_bytes()
    create = ("claim-cert", "create", "batch-1", "--max-claims", "5")
    assert "[passphrase_missing]" in nobody(*create).err
    assert "[passphrase_wrong]" in nobody(*create, "--passphrase-file", wrong).err
    assert not (nobody.folder / "batch-1.bundle.json").exists()
    nobody.succeeds(*create, "--passphrase-file", right)


def test_an_empty_passphrase_file_is_refused(nobody: Operator) -> None:
    refused = nobody("init", nobody.home, "--passphrase-file", nobody.file("empty", "\n"))
    assert refused.status == 1
    assert "[passphrase_invalid]" in refused.err
    assert not nobody.home.exists()


def test_a_bundle_is_private_and_never_replaced(operator: Operator) -> None:
    path = operator.folder / "b.bundle"
    made = operator.succeeds(
        "claim-cert", "create", "batch-1", "--max-claims", "5", "--output", path
    )
    assert made.out.strip() == str(path)
    assert mode(path) == 0o600
    assert read_bundle(path.read_bytes()).claim_name == "batch-1"
    again = operator("claim-cert", "create", "batch-2", "--max-claims", "5", "--output", path)
    assert again.status == 1
    assert "[file_exists]" in again.err
    assert read_bundle(path.read_bytes()).claim_name == "batch-1"
    assert [claim["name"] for claim in operator("claim-cert", "list", "--json").json()] == [
        "batch-1"
    ]


def test_the_json_of_claim_certificates_keeps_its_members(equipped: Operator) -> None:
    (claim,) = equipped.succeeds("claim-cert", "list", "--json").json()
    assert set(claim) == {
        *("name", "state", "group", "claims", "max_claims", "not_before", "not_after"),
        *("revoked_at", "certificate_serial"),
    }
    assert (claim["state"], claim["group"], claim["max_claims"]) == ("active", "lamps", 5)


def test_revoking_swaps_the_crl_and_can_be_tried_before(equipped: Operator) -> None:
    crl = equipped.home / "crl" / "claim.pem"
    before = crl.read_bytes()
    tried = equipped.succeeds("claim-cert", "revoke", "batch-1", "--dry-run")
    assert "Nothing was changed" in tried.out
    assert crl.read_bytes() == before
    equipped.succeeds("claim-cert", "revoke", "batch-1")
    assert crl.read_bytes() != before
    (claim,) = equipped.succeeds("claim-cert", "list", "--json").json()
    assert claim["state"] == "revoked"


def test_with_the_key_offline_the_registry_refuses_and_the_command_says_so(
    equipped: Operator,
) -> None:
    key = equipped.home / "ca" / "claim.key"
    key.rename(equipped.folder / "claim.key")
    half = equipped("claim-cert", "revoke", "batch-1")
    assert half.status == 1
    assert "[crl_unsigned]" in half.err
    assert "no claim with it is accepted" in half.err
    (claim,) = equipped.succeeds("claim-cert", "list", "--json").json()
    assert claim["state"] == "revoked"
    (equipped.folder / "claim.key").rename(key)
    equipped.succeeds("claim-cert", "revoke", "batch-1")


def test_applying_shows_the_difference_and_a_dry_run_keeps_it_so(equipped: Operator) -> None:
    changed = equipped.file("groups.toml", GROUP.replace("quota = 5", "quota = 6"))
    tried = equipped.succeeds("group", "apply", changed, "--dry-run")
    assert "- quota = 5\n  + quota = 6" in tried.out
    assert equipped.succeeds("group", "show", "lamps", "--json").json()[0]["quota"] == 5
    equipped.succeeds("group", "apply", changed)
    assert equipped.succeeds("group", "show", "lamps", "--json").json()[0]["quota"] == 6
    assert "unchanged" in equipped.succeeds("group", "apply", changed).out


def test_a_fault_in_a_group_file_names_the_field(equipped: Operator) -> None:
    refused = equipped("group", "apply", equipped.file("bad.toml", GROUP + "qota = 3\n"))
    assert refused.status == 1
    assert "groups.lamps" in refused.err
    assert "qota" in refused.err
    assert "did you mean quota" in refused.err
    assert refused.out == ""


def test_a_group_that_is_open_to_all_is_called_so(equipped: Operator) -> None:
    opened = equipped.file("groups.toml", GROUP + 'serials = "any"\n')
    assert "OPEN TO ANY SERIAL NUMBER" in equipped.succeeds("group", "apply", opened).err


def test_the_json_of_groups_keeps_its_members(equipped: Operator) -> None:
    (group,) = equipped.succeeds("group", "list", "--json").json()
    assert group == {
        "name": "lamps",
        "claim_certificates": ["batch-1"],
        "device_name": "lamp-{serial}",
        "allowed_keys": ["ed25519", "p256", "p384"],
        "certificate_lifetime": "90d",
        "quota": 5,
        "devices": 0,
        "serials": "listed",
        "enrollments": 0,
        "reprovision": "refuse",
        "rotation_key": "new",
        "rotation_grace": "1h",
        "recover_within": "30d",
    }


def test_an_import_with_bad_lines_keeps_nothing_unless_told(equipped: Operator) -> None:
    serials = equipped.file("serials.csv", "serial\nA1\nA 2\nA3\n")
    refused = equipped("enroll", "import", serials, "--group", "lamps")
    assert refused.status == 1
    assert f"{serials}:3:" in refused.err
    assert "nothing was imported" in refused.err
    assert equipped("enroll", "count", "--json").json() == [{"group": "lamps", "enrollments": 0}]
    done = equipped.succeeds("enroll", "import", serials, "--group", "lamps", "--skip-bad")
    assert done.out == "2 added, 0 there already, 1 bad line.\n"
    assert equipped("enroll", "count", "--json").json() == [{"group": "lamps", "enrollments": 2}]


def test_an_import_can_be_tried_and_repeated(equipped: Operator) -> None:
    serials = equipped.file("serials.jsonl", '{"serial": "A1"}\n{"serial": "A2"}\n')
    tried = equipped.succeeds("enroll", "import", serials, "--group", "lamps", "--dry-run")
    assert tried.out.startswith("2 serial numbers would be imported")
    equipped.succeeds("enroll", "import", serials, "--group", "lamps")
    again = equipped.succeeds("enroll", "import", serials, "--group", "lamps")
    assert again.out == "0 added, 2 there already, 0 bad lines.\n"


def test_an_allow_list_is_shown_in_order_and_searched(equipped: Operator) -> None:
    count = 1001  # more than a page
    serials = [f"A{n:04}" for n in range(count)]
    file = equipped.file("serials.csv", "\n".join(["serial", *reversed(serials)]))
    equipped.succeeds("enroll", "import", file, "--group", "lamps")
    lines = equipped.succeeds("enroll", "list", "--group", "lamps").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["serial", *serials]
    assert len(equipped.succeeds("enroll", "list", "--group", "lamps", "--json").json()) == count
    search = ("enroll", "list", "--group", "lamps", "--json", "--serial")
    (found,) = equipped.succeeds(*search, "A0007").json()
    assert set(found) == {"group", "serial", "imported_at"}
    assert (found["group"], found["serial"]) == ("lamps", "A0007")
    assert equipped.succeeds(*search, "A7").json() == []
    assert "[group_unknown]" in equipped("enroll", "list", "--group", "nobody").err


def test_what_happened_is_on_record(equipped: Operator) -> None:
    events = equipped.succeeds("events", "--json").json()
    assert [event["kind"] for event in events] == ["claim_certificate.created", "group.applied"]
    assert set(events[0]) == {
        *("id", "at", "kind", "device_id", "serial", "claim_name", "client_id", "group"),
        *("code", "detail", "repeated"),
    }
    one = equipped.succeeds("events", "--json", "--claim", "batch-1").json()
    assert [event["kind"] for event in one] == ["claim_certificate.created"]
    newest = equipped.succeeds("events", "--json", "--limit", "1").json()
    assert [event["kind"] for event in newest] == ["group.applied"]


@pytest.mark.parametrize(
    ("detail", "shown"),
    [(None, EXPLANATIONS[Code.SERIAL_UNKNOWN].message), ("Its own words.", "Its own words.")],
)
def test_a_refusal_on_record_is_shown_in_words(
    operator: Operator, detail: str | None, shown: str
) -> None:
    _record(operator, Code.SERIAL_UNKNOWN, detail)
    columns = operator.succeeds("events").out.splitlines()[-1].split("\t")
    advice = EXPLANATIONS[Code.SERIAL_UNKNOWN].remedy
    assert columns[-2:] == [Code.SERIAL_UNKNOWN, f"{shown} {advice}"]
    (event,) = operator.succeeds("events", "--json").json()
    assert (event["code"], event["detail"]) == (Code.SERIAL_UNKNOWN, detail)


def _record(operator: Operator, code: str, detail: str | None) -> None:
    async def work() -> None:
        opened = installation.open_installation(operator.home, None)
        event = Event(opened.clock.now(), EventKind.CLAIM_REFUSED, code=code, detail=detail)
        async with opened.registry() as registry:
            await registry.write(lambda view: view.add_event(event))

    asyncio.run(work())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("devices", "list", "--group", "nope"), "group_unknown"),
        (("devices", "list", "--claim", "nope"), "claim_certificate_unknown"),
        (("devices", "list", "--claimed-by", "nope"), "claim_certificate_unknown"),
        (("events", "--device", "nope"), "device_unknown"),
        (("events", "--claim", "nope"), "claim_certificate_unknown"),
    ],
)
def test_a_name_that_nobody_ever_had_is_no_empty_list(
    equipped: Operator, arguments: tuple[str, ...], code: str
) -> None:
    for as_json in ((), ("--json",)):
        refused = equipped(*arguments, *as_json)
        assert (refused.status, refused.out) == (1, "")
        assert f"[{code}]" in refused.err
        assert "try: " in refused.err


def test_the_events_of_who_is_gone_are_found(equipped: Operator) -> None:
    asyncio.run(_record_about(equipped, "gone", "batch-0"))
    for who in (("--device", "gone"), ("--claim", "batch-0"), ("--claimed-by", "batch-0")):
        (event,) = equipped.succeeds("events", *who, "--json").json()
        assert (event["device_id"], event["claim_name"]) == ("gone", "batch-0")
    assert equipped.succeeds("devices", "list", "--group", "lamps", "--json").json() == []
    assert equipped.succeeds("devices", "list", "--claim", "batch-1", "--json").json() == []


async def _record_about(operator: Operator, device: str, claim: str) -> None:
    opened = installation.open_installation(operator.home, None)
    kind = EventKind.CLAIM_ACCEPTED
    event = Event(opened.clock.now(), kind, device_id=device, claim_name=claim)
    async with opened.registry() as registry:
        await registry.write(lambda view: view.add_event(event))


def test_what_changes_something_says_it_in_json_too(operator: Operator) -> None:
    create = ("claim-cert", "create", "batch-1", "--max-claims", "5", "--json")
    (made,) = operator.succeeds(*create).json()
    assert (made["name"], made["bundle"], made["state"]) == (
        *("batch-1", "batch-1.bundle.json", "active"),
    )
    apply = ("group", "apply", operator.file("groups.toml", GROUP), "--json")
    (tried,) = operator.succeeds(*apply, "--dry-run").json()
    (applied,) = operator.succeeds(*apply).json()
    assert (tried["dry_run"], applied["dry_run"]) == (True, False)
    assert tried["changed"] == applied["changed"]
    assert (applied["name"], applied["new"]) == ("lamps", True)
    assert applied["changed"]["quota"] == {"before": None, "after": "5"}
    (unchanged,) = operator.succeeds(*apply).json()
    assert (unchanged["new"], unchanged["changed"]) == (False, {})
    revoke = ("claim-cert", "revoke", "batch-1", "--reason", "leaked in Lyon", "--json")
    (tried,) = operator.succeeds(*revoke, "--dry-run").json()
    assert (tried["dry_run"], tried["state"]) == (True, "active")
    (revoked,) = operator.succeeds(*revoke).json()
    assert (revoked["dry_run"], revoked["state"]) == (False, "revoked")
    assert revoked["crl_number"] >= 1
    (event,) = operator.succeeds("events", "--kind", "claim_certificate.revoked", "--json").json()
    assert event["detail"] == "after 0 of 5 claims: leaked in Lyon"


def test_a_reason_that_the_log_wouldn_t_take_revokes_nothing(equipped: Operator) -> None:
    assert equipped("claim-cert", "revoke", "batch-1", "--reason", "x" * 201).status == 2
    (claim,) = equipped.succeeds("claim-cert", "list", "--json").json()
    assert claim["state"] == "active"


def test_the_help_shows_what_a_group_file_has(nobody: Operator) -> None:
    assert "[groups.NAME]" in nobody.unnamed("group", "apply", "--help").out


def test_without_a_terminal_a_list_is_lines_of_tabs(equipped: Operator) -> None:
    lines = equipped.succeeds("group", "list").out.splitlines()
    assert [len(line.split("\t")) for line in lines] == [5, 5]


def test_an_empty_fleet_is_no_error(operator: Operator) -> None:
    assert operator.succeeds("devices", "list", "--json").out == ""
    assert operator("devices", "show", "nobody").status == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["group", "show", "nobody"], "group_unknown"),
        (["devices", "show", "nobody"], "device_unknown"),
        (["claim-cert", "revoke", "nobody"], "claim_certificate_unknown"),
        (["claim-cert", "create", "muster-x", "--max-claims", "1"], "name_invalid"),
        (["group", "apply", "missing.toml"], "file_unreadable"),
        (["enroll", "import", "missing.csv", "--group", "nobody"], "group_unknown"),
        (["claim-cert", "create", "x", "--max-claims", "1", "--output", "no/b"], "file_"),
    ],
)
def test_a_known_error_is_a_code_a_sentence_and_a_remedy(
    operator: Operator, arguments: list[str], code: str
) -> None:
    failed = operator(*arguments)
    assert failed.status == 1
    assert failed.out == ""
    assert f"[{code}" in failed.err
    assert "try: " in failed.err
    assert "Traceback" not in failed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["claim-cert", "create", "x"],
        ["claim-cert", "create", "x", "--max-claims", "0"],
        ["claim-cert", "create", "x", "--max-claims", "1", "--expires", "9"],
        ["claim-cert", "create", "x", "--max-claims", "1", "--expires", "9999999w"],
        ["devices", "list", "--state", "bogus"],
        ["events", "--limit", "0"],
    ],
)
def test_a_wrong_command_line_ends_with_status_2(operator: Operator, arguments: list[str]) -> None:
    failed = operator(*arguments)
    assert failed.status == 2
    assert failed.out == ""
    assert "Traceback" not in failed.err


def test_without_a_home_it_says_how_to_make_one(nobody: Operator) -> None:
    failed = nobody("doctor")
    assert failed.status == 1
    assert "[home_missing]" in failed.err
    assert "muster init" in failed.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[claim]\nprot = 1\n", "claim.prot"),
        ("[claim", "TOML"),
        ("[claim]\nport = 99999\n", "port"),
    ],
)
def test_a_fault_in_the_settings_names_the_setting(
    operator: Operator, text: str, words: str
) -> None:
    (operator.home / "muster.toml").write_text(text)
    failed = operator("group", "list")
    assert failed.status == 1
    assert "[settings_invalid]" in failed.err
    assert words in failed.err


def test_renewing_keeps_the_keys_and_adds_the_name(operator: Operator) -> None:
    certificate = operator.home / "tls" / "claim-broker.crt"
    before = certificate.read_bytes()
    key = (operator.home / "tls" / "claim-broker.key").read_bytes()
    assert str(certificate) in operator.succeeds("renew", "--host", "mqtt.example.com").out
    assert certificate.read_bytes() != before
    assert (operator.home / "tls" / "claim-broker.key").read_bytes() == key


def test_migrating_again_changes_nothing(operator: Operator) -> None:
    operator.succeeds("migrate")
    operator.succeeds("migrate")


def test_common_options_may_stand_anywhere() -> None:
    assert common_first(["group", "list", "--home", "x", "--json"]) == [
        *("--home", "x", "group", "list", "--json")
    ]
    assert common_first(["up", "--passphrase-file=f", "--", "--home", "y"]) == [
        *("--passphrase-file=f", "up", "--", "--home", "y")
    ]
    assert common_first(["up", "--home"]) == ["--home", "up"]


@pytest.mark.parametrize(
    "error",
    [
        BrokerError(next(iter(BrokerErrorCode)), "It is so.", "Do that."),
        BrokerControlError(BrokerControlCode.BROKER_DOWN, "it is so", "do that"),
    ],
)
def test_a_remedy_is_said_once(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    assert "do that" not in str(error).lower(), "a log has a field for it"
    report(error)
    said = capsys.readouterr().err.lower()
    assert said.startswith("error: it is so. [")
    assert said.count("do that") == 1


def test_the_name_of_a_passphrase_file_is_said_as_it_was_written(operator: Operator) -> None:
    assert "'nofile' can't be read" in operator("renew", "--passphrase-file", "nofile").err
    operator.file("nothing", "")
    assert "'nothing' doesn't hold" in operator("renew", "--passphrase-file", "nothing").err


def test_a_passphrase_file_that_is_gone_stops_nothing_that_needs_no_key(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = ("--passphrase-file", "nofile")
    operator.succeeds("devices", "list", *gone)
    operator.succeeds("update", "rollouts", *gone)
    assert "It's named by --passphrase-file" in operator("renew", *gone).err
    monkeypatch.setenv("MUSTER_PASSPHRASE_FILE", "nofile")
    operator.succeeds("events")
    assert "It's named by MUSTER_PASSPHRASE_FILE" in operator("renew").err
    findings = operator("doctor", "--json", "--all").json()
    (error,) = [each for each in findings if each["subject"] == "passphrase"]
    assert error["level"] == "error"
    assert "'nofile' can't be read" in error["message"]
    assert "MUSTER_PASSPHRASE_FILE" in error["remedy"]
    assert "registry" in {each["check"] for each in findings}


def test_a_passphrase_may_come_through_a_pipe(operator: Operator) -> None:
    """Which can be read once only, however many keys it opens."""
    pipe, home = operator.folder / "pipe", operator.folder / "other"
    os.mkfifo(pipe)
    encrypted = Operator(home, operator.folder, operator.capture)
    encrypted.succeeds("init", home, "--passphrase-file", operator.file("secret", "horse\n"))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(pipe.write_text, "horse\n")
        encrypted.succeeds("ca", "rollover", "start", "--passphrase-file", pipe)
        assert writing.result(timeout=60)


def test_settings_of_another_user_are_called_unreadable(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = operator.home / "muster.toml"

    def refuse(home: Path) -> None:  # root, as whom tests may run, can read every file
        raise PermissionError(errno.EACCES, "Permission denied", str(settings))

    monkeypatch.setattr(installation, "load_settings", refuse)
    failed = operator("group", "list")
    assert failed.status == 1
    assert f"{settings}: Permission denied. [settings_unreadable]" in failed.err
    assert "try: Run as the service's user or root." in failed.err


def test_what_init_says_is_next_works_from_any_folder(nobody: Operator) -> None:
    said = nobody.succeeds("init", "./x").err
    assert f"export MUSTER_HOME={nobody.folder.resolve() / 'x'}\n" in said
    assert "--expires 30d --output batch-1.bundle\n" in said
