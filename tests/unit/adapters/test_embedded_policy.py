"""Who may publish and read what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.brokers.embedded.policy import Identity, Rights, rights_of
from broker.adapters.brokers.embedded.topics import matches
from broker.protocol.zones import Zone

CLAIM = rights_of(Identity(Zone.CLAIM, "batch", "dev"))
FLEET = rights_of(Identity(Zone.FLEET, "dev", "dev"))
SERVICE = rights_of(Identity(Zone.FLEET, "muster-service-fleet", "muster-service-fleet", True))

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
LEVELS = "muster/v1/claim/device/fleet/batch/dev/other/enroll/accepted/rejected/desired/$SYS"
TREES = st.lists(st.sampled_from(LEVELS.split("/")), min_size=1, max_size=8).map("/".join)
NEAR = st.one_of(
    TREES,
    TREES.map(lambda tail: f"muster/v1/claim/batch/{tail}"),
    TREES.map(lambda tail: f"muster/v1/device/dev/{tail}"),
)


@pytest.mark.parametrize(
    ("rights", "topic"),
    [
        (CLAIM, "muster/v1/claim/batch/dev/enroll"),
        (FLEET, "muster/v1/device/dev/confirm"),
        (SERVICE, "muster/v1/device/dev/confirm/accepted"),
        (SERVICE, "muster/v1/device/dev/desired/x/y"),
        (SERVICE, "muster/v1/fleet/root.json"),
    ],
)
def test_may_publish(rights: Rights, topic: str) -> None:
    assert rights.may_publish(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "muster/v1/claim/batch/other/enroll",
        "muster/v1/claim/other/dev/enroll",
        "muster/v1/claim/batch/dev",
        "muster/v1/claim/batch/dev/",
        "muster/v1/claim/batch/dev/enroll/accepted",
        "muster/v1/claim/batch/dev/+",
        "muster/v1/claim/batch/dev/#",
        "muster/v1/claim/batch/dev/a\0b",
        "muster/v1/claim/batch/dev/desired",
        "muster/v1/device/dev/confirm",
        "$muster/v1/claim/batch/dev/enroll",
        "$SYS/x",
        "",
        "muster/v1/claim/batch/dev/" + "x" * 300,
    ],
)
def test_a_claimant_may_not_publish(topic: str) -> None:
    assert not CLAIM.may_publish(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "muster/v1/device/other/confirm",
        "muster/v1/device/dev",
        "muster/v1/device/dev/desired",
        "muster/v1/device/dev/desired/x",
        "muster/v1/device/dev/confirm/rejected",
        "muster/v1/fleet/x",
        "muster/v1/claim/dev/dev/enroll",
    ],
)
def test_a_device_may_not_publish(topic: str) -> None:
    assert not FLEET.may_publish(topic)


@pytest.mark.parametrize("topic", ["$SYS/x", "other/v1/x", "muster/v2/x", "muster/v1/+", "$aws/x"])
def test_the_service_may_not_publish(topic: str) -> None:
    assert not SERVICE.may_publish(topic)


@pytest.mark.parametrize(
    ("rights", "filter_"),
    [
        (CLAIM, "muster/v1/claim/batch/dev/enroll/accepted"),
        (CLAIM, "muster/v1/claim/batch/dev/+/rejected"),
        (CLAIM, "muster/v1/claim/batch/dev/#"),
        (FLEET, "muster/v1/device/dev/+/accepted"),
        (FLEET, "muster/v1/device/dev/desired/#"),
        (FLEET, "muster/v1/device/dev/desired/+/x"),
        (FLEET, "muster/v1/device/dev/#"),
        (FLEET, "muster/v1/fleet/#"),
        (FLEET, "muster/v1/fleet/tuf/+"),
        (SERVICE, "muster/v1/#"),
        (SERVICE, "muster/v1/device/+/+"),
    ],
)
def test_may_subscribe(rights: Rights, filter_: str) -> None:
    assert rights.may_subscribe(filter_)


@pytest.mark.parametrize(
    ("rights", "filter_"),
    [
        (CLAIM, "#"),
        (CLAIM, "muster/v1/claim/batch/+/enroll/accepted"),
        (CLAIM, "muster/v1/claim/batch/#"),
        (CLAIM, "muster/v1/claim/+/dev/enroll/accepted"),
        (CLAIM, "muster/v1/claim/batch/dev/enroll"),
        (CLAIM, "muster/v1/fleet/#"),
        (CLAIM, "$share/g/muster/v1/claim/batch/dev/#"),
        (FLEET, "muster/v1/device/+/desired/#"),
        (FLEET, "muster/v1/device/#"),
        (FLEET, "muster/v1/device/dev/+/+"),
        (FLEET, "muster/v1/device/other/confirm/accepted"),
        (FLEET, "muster/v1/device/dev/desired/a#"),
        (FLEET, "muster/v1/fleet/" + "x" * 300),
        (SERVICE, "#"),
        (SERVICE, "muster/+/x"),
        (SERVICE, "$SYS/#"),
    ],
)
def test_may_not_subscribe(rights: Rights, filter_: str) -> None:
    assert not rights.may_subscribe(filter_)


def test_only_the_service_retains() -> None:
    assert [rights.may_retain for rights in (CLAIM, FLEET, SERVICE)] == [False, False, True]


@given(NEAR)
def test_devices_never_write_what_devices_read(topic: str) -> None:
    for rights in (CLAIM, FLEET):
        assert not (rights.may_publish(topic) and rights.may_read(topic))


@given(NAMES, NAMES, NAMES, NAMES, st.sampled_from(Zone), NAMES)
def test_nobody_reads_or_writes_for_another(
    name: str, client: str, other: str, other_client: str, zone: Zone, operation: str
) -> None:
    if zone is Zone.FLEET:
        client, other_client = name, other
    if (name, client) == (other, other_client):
        return
    mine = rights_of(Identity(zone, name, client))
    theirs = rights_of(Identity(zone, other, other_client))
    assert theirs.own is not None
    for tail in (operation, f"{operation}/accepted", f"{operation}/rejected", "desired/x"):
        topic = f"{theirs.own}/{tail}"
        assert not mine.may_publish(topic)
        assert not mine.may_read(topic)
        assert not mine.may_subscribe(topic)


@given(NEAR, NEAR)
def test_a_granted_filter_shows_nothing_but_what_may_be_read(filter_: str, topic: str) -> None:
    for rights in (CLAIM, FLEET):
        own = f"{rights.own}/#"
        if rights.may_subscribe(filter_) and filter_ != own and matches(filter_, topic):
            assert rights.may_read(topic)
