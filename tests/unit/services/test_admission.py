"""How often a certificate and a client are let in, and what they are told otherwise."""

from datetime import timedelta

import pytest

from broker.core.putting_off import PutOff
from broker.core.rate_limit import TokenBuckets
from broker.protocol.codes import Code, Refused
from broker.protocol.names import ClaimName, ClientId, DeviceId
from broker.protocol.topics import ClaimOrigin, DeviceOrigin, Origin
from broker.services.admission import Admission
from tests.support.operating import SetClock


def claimant(client: str, claim: str = "batch-7") -> ClaimOrigin:
    return ClaimOrigin(ClaimName(claim), ClientId(client))


def door(clock: SetClock, certificate_burst: int = 100, client_burst: int = 2) -> Admission:
    return Admission(
        clock,
        per_certificate=TokenBuckets(10.0, certificate_burst),
        per_client=TokenBuckets(0.1, client_burst),
    )


def admitted(admission: Admission, origin: Origin, times: int) -> int:
    """How many of so many requests are let in."""
    count = 0
    for _ in range(times):
        try:
            admission.admit(origin)
        except Refused as refused:
            assert refused.code is Code.RATE_LIMITED  # noqa: PT017 - both outcomes are right
            assert refused.retry_after_s  # noqa: PT017
        else:
            count += 1
    return count


def test_a_client_is_let_in_up_to_its_burst(clock: SetClock) -> None:
    assert admitted(door(clock), claimant("a"), 10) == 2


def test_whoever_is_refused_is_told_whole_seconds_to_wait(clock: SetClock) -> None:
    admission = door(clock)
    admitted(admission, claimant("a"), 2)
    with pytest.raises(Refused) as refused:
        admission.admit(claimant("a"))
    assert refused.value.retry_after_s == 10


def told(admission: Admission, origin: Origin, times: int) -> int:
    """To how many of so many requests it's answered that they are too many."""
    count = 0
    for _ in range(times):
        try:
            admission.admit(origin)
        except PutOff as put_off:
            count += put_off.is_told
    return count


def test_whoever_asks_too_often_is_told_once_a_wait(clock: SetClock) -> None:
    admission = door(clock)
    assert told(admission, claimant("a"), 100) == 1
    assert told(admission, claimant("b"), 100) == 1
    clock.at += timedelta(seconds=9.5)
    assert told(admission, claimant("a"), 100) == 1


def test_a_client_that_hammers_leaves_its_batch_alone(clock: SetClock) -> None:
    admission = door(clock, certificate_burst=10)
    admitted(admission, claimant("a"), 1000)
    assert sum(admitted(admission, claimant(f"b{n}"), 1) for n in range(20)) == 8


def test_a_claim_certificate_s_clients_share_its_allowance(clock: SetClock) -> None:
    admission = door(clock, certificate_burst=5)
    assert sum(admitted(admission, claimant(f"c{n}"), 1) for n in range(20)) == 5
    assert admitted(admission, claimant("c0", claim="batch-8"), 1) == 1


def test_a_device_has_its_own_allowance(clock: SetClock) -> None:
    admission = door(clock)
    assert admitted(admission, DeviceOrigin(DeviceId("lamp-A1")), 10) == 2
    assert admitted(admission, DeviceOrigin(DeviceId("lamp-A2")), 10) == 2


def test_a_device_and_a_claim_certificate_of_one_name_don_t_share_a_bucket(
    clock: SetClock,
) -> None:
    admission = door(clock, certificate_burst=2)
    assert admitted(admission, claimant("c", claim="lamp"), 9) == 2
    assert admitted(admission, DeviceOrigin(DeviceId("lamp")), 9) == 2
    assert admitted(admission, claimant("lamp", claim="d"), 9) == 2


def test_two_pairs_of_names_never_share_a_bucket(clock: SetClock) -> None:
    """`d/x` could be a device called x, or the client x of a claim certificate called d."""
    admission = door(clock)
    assert admitted(admission, claimant("x", claim="d"), 9) == 2
    assert admitted(admission, DeviceOrigin(DeviceId("x")), 9) == 2
