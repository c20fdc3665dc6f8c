"""Staging: what is refused, whose signatures are needed, what travels to the offline keys."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    Key,
    SecretsHandler,
    Signature,
)

from broker.adapters.updates.ceremonies import KeySet, RootChange
from broker.adapters.updates.keys import new_key_file, open_file
from broker.adapters.updates.metadata import model_role
from broker.core.metadata_lifetime import Lifetimes
from broker.operating.updating import (
    ExportedStaging,
    KeyReference,
    NewImage,
    UpdateDesk,
    needs_passphrase,
    update_repository,
)
from broker.ports.updates import UpdateCode, UpdateError
from broker.protocol.updates import ImageFacts
from tests.support.update_workshop import MODEL, Workshop, make_workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path)


def refused(work: Callable[[], object]) -> UpdateCode:
    with pytest.raises(UpdateError) as caught:
        work()
    assert caught.value.remedy
    return caught.value.code


def new_image(workshop: Workshop, path: str | None = None, **facts: object) -> NewImage:
    file = workshop.keys / "fw.bin"
    file.write_bytes(b"image")
    said: dict[str, object] = {"model": MODEL, "version": "1.0.0", "security_counter": 1}
    said |= facts
    return NewImage(file, ImageFacts(**said), path)  # type: ignore[arg-type]


def sign_in(folder: Path, key: KeyReference) -> None:
    """What somebody does who has a key and no home."""
    place = ExportedStaging(folder)
    place.sign([key], place.staged())


@pytest.mark.parametrize(
    "facts",
    [
        {"model": "a/b"},
        {"model": "-x"},
        {"version": "v1"},
        {"version": "1.0-a..b"},
        {"security_counter": -1},
        {"hw_revs": ("ä",)},
        {"depends": {"radio": "new"}},
        {"depends": {"main": "1.0"}},
        {"notes": "x" * 3000},
        {"path": "meter/../x/fw.bin"},
        {"path": "other/1.0/fw.bin"},
        {"path": "meter/fw.bin"},
        {"path": "meter/a/b/c/fw.bin"},
        {"path": "meter//fw.bin"},
        {"path": "meter/1.0/.fw"},
    ],
)
def test_facts_that_no_device_could_read_are_refused(
    workshop: Workshop, facts: dict[str, object]
) -> None:
    path = facts.pop("path", None)
    assert path is None or isinstance(path, str)
    new = new_image(workshop, path, **facts)
    assert refused(lambda: workshop.desk.add(new)) is UpdateCode.IMAGE_INVALID
    assert workshop.desk.staged() == ()


def test_a_file_that_is_not_there_is_refused(workshop: Workshop) -> None:
    new = NewImage(workshop.keys / "none", new_image(workshop).facts)
    assert refused(lambda: workshop.desk.add(new)) is UpdateCode.FILE_UNREADABLE


def test_what_is_published_stands_against_what_is_added(workshop: Workshop) -> None:
    workshop.publish_image("2.0.0", b"one")
    assert refused(lambda: workshop.add("2.0.0", b"other")) is UpdateCode.IMAGE_EXISTS
    lower = new_image(workshop, version="3.0.0", security_counter=0)
    assert refused(lambda: workshop.desk.add(lower)) is UpdateCode.COUNTER_TOO_LOW


def test_what_is_staged_stands_against_what_is_added(workshop: Workshop) -> None:
    workshop.add("2.0.0", b"one")
    with pytest.raises(UpdateError) as caught:
        workshop.add("2.0.0", b"other")
    assert caught.value.code is UpdateCode.IMAGE_EXISTS
    assert "muster update discard" in caught.value.remedy


def test_a_version_that_was_published_is_spent(workshop: Workshop) -> None:
    workshop.publish_image("2.0.0", b"one")
    with pytest.raises(UpdateError) as caught:
        workshop.add("2.0.0", b"other")
    assert "discard" not in caught.value.remedy


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"version": "1.4.x"}, "a version is one to four numbers"),
        ({"depends": {"radio": "new"}}, "depends on is one to four numbers"),
        ({"model": "a b"}, "a model is made of"),
        ({"hw_revs": ("A", "b c")}, "a hardware revision is made of"),
        ({"security_counter": 1 << 40}, "2,147,483,648"),
        ({"path": "meter/1/.x"}, "letters, digits"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    workshop: Workshop, facts: dict[str, str], words: str
) -> None:
    with pytest.raises(UpdateError, match=re.escape(words)):
        workshop.desk.add(new_image(workshop, **facts))


def test_a_revoked_image_does_not_come_back(workshop: Workshop) -> None:
    path = workshop.publish_image()
    workshop.desk.revoke(path, "a weakness")
    workshop.sign("targets-2")
    workshop.desk.publish()
    assert update_repository(workshop.home, None).targets() == []
    assert list(workshop.desk.folders.targets.rglob("*.bin")) == []
    assert refused(workshop.add) is UpdateCode.IMAGE_EXISTS


def test_a_bill_of_materials_comes_and_goes_with_its_image(workshop: Workshop) -> None:
    bill = workshop.keys / "sbom.json"
    bill.write_bytes(b"{}")
    new = new_image(workshop)
    workshop.desk.add(NewImage(new.file, new.facts, sbom=bill))
    workshop.sign("targets-1")
    workshop.desk.publish()
    repository = update_repository(workshop.home, None)
    (target,) = repository.targets()
    assert target.facts.sbom == "meter/1.0.0/sbom.json"
    workshop.desk.revoke(target.sha256, "")
    workshop.sign("targets-1")
    workshop.desk.publish()
    role = workshop.repository / "metadata" / f"2.{model_role(MODEL)}.json"
    assert b"sbom.json" not in role.read_bytes().split(b"x-muster-revoked")[0]


def test_one_of_two_signatures_is_not_enough(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, targets_threshold=2)
    workshop.add()
    workshop.sign("targets-1")
    assert refused(workshop.desk.publish) is UpdateCode.SIGNATURES_MISSING
    workshop.sign("targets-1")
    assert refused(workshop.desk.publish) is UpdateCode.SIGNATURES_MISSING
    workshop.sign("targets-2")
    workshop.desk.publish()


def test_the_first_root_needs_its_threshold_too(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, publish=False)
    workshop.sign("root-1", "targets-1")
    assert refused(workshop.desk.publish) is UpdateCode.SIGNATURES_MISSING
    assert update_repository(workshop.home, None).files() == {}
    workshop.sign("root-3")
    workshop.desk.publish()


def test_a_root_needs_the_old_keys_and_the_new(workshop: Workshop) -> None:
    workshop.new_key("root-4")
    workshop.new_key("root-5")
    change = RootChange(
        add_root=workshop.key_set(["root-4", "root-5"], 2).keys,
        remove_root=[workshop.keyid("root-1"), workshop.keyid("root-2")],
    )
    (staged,) = workshop.desk.rotate_root(change, "ed25519")
    assert [need.delegator for need in staged.needs] == ["root 1", "root 2"]
    workshop.sign("root-4", "root-5")
    assert refused(workshop.desk.publish) is UpdateCode.SIGNATURES_MISSING
    workshop.sign("root-1")
    assert refused(workshop.desk.publish) is UpdateCode.SIGNATURES_MISSING
    workshop.sign("root-2")
    workshop.desk.publish()


@pytest.mark.parametrize(
    "change",
    [
        RootChange(root_threshold=4),
        RootChange(targets_threshold=3),
        RootChange(root_threshold=0),
    ],
)
def test_a_threshold_that_nobody_meets_is_refused(workshop: Workshop, change: RootChange) -> None:
    code = refused(lambda: workshop.desk.rotate_root(change, "ed25519"))
    assert code is UpdateCode.THRESHOLD_INVALID
    assert workshop.desk.staged() == ()


@pytest.mark.parametrize("named", ["", "zz"])
def test_a_key_to_remove_is_named_clearly(workshop: Workshop, named: str) -> None:
    change = RootChange(remove_root=[named])
    code = refused(lambda: workshop.desk.rotate_root(change, "ed25519"))
    assert code is UpdateCode.KEY_MISSING


def test_a_key_that_may_sign_nothing_signs_nothing(workshop: Workshop) -> None:
    workshop.add()
    code = refused(lambda: workshop.sign("targets-1", "root-1"))
    assert code is UpdateCode.KEY_NEEDLESS
    assert not any(need.signed for role in workshop.desk.staged() for need in role.needs)


def test_a_change_takes_the_signatures_away(workshop: Workshop) -> None:
    workshop.add()
    workshop.sign("targets-1")
    workshop.add("2.0.0")
    assert refused(workshop.desk.publish) is UpdateCode.SIGNATURES_MISSING


def test_an_image_that_was_changed_in_the_staging_is_not_published(workshop: Workshop) -> None:
    workshop.add()
    workshop.sign("targets-1")
    (staged,) = workshop.desk.folders.staged_targets.rglob("*.bin")
    staged.write_bytes(b"other")
    assert refused(workshop.desk.publish) is UpdateCode.IMAGE_INVALID
    assert update_repository(workshop.home, None).targets() == []


def test_metadata_that_a_client_would_refuse_is_not_published(workshop: Workshop) -> None:
    """Somebody who can write in the home adds a role's signature that isn't one."""
    workshop.add()
    workshop.sign("targets-1")
    file = workshop.desk.folders.staged_metadata / f"{model_role(MODEL)}.json"
    file.write_bytes(file.read_bytes().replace(b"meter/1.0.0", b"meter/6.6.6"))
    assert refused(workshop.desk.publish) is UpdateCode.SIGNATURES_MISSING


def test_signatures_are_made_elsewhere_and_add_up(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, targets_threshold=2)
    workshop.add()
    for person in ("targets-1", "targets-2"):
        folder = tmp_path / f"medium-{person}"
        workshop.desk.export_staging(folder)
        sign_in(folder, workshop.key(person))
        assert len(workshop.desk.import_staging(folder)) == 2
        assert workshop.desk.import_staging(folder) == []
    workshop.desk.publish()
    assert len(update_repository(workshop.home, None).targets()) == 1


def test_signatures_on_something_else_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    workshop.add()
    workshop.desk.export_staging(tmp_path / "medium")
    sign_in(tmp_path / "medium", workshop.key("targets-1"))
    workshop.add("2.0.0")
    code = refused(lambda: workshop.desk.import_staging(tmp_path / "medium"))
    assert code is UpdateCode.STAGING_DIFFERS


def test_what_was_discarded_is_gone_with_its_keys(workshop: Workshop) -> None:
    workshop.add()
    workshop.desk.rotate_root(RootChange(new_online=("director",)), "ed25519")
    workshop.desk.discard()
    assert workshop.desk.staged() == ()
    assert len(list(workshop.desk.folders.keys.iterdir())) == 3
    assert refused(workshop.desk.publish) is UpdateCode.NOTHING_STAGED


def test_a_damaged_staging_is_discarded_and_no_backup_restored(workshop: Workshop) -> None:
    path = workshop.add()
    for file in workshop.desk.folders.staged_metadata.glob("*.json"):
        file.write_bytes(b"{")
    with pytest.raises(UpdateError) as caught:
        workshop.desk.view()
    assert caught.value.code is UpdateCode.STAGING_IN_THE_WAY
    assert "muster update discard" in caught.value.remedy
    workshop.desk.discard()
    assert workshop.publish_image() == path


def test_a_root_without_a_key_to_spare_is_called_out(workshop: Workshop) -> None:
    change = RootChange(remove_root=[workshop.keyid("root-3")])
    (root,) = workshop.desk.rotate_root(change, "ed25519")
    assert "! root: 2 of 2 keys; when one is lost, no root can follow" in root.changes


def test_before_the_first_publication_nothing_is_discarded(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, publish=False)
    assert refused(workshop.desk.discard) is UpdateCode.STAGING_IN_THE_WAY
    assert workshop.desk.staged()


def test_renewing_signs_the_same_for_longer(workshop: Workshop) -> None:
    workshop.publish_image()
    before = workshop.desk.view()
    workshop.desk.renew()
    workshop.sign("targets-1")
    after = workshop.desk.publish()
    assert after.targets == before.targets
    versions = {role.role: role.version for role in after.roles}
    assert (versions["targets"], versions["model-meter"], versions["root"]) == (3, 2, 1)


def test_a_repository_is_made_once(workshop: Workshop) -> None:
    keys = workshop.key_set(["root-1"], 1)
    code = refused(lambda: workshop.desk.create(keys, keys, Lifetimes(), "ed25519"))
    assert code is UpdateCode.REPOSITORY_EXISTS


def test_a_threshold_above_the_keys_makes_no_repository(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path / "other")
    keys = workshop.key_set(["root-1"], 2)
    desk = UpdateDesk(type(workshop.home)(tmp_path), None, workshop.clock)
    code = refused(lambda: desk.create(keys, KeySet((), 0), Lifetimes(), "ed25519"))
    assert code is UpdateCode.THRESHOLD_INVALID
    assert not (tmp_path / "updates").exists()


def test_without_a_repository_commands_say_so(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path / "other")
    desk = UpdateDesk(type(workshop.home)(tmp_path), None, workshop.clock)
    assert refused(desk.view) is UpdateCode.REPOSITORY_MISSING
    assert refused(desk.publish) is UpdateCode.REPOSITORY_MISSING


def test_metadata_that_no_broker_carries_is_refused(workshop: Workshop) -> None:
    for number in range(100):
        new = new_image(
            workshop, version=f"1.{number}", notes="x" * 2000, path=f"meter/1.{number}/fw.bin"
        )
        try:
            workshop.desk.add(new)
        except UpdateError as error:
            code = error.code
            break
    else:
        pytest.fail("nobody objected")
    assert code is UpdateCode.METADATA_TOO_LARGE
    workshop.sign("targets-1")
    workshop.desk.publish()


def test_who_signs_sees_what_the_server_only_says_to_be_published(
    workshop: Workshop, tmp_path: Path
) -> None:
    """A server that was broken into could hide an image in what it says to be published."""
    workshop.add("6.6.6", b"evil")
    workshop.desk.export_staging(tmp_path / "medium")
    metadata, said = tmp_path / "medium" / "metadata", tmp_path / "medium" / "published"
    for file in metadata.iterdir():
        (said / file.name).write_bytes(file.read_bytes())
    role = ExportedStaging(tmp_path / "medium").staged()[-1]
    assert not any("meter/6.6.6" in line for line in role.changes)
    assert any("meter/6.6.6" in line for line in role.unchanged)


def test_a_bad_signature_does_not_stand_in_the_way(workshop: Workshop, tmp_path: Path) -> None:
    workshop.add()
    medium = tmp_path / "medium"
    workshop.desk.export_staging(medium)
    sign_in(medium, workshop.key("targets-1"))
    file = medium / "metadata" / "targets.json"
    good = file.read_bytes()
    signature = json.loads(good)["signatures"][0]["sig"]
    file.write_bytes(good.replace(signature.encode(), b"00" * 64))
    taken = workshop.desk.import_staging(medium)
    assert [role for role, _ in taken] == [model_role(MODEL)]
    file.write_bytes(good)
    assert [role for role, _ in workshop.desk.import_staging(medium)] == ["targets"]
    workshop.desk.publish()


def test_a_key_is_named_by_a_uri(workshop: Workshop) -> None:
    """As an HSM's is: whose it is shows by what it signs."""
    workshop.add()
    shown = workshop.desk.staged()
    workshop.desk.sign([KeyReference(f"file2:{workshop.keys / 'targets-2'}")], shown)
    (need,) = workshop.desk.staged()[0].needs
    assert need.signed == (workshop.keyid("targets-2"),)
    wrong = KeyReference(f"file2:{workshop.keys / 'root-1'}")
    assert refused(lambda: workshop.desk.sign([wrong], shown)) is UpdateCode.KEY_MISSING


