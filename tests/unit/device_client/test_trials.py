"""Which of two identities is tried, and when the newer one is given up."""

from typing import cast

from broker.protocol.zones import Zone
from device_client.errors import CertificateRefused, Unreachable
from device_client.identity import Identity
from device_client.retry import TRIES_BEFORE_DOUBT
from device_client.trials import Trials

OLD, NEW = cast(Identity, "old"), cast(Identity, "new")
REFUSED = CertificateRefused(Zone.FLEET)
SILENT = Unreachable("nobody there")


def refused_for_good() -> Trials:
    trials = Trials()
    for _ in range(TRIES_BEFORE_DOUBT):
        trials.successor_failed(REFUSED)
    return trials


def test_the_successor_comes_first_and_then_they_take_turns() -> None:
    trials = Trials()
    assert trials.choose(OLD, NEW, []) == NEW
    trials.successor_failed(SILENT)
    assert trials.choose(OLD, NEW, []) == OLD
    trials.current_failed(SILENT)
    assert trials.choose(OLD, NEW, []) == NEW


def test_one_that_is_over_waits_while_the_fleet_is_silent_to_its_successor() -> None:
    """Its recovery would take the place of a successor that may work in a moment."""
    trials = Trials()
    for _ in range(2 * TRIES_BEFORE_DOUBT):
        assert trials.choose(OLD, NEW, [OLD]) == NEW
        trials.successor_failed(SILENT)


def test_one_that_is_over_recovers_when_its_successor_is_refused_for_good() -> None:
    trials = refused_for_good()
    assert trials.choose(OLD, NEW, [OLD]) == OLD
    trials.recovering(current_is_over=True)
    assert trials.choose(OLD, NEW, [OLD]) == NEW, "the fleet is asked again before the next"


def test_with_both_over_it_begins_with_the_successor_however_often_it_was_refused() -> None:
    """The service may have seen it proven, and then takes no other."""
    assert Trials().choose(OLD, NEW, [NEW, OLD]) == NEW
    assert refused_for_good().choose(OLD, NEW, [NEW, OLD]) == NEW


def test_a_successor_that_is_over_takes_turns_with_one_that_is_good() -> None:
    trials = Trials()
    assert trials.choose(OLD, NEW, [NEW]) == NEW
    trials.recovering(current_is_over=False)
    assert trials.choose(OLD, NEW, [NEW]) == OLD
    trials.current_failed(SILENT)
    assert trials.choose(OLD, NEW, [NEW]) == NEW


def test_what_may_not_recover_is_given_up_once_the_old_one_works() -> None:
    trials = Trials()
    trials.recovering(current_is_over=False)
    assert not trials.current_works(), "nobody has answered yet"
    trials.recovery_refused()
    assert trials.choose(OLD, NEW, [NEW]) == OLD
    assert trials.current_works()


def test_refused_again_and_again_while_the_old_one_works() -> None:
    trials = Trials()
    for _ in range(TRIES_BEFORE_DOUBT):
        assert not trials.current_works()
        trials.successor_failed(REFUSED)
        trials.again()
    assert trials.current_works()


def test_a_broker_that_refuses_both_says_nothing() -> None:
    trials = Trials()
    for _ in range(TRIES_BEFORE_DOUBT):
        trials.successor_failed(REFUSED)
        trials.current_failed(REFUSED)
    assert not trials.current_works()


def test_another_successor_begins_anew() -> None:
    trials = refused_for_good()
    assert trials.choose(OLD, None, []) == OLD
    assert trials.choose(OLD, NEW, []) == NEW
    assert not trials.current_works()
