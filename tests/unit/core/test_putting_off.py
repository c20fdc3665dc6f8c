"""Who is put off hears of it once, and again before it would give up."""

from broker.core.putting_off import OncePerWait, PutOff
from broker.protocol.codes import Code


def test_a_client_is_told_once_in_its_wait() -> None:
    told = OncePerWait()
    assert told.is_due("a", 5.0, 100.0)
    assert not told.is_due("a", 4.0, 101.0)
    assert not told.is_due("a", 1.0, 104.9)
    assert told.is_due("a", 5.0, 105.0)
    assert not told.is_due("a", 5.0, 109.9)


def test_one_that_was_told_keeps_no_answer_from_another() -> None:
    told = OncePerWait()
    assert told.is_due("a", 5.0, 0.0)
    assert told.is_due("b", 5.0, 0.0)


def test_who_repeats_its_request_is_told_again_however_long_it_has_to_wait() -> None:
    told = OncePerWait()
    assert told.is_due("a", 3600.0, 0.0)
    assert not told.is_due("a", 3599.0, 1.0)
    assert told.is_due("a", 3590.0, 10.0), "the first answer may have got lost"


def test_of_more_than_are_remembered_the_oldest_is_told_again() -> None:
    told = OncePerWait(max_keys=2)
    assert [told.is_due(key, 5.0, 0.0) for key in ("a", "b", "c")] == [True] * 3
    assert len(told) == 2
    assert told.is_due("a", 5.0, 0.0)
    assert not told.is_due("c", 5.0, 0.0)


def test_whoever_is_put_off_is_told_whole_seconds() -> None:
    put_off = PutOff(1.2, is_told=True)
    assert (put_off.code, put_off.retry_after_s) == (Code.RATE_LIMITED, 2)
