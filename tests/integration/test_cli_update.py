"""`muster update`, as an operator types it."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from broker.entry.cli.main import run
from broker.protocol.bundle import read_bundle
from tests.support.commands import Operator, Outcome


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    """An operator with a new installation, an image, and no terminal."""
    installed = Operator(tmp_path / "home", tmp_path, capsys)
    installed.succeeds("init", installed.home)
    installed.file("firmware.bin", "firmware")
    return installed


@pytest.fixture
def ready(operator: Operator) -> Operator:
    """With an update repository, its keys in `keys/`."""
    operator.succeeds("update", "init", "--keys", operator.folder / "keys", "--no-passphrase")
    return operator


def add(operator: Operator, *more: str | Path, version: str = "1.0.0") -> tuple[str | Path, ...]:
    said = ("--model", "meter", "--version", version, "--security-counter", "1")
    return ("update", "add", operator.folder / "firmware.bin", *said, *more)


def sign(operator: Operator, *names: str) -> tuple[str | Path, ...]:
    keys = [word for name in names for word in ("--key", operator.folder / "keys" / name)]
    return ("update", "sign", "--yes", *keys)


def published(operator: Operator) -> dict[str, Any]:
    (view,) = operator.succeeds("update", "status", "--json").json()
    found: dict[str, Any] = view["repository"]
    return found


def test_the_first_image(ready: Operator) -> None:
    assert "+ meter/1.0.0/firmware.bin" in ready.succeeds(*add(ready)).out
    assert "[signatures_missing]" in ready("update", "publish").err
    assert "model-meter is signed by" in ready.succeeds(*sign(ready, "targets-1.key")).out
    assert "model-meter 1" in ready.succeeds("update", "publish").out
    (target,) = published(ready)["targets"]
    assert target["path"] == "meter/1.0.0/firmware.bin"
    assert target["facts"]["version"] == "1.0.0"
    assert "meter/1.0.0/firmware.bin" in ready.succeeds("update", "status").out


def test_keys_are_closed_and_encrypted(operator: Operator) -> None:
    secret = operator.file("secret", "correct horse\n")
    keys = operator.folder / "keys"
    made = operator.succeeds("update", "init", "--keys", keys, "--key-passphrase-file", secret)
    assert len(made.out.splitlines()) == 4 + 5
    for path in keys.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"ENCRYPTED" in path.read_bytes()
    operator.succeeds(*add(operator))
    assert "[update_key_unusable]" in operator(*sign(operator, "targets-1.key")).err
    operator.succeeds(*sign(operator, "targets-1.key"), "--key-passphrase-file", secret)
    operator.succeeds("update", "publish")


def test_without_a_terminal_a_passphrase_is_named_or_declined(operator: Operator) -> None:
    outcome = operator("update", "init", "--keys", operator.folder / "keys")
    assert outcome.status == 1
    assert "--no-passphrase" in outcome.err
    assert not (operator.home / "updates").exists()


def test_offline_keys_do_not_lie_in_the_home(operator: Operator) -> None:
    outcome = operator("update", "init", "--keys", operator.home / "keys", "--no-passphrase")
    assert "[value_invalid]" in outcome.err
    assert not (operator.home / "updates").exists()


def test_root_keys_go_to_separate_media(operator: Operator) -> None:
    media = [operator.folder / f"medium-{number}" for number in (1, 2, 3)]
    named = [word for medium in media for word in ("--root-key-dir", medium)]
    keys = operator.folder / "keys"
    operator.succeeds("update", "init", "--keys", keys, *named, "--no-passphrase")
    assert [sorted(path.name for path in medium.glob("*.key")) for medium in media] == [
        *(["root-1.key"], ["root-2.key"], ["root-3.key"])
    ]
    assert sorted(path.name for path in keys.glob("*.key")) == ["targets-1.key", "targets-2.key"]


def test_a_ceremony_of_people_who_keep_their_keys(operator: Operator) -> None:
    keys = operator.folder / "keys"
    keys.mkdir()
    named: list[str | Path] = []
    for role, people in (("root", ("ann", "bob", "cy")), ("targets", ("dee",))):
        for person in people:
            operator.succeeds("update", "key", "new", keys / person, "--no-passphrase")
            named += [f"--{role}-key", keys / f"{person}.pub"]
    made = operator.succeeds("update", "init", *named)
    assert "no images yet" in made.out
    assert published(operator)["roles"] == []
    for person in ("ann", "cy", "dee"):
        medium = operator.folder / person
        operator.succeeds("update", "export-staging", medium)
        # Whoever signs has no home.
        line = ["update", "sign", "--yes", "--staging", medium, "--key", keys / person]
        assert run([str(word) for word in line]) == 0
        operator.succeeds("update", "import-staging", medium)
    assert "has no update root" in claim_certificate(operator, "early").err
    operator.succeeds("update", "publish")
    assert "update root" not in claim_certificate(operator, "late").err
    assert "[nothing_staged]" in operator("update", "import-staging", operator.folder / "dee").err
    root = next(each for each in published(operator)["roles"] if each["role"] == "root")
    assert (root["threshold"], len(root["keyids"])) == (2, 3)


def test_nothing_is_signed_unseen(ready: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.succeeds(*add(ready))
    words = [word for word in sign(ready, "targets-1.key") if word != "--yes"]
    outcome = ready(*words)
    assert outcome.status == 1
    assert "sha256" in outcome.out
    assert "[signatures_missing]" in ready("update", "publish").err


def test_with_nothing_to_sign_nobody_is_asked(ready: Operator) -> None:
    outcome = ready(*[word for word in sign(ready, "targets-1.key") if word != "--yes"])
    assert outcome.status == 1
    assert "[nothing_staged]" in outcome.err
    assert "Sign this?" not in outcome.err


def test_root_is_rotated(ready: Operator) -> None:
    keys = ready.folder / "keys"
    ready.succeeds("update", "key", "new", keys / "root-4.key", "--no-passphrase")
    roles = published(ready)["roles"]
    old = roles[0]["keyids"][0]
    rotate = ("--add-root-key", keys / "root-4.key.pub", "--remove-root-key", old[:12])
    ready.succeeds("update", "rotate-root", *rotate, "--new-online", "director")
    ready.succeeds(*sign(ready, "root-1.key", "root-2.key", "root-3.key"))
    ready.succeeds("update", "publish")
    root = published(ready)["roles"][0]
    assert root["version"] == 2
    assert old not in root["keyids"]


def test_an_image_is_revoked_by_its_file(ready: Operator) -> None:
    ready.succeeds(*add(ready))
    ready.succeeds(*sign(ready, "targets-1.key"))
    ready.succeeds("update", "publish")
    file = ready.folder / "firmware.bin"
    staged = ready.succeeds("update", "revoke", file, "--reason", "CVE")
    assert "- meter/1.0.0/firmware.bin: CVE" in staged.out
    ready.succeeds(*sign(ready, "targets-2.key"))
    ready.succeeds("update", "publish")
    assert published(ready)["targets"] == []
    assert "[image_unknown]" in ready("update", "revoke", "meter/9/x").err


def test_support_that_has_ended_is_seen_everywhere(ready: Operator) -> None:
    ended = ("--support-until", "2020-12-31", "--contact", "mailto:security@example.com")
    assert "support is over already" in ready.succeeds(*add(ready, *ended)).err
    ready.succeeds(*sign(ready, "targets-1.key"))
    ready.succeeds("update", "publish")
    status = ready.succeeds("update", "status")
    assert "2020-12-31 ENDED" in status.out
    assert "mailto:security@example.com" in status.err
    assert any(each["check"] == "support" for each in ready("doctor", "--json").json())


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--depends", "radio"), ""),
        (("--contact", "the boss"), ""),
        (("--depends", "main=1.0"), "image_invalid"),
        (("--path", "other/1/x"), "image_invalid"),
        (("--hw-rev", "a b"), "image_invalid"),
    ],
)
def test_what_is_said_wrongly_is_refused(ready: Operator, more: tuple[str, ...], code: str) -> None:
    outcome = ready(*add(ready, *more))
    assert outcome.status == (1 if code else 2)
    assert code in outcome.err
    assert published(ready)["staged"] == []


def test_commands_without_a_repository_say_what_to_do(operator: Operator) -> None:
    for words in (("status",), ("publish",), ("renew",), ("discard",)):
        outcome = operator("update", *words)
        assert outcome.status == 1
        assert "[update_repository_missing]" in outcome.err
        assert "muster update init" in outcome.err


def claim_certificate(operator: Operator, name: str) -> Outcome:
    path = operator.folder / f"{name}.json"
    return operator.succeeds("claim-cert", "create", name, "--max-claims", "5", "--output", path)


def test_bundles_carry_the_first_root(operator: Operator) -> None:
    def bundle(name: str) -> str | None:
        assert "update root" not in claim_certificate(operator, name).err
        path = operator.folder / f"{name}.json"
        return read_bundle(path.read_bytes()).update_root

    assert bundle("before") is None
    operator.succeeds("update", "init", "--keys", operator.folder / "keys", "--no-passphrase")
    root = bundle("after")
    assert root is not None
    assert json.loads(root)["signed"]["version"] == 1


def test_bundles_name_the_hosts_that_have_images(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices ask no others, whatever they are told later."""
    sources = ["https://cdn.example.com/targets", "http://10.0.0.7:8080/updates/targets"]
    sources += ["http://[odd/", "http://a~b/", "https://cdn.example.com/other"]
    monkeypatch.setenv("MUSTER_UPDATES__SOURCES", json.dumps(sources))
    claim_certificate(operator, "hosts")
    bundle = read_bundle((operator.folder / "hosts.json").read_bytes())
    assert bundle.update_hosts == ("cdn.example.com", "10.0.0.7")
