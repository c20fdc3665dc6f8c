"""Reading a group file: what it means, and what is wrong with it, by name."""

from datetime import timedelta

import pytest

from broker.core.keys import KeyType
from broker.core.records import Reprovision, RotationKey, Serials
from broker.services.group_file import DEFAULT_KEYS, MAX_GROUP_FILE, read_group_file
from broker.services.problems import Problem, ProblemCode

LEAST = '[groups.lamps]\ndevice_name = "lamp-{serial}"\nquota = 10\n'


def fault(text: str) -> str:
    with pytest.raises(Problem) as caught:
        read_group_file(text.encode())
    assert caught.value.code is ProblemCode.GROUP_FILE_INVALID
    assert caught.value.remedy
    return str(caught.value)


def test_what_is_left_out_is_the_cautious_choice() -> None:
    (group,) = read_group_file(LEAST.encode())
    assert group.serials is Serials.LISTED
    assert group.reprovision is Reprovision.REFUSE
    assert group.claim_certificates == frozenset()
    assert group.allowed_keys == DEFAULT_KEYS == {KeyType.P256, KeyType.P384, KeyType.ED25519}
    assert group.certificate_lifetime == timedelta(days=90)
    assert group.rotation_key is RotationKey.NEW
    assert group.rotation_grace == timedelta(hours=1)
    assert group.recover_within == timedelta(days=30)


def test_every_field_is_read() -> None:
    text = """
    [groups.thermo]
    claim_certificates = ["batch-1", "batch-2"]
    device_name = "thermo-{model}-{serial}"
    allowed_keys = ["rsa"]
    certificate_lifetime = "12h"
    quota = 7
    serials = "any"
    reprovision = "same-key"
    rotation_key = "same-allowed"
    rotation_grace = "5m"
    recover_within = "52w"
    """
    (group,) = read_group_file(text.encode())
    assert group.name == "thermo"
    assert group.claim_certificates == {"batch-1", "batch-2"}
    assert group.device_name == "thermo-{model}-{serial}"
    assert group.allowed_keys == {KeyType.RSA}
    assert group.certificate_lifetime == timedelta(hours=12)
    assert group.quota == 7
    assert group.serials is Serials.ANY
    assert group.reprovision is Reprovision.SAME_KEY
    assert group.rotation_key is RotationKey.SAME_ALLOWED
    assert group.rotation_grace == timedelta(minutes=5)
    assert group.recover_within == timedelta(days=364)


@pytest.mark.parametrize("nothing", ["0", "0s"])
def test_no_grace_and_no_recovery_can_be_said(nothing: str) -> None:
    text = f'{LEAST}rotation_grace = "{nothing}"\nrecover_within = "{nothing}"\n'
    (group,) = read_group_file(text.encode())
    assert group.rotation_grace == group.recover_within == timedelta()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('alowed_keys = ["p256"]', ["groups.lamps", "alowed_keys", "did you mean allowed_keys"]),
        ("colour = 1", ["groups.lamps", "colour", "the fields are"]),
        ('allowed_keys = ["dsa"]', ["groups.lamps.allowed_keys", "dsa"]),
        ("allowed_keys = []", ["groups.lamps.allowed_keys"]),
        ('serials = "some"', ["groups.lamps.serials", "some"]),
        ('reprovision = "always"', ["groups.lamps.reprovision", "always"]),
        ('claim_certificates = ["a b"]', ["groups.lamps.claim_certificates"]),
        ('claim_certificates = "batch-1"', ["groups.lamps.claim_certificates"]),
        ('certificate_lifetime = "soon"', ["lamps", "certificate_lifetime", "90d"]),
        ('certificate_lifetime = "9999d"', ["lamps", "certificate_lifetime", "3650d"]),
        ('certificate_lifetime = "0"', ["lamps", "certificate_lifetime", "90d"]),
        ('rotation_grace = "31d"', ["groups.lamps.rotation_grace", "30d"]),
        ('recover_within = "ever"', ["groups.lamps.recover_within", "90d"]),
        ('rotation_key = "same"', ["groups.lamps.rotation_key", "same"]),
    ],
)
def test_a_fault_is_named_with_its_place(line: str, words: list[str]) -> None:
    said = fault(LEAST + line)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["groups"]),
        ("[groups]", ["groups"]),
        ("groups = 3", ["groups"]),
        ("[group.lamps]\nquota = 1", ["group", "groups"]),
        ("[groups.lamps]\nquota = 1", ["device_name"]),
        ('[groups.lamps]\ndevice_name = "l-{serial}"', ["quota"]),
        ('[groups.lamps]\ndevice_name = "l-{serial}"\nquota = -1', ["quota"]),
        ('[groups.lamps]\ndevice_name = "l-{serial}"\nquota = "9"', ["quota"]),
        ('[groups.lamps]\ndevice_name = "same"\nquota = 1', ["device_name", "{serial}"]),
        ('[groups."a b"]\ndevice_name = "l-{serial}"\nquota = 1', ["groups"]),
        ("[groups.lamps", ["isn't TOML"]),
    ],
)
def test_a_file_that_is_no_group_file_is_refused(text: str, words: list[str]) -> None:
    said = fault(text)
    for word in words:
        assert word in said


def test_a_claim_certificate_is_in_one_group_only() -> None:
    text = LEAST + 'claim_certificates = ["b"]\n'
    said = fault(text + text.replace("lamps", "more"))
    assert "b is listed in groups lamps and more" in said


def test_what_is_too_large_is_refused_before_it_is_parsed() -> None:
    assert "bytes" in fault("#" * (MAX_GROUP_FILE + 1))


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        read_group_file(LEAST.encode() + b"# \xff")
    assert caught.value.code is ProblemCode.GROUP_FILE_INVALID