def test_a_token_is_asked_with_its_pin_and_never_twice_with_a_wrong_one(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token locks itself after a few wrong PINs; there are two keys that it might hold."""
    pins: list[str] = []

    class Token(CryptoSigner):
        """A key behind a PIN."""

        @classmethod
        def from_priv_key_uri(
            cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
        ) -> "Token":
            assert secrets_handler is not None
            pins.append(secrets_handler("pin"))
            found = open_file(workshop.keys / "targets-2", None)
            return cls(found._private_key, found.public_key)

        def sign(self, payload: bytes) -> Signature:
            if pins[-1] != "1234":
                raise ValueError("the PIN is wrong")
            return super().sign(payload)

    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "hsm", Token)
    workshop.add()
    shown = workshop.desk.staged()

    def sign_by(pin: bytes | None) -> object:
        return workshop.desk.sign([KeyReference("hsm:2", pin)], shown)

    assert needs_passphrase("hsm:2")
    assert refused(lambda: sign_by(None)) is UpdateCode.KEY_UNUSABLE
    assert refused(lambda: sign_by(b"0000")) is UpdateCode.KEY_MISSING
    assert pins == ["0000"]
    sign_by(b"1234")
    (need,) = workshop.desk.staged()[0].needs
    assert need.signed == (workshop.keyid("targets-2"),)


def test_what_is_wrong_with_an_offline_key_is_said_to_who_signs(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    workshop.add()
    new_key_file(workshop.keys / "closed", "ed25519", b"secret")

    def remedy(name: str, passphrase: bytes | None = None) -> str:
        key, shown = KeyReference(str(workshop.keys / name), passphrase), workshop.desk.staged()
        with pytest.raises(UpdateError) as caught:
            workshop.desk.sign([key], shown)
        return caught.value.remedy

    assert "medium" in remedy("lost")
    assert "--key-passphrase-file" in remedy("closed")
    assert "other copy" in remedy("closed", b"wrong")
    assert "private" in remedy("targets-1.pub")


def test_who_is_not_delegated_to_cannot_be_published(workshop: Workshop) -> None:
    """Adding the first image of a model was killed between the two files that it writes."""
    workshop.add()
    (workshop.desk.folders.staged_metadata / "targets.json").unlink()
    (role,) = workshop.desk.staged()
    assert not role.is_complete
    assert refused(workshop.desk.publish) is UpdateCode.SIGNATURES_MISSING
    workshop.add()
    workshop.sign("targets-1")
    workshop.desk.publish()


def test_what_is_changed_after_it_was_shown_is_not_signed(
    workshop: Workshop, tmp_path: Path
) -> None:
    workshop.add()
    shown = workshop.desk.staged()
    workshop.desk.export_staging(tmp_path / "medium")
    workshop.add("6.6.6", b"evil")
    key = workshop.key("targets-1")
    assert refused(lambda: workshop.desk.sign([key], shown)) is UpdateCode.STAGING_DIFFERS
    exported = ExportedStaging(tmp_path / "medium")
    assert refused(lambda: exported.sign([key], shown[1:])) is UpdateCode.STAGING_DIFFERS
    exported.sign([key], shown)


def test_a_key_does_not_hide_under_the_id_of_another(workshop: Workshop, tmp_path: Path) -> None:
    """python-tuf takes any id; whoever signs reads ids."""
    workshop.desk.rotate_root(RootChange(), "ed25519")
    workshop.desk.export_staging(tmp_path / "medium")
    workshop.new_key("evil")
    evil = workshop.key_set(["evil"], 1).keys[0]
    file = tmp_path / "medium" / "metadata" / "root.json"
    root = json.loads(file.read_bytes())
    root["signed"]["keys"][workshop.keyid("root-1")] = evil.to_dict()
    file.write_text(json.dumps(root))
    staged = ExportedStaging(tmp_path / "medium").staged
    assert refused(staged) is UpdateCode.REPOSITORY_DAMAGED


def test_a_delegation_that_muster_never_makes_is_called_out(
    workshop: Workshop, tmp_path: Path
) -> None:
    workshop.desk.renew()
    workshop.desk.export_staging(tmp_path / "medium")
    file = tmp_path / "medium" / "metadata" / "targets.json"
    targets = json.loads(file.read_bytes())
    by_hash = {"keyids": [], "threshold": 1, "bit_length": 1, "name_prefix": "model-x"}
    targets["signed"]["delegations"] = {"keys": {}, "succinct_roles": by_hash}
    file.write_text(json.dumps(targets))
    (role,) = ExportedStaging(tmp_path / "medium").staged()
    assert any("don't sign" in line for line in role.changes)
