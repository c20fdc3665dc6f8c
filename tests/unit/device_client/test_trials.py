"""Which of two identities is tried, and when the newer one is given up."""

from typing import cast

from broker.protocol.codes import Code
from broker.protocol.messages import Rejected
from broker.protocol.zones import Zone
from device_client.errors import CertificateRefused, RequestRejected, Unreachable
from device_client.identity import Identity
from device_client.retry import TRIES_BEFORE_DOUBT
from device_client.trials import Trials

OLD, NEW = cast(Identity, "old"), cast(Identity, "new")
REFUSED = CertificateRefused(Zone.FLEET)
SILENT = Unreachable("nobody there")


def rejected(code: Code) -> RequestRejected:
    return RequestRejected(Rejected(request_id=None, code=code, message="", remedy=""))


def test_the_successor_comes_first_and_then_they_take_turns() -> None:
    trials = Trials()
    assert trials.choose(OLD, NEW, False) == NEW
    assert not trials.successor_failed(SILENT, False)
    assert trials.choose(OLD, NEW, False) == OLD
    trials.current_failed(SILENT)
    assert trials.choose(OLD, NEW, False) == NEW


def test_one_that_is_over_gets_no_turn() -> None:
    trials = Trials()
    trials.successor_failed(SILENT, True)
    assert trials.choose(OLD, NEW, True) == NEW


def test_what_the_service_disowns_is_given_up() -> None:
    assert Trials().successor_failed(rejected(Code.CERTIFICATE_REVOKED), False)
    assert Trials().successor_failed(rejected(Code.CERTIFICATE_UNKNOWN), False)
    assert not Trials().successor_failed(rejected(Code.BUSY), False)


def test_refused_again_and_again_while_the_old_one_works() -> None:
    trials = Trials()
    for _ in range(TRIES_BEFORE_DOUBT):
        assert not trials.current_works()
        assert not trials.successor_failed(REFUSED, False)
        trials.again()
    assert trials.current_works()


def test_a_broker_that_refuses_both_says_nothing() -> None:
    trials = Trials()
    for _ in range(TRIES_BEFORE_DOUBT):
        trials.successor_failed(REFUSED, False)
        trials.current_failed(REFUSED)
    assert not trials.current_works()


def test_with_nothing_to_go_back_to_refusals_alone_count() -> None:
    trials = Trials()
    given_up = [trials.successor_failed(REFUSED, True) for _ in range(TRIES_BEFORE_DOUBT)]
    assert given_up == [False] * (TRIES_BEFORE_DOUBT - 1) + [True]


def test_another_successor_begins_anew() -> None:
    trials = Trials()
    for _ in range(TRIES_BEFORE_DOUBT):
        trials.successor_failed(REFUSED, False)
    assert trials.choose(OLD, None, False) == OLD
    assert trials.choose(OLD, NEW, False) == NEW
    assert not trials.current_works()
