"""Topics: there and back, and nothing else gets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol import limits, topics
from broker.protocol.codes import Code, Refused
from broker.protocol.names import ClaimName, ClientId, DeviceId, is_name
from broker.protocol.topics import ClaimOrigin, DeviceOrigin, Operation, Outcome, Request

NAMES = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
PARTS = st.one_of(
    NAMES,
    st.text(max_size=8),
    st.sampled_from(["", "+", "#", "$SYS", "muster", "v1", "claim", "device", "enroll", ".."]),
)


def mqtt_matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription without `#` covers a topic (MQTT 3.1.1, 4.7.1)."""
    wanted, given_ = topic_filter.split("/"), topic.split("/")
    return len(wanted) == len(given_) and all(
        w in ("+", g) for w, g in zip(wanted, given_, strict=True)
    )


@given(NAMES, NAMES, st.sampled_from(Operation))
def test_a_claimant_s_topic_round_trips(claim: str, client: str, operation: Operation) -> None:
    origin = ClaimOrigin(ClaimName(claim), ClientId(client))
    topic = topics.claim_topic(origin, operation)
    assert topics.parse_request(topic) == Request(origin, operation)
    assert mqtt_matches(topics.CLAIM_REQUESTS, topic)
    assert not mqtt_matches(topics.DEVICE_REQUESTS, topic)


@given(NAMES, st.sampled_from(Operation))
def test_a_device_s_topic_round_trips(device: str, operation: Operation) -> None:
    origin = DeviceOrigin(DeviceId(device))
    topic = topics.device_topic(origin, operation)
    assert topics.parse_request(topic) == Request(origin, operation)
    assert mqtt_matches(topics.DEVICE_REQUESTS, topic)
    assert not mqtt_matches(topics.CLAIM_REQUESTS, topic)


@given(NAMES, NAMES, st.sampled_from(Operation), st.sampled_from(Outcome))
def test_an_answer_is_never_taken_for_a_request(
    claim: str, client: str, operation: Operation, outcome: Outcome
) -> None:
    """The service subscribes to requests only, so it can't come to answer itself."""
    origins = (
        topics.claim_topic(ClaimOrigin(ClaimName(claim), ClientId(client)), operation),
        topics.device_topic(DeviceOrigin(DeviceId(claim)), operation),
    )
    for topic in origins:
        answer = topics.answer_topic(topic, outcome)
        assert not mqtt_matches(topics.CLAIM_REQUESTS, answer)
        assert not mqtt_matches(topics.DEVICE_REQUESTS, answer)
        with pytest.raises(Refused):
            topics.parse_request(answer)


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_origins_never_share_a_topic(a: str, b: str, c: str, d: str) -> None:
    first = topics.claim_topic(ClaimOrigin(ClaimName(a), ClientId(b)), Operation.ENROLL)
    second = topics.claim_topic(ClaimOrigin(ClaimName(c), ClientId(d)), Operation.ENROLL)
    assert (first == second) == ((a, b) == (c, d))


@given(st.lists(PARTS, max_size=9).map("/".join))
def test_any_topic_is_parsed_whole_or_refused(topic: str) -> None:
    try:
        request = topics.parse_request(topic)
    except Refused as refused:
        assert refused.code is Code.ORIGIN_INVALID  # noqa: PT017 - both outcomes are right
        return
    match request.origin:
        case ClaimOrigin(claim, client):
            assert topic == f"muster/v1/claim/{claim}/{client}/{request.operation}"
            assert is_name(claim)
            assert is_name(client)
        case DeviceOrigin(device):
            assert topic == f"muster/v1/device/{device}/{request.operation}"
            assert is_name(device)
    assert is_name(request.operation)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "muster",
        "muster/v1",
        "muster/v1/claim",
        "muster/v1/claim/batch/lamp",
        "muster/v1/claim/batch/lamp/enroll/",
        "muster/v1/claim/batch/lamp/enroll/accepted",
        "muster/v1/claim//lamp/enroll",
        "muster/v1/claim/batch//enroll",
        "muster/v1/claim/+/lamp/enroll",
        "muster/v1/claim/batch/#/enroll",
        "muster/v1/claim/batch/lamp/enroll\n",
        "muster/v1/claim/batch/lamp\0/enroll",
        "muster/v2/claim/batch/lamp/enroll",
        "Muster/v1/claim/batch/lamp/enroll",
        "/muster/v1/claim/batch/lamp/enroll",
        "muster/v1/device/lamp",
        "muster/v1/device/lamp/confirm/accepted",
        "muster/v1/device/../confirm",
        "muster/v1/other/lamp/confirm",
        "$SYS/muster/v1/device/lamp/confirm",
    ],
)
def test_hostile_topics_are_refused(topic: str) -> None:
    with pytest.raises(Refused) as refused:
        topics.parse_request(topic)
    assert refused.value.code is Code.ORIGIN_INVALID


def test_the_longest_topic_is_within_the_limit_and_longer_ones_are_not_looked_at() -> None:
    name = "x" * 64
    longest = topics.claim_topic(ClaimOrigin(ClaimName(name), ClientId(name)), Operation.CONFIRM)
    assert len(topics.answer_topic(longest, Outcome.ACCEPTED)) <= limits.MAX_TOPIC
    assert topics.parse_request(longest).operation == Operation.CONFIRM
    with pytest.raises(Refused):
        topics.parse_request("muster/v1/device/x/" + "y" * limits.MAX_TOPIC)
