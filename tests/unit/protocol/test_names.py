"""What may be a name, and what may be issued."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.names import (
    FINGERPRINT_PATTERN,
    SERIAL_NUMBER_PATTERN,
    is_issuable,
    is_name,
)

NAMES = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")


@given(NAMES)
def test_letters_digits_underscore_and_hyphen_make_a_name(text: str) -> None:
    assert is_name(text)


@given(NAMES, st.sampled_from(list("/+#$. \n\r\t\0:é🙂{}\"'\\")), st.integers(0, 63))
def test_one_foreign_character_spoils_a_name(name: str, foreign: str, at: int) -> None:
    assert not is_name(name[:at] + foreign + name[at + 1 :])


@pytest.mark.parametrize("text", ["", "a" * 65, "a\n", "\n", "a/b", "é", "\u0660"])
def test_not_a_name(text: str) -> None:
    assert not is_name(text)
    assert not is_issuable(text)


@pytest.mark.parametrize("text", ["muster-x", "Muster-service-claim", "MUSTER-", "muster-"])
def test_the_service_s_own_names_are_issued_to_nobody(text: str) -> None:
    assert is_name(text)
    assert not is_issuable(text)


@pytest.mark.parametrize("text", ["muster", "musterx", "lamp-muster-1", "m", "a" * 64])
def test_names_that_only_look_like_the_service_s_are_issuable(text: str) -> None:
    assert is_issuable(text)


@given(st.text())
def test_a_name_is_safe_in_a_topic(text: str) -> None:
    if is_name(text):
        assert not set(text) & set("/+#$\0\n")


@pytest.mark.parametrize("text", ["a\n", "", "x/y", "a" * 65, "ä", "a b"])
def test_not_a_serial_number(text: str) -> None:
    assert re.match(SERIAL_NUMBER_PATTERN, text) is None


@pytest.mark.parametrize("text", ["SN:00.1-2_3", "0", "a" * 64])
def test_a_serial_number(text: str) -> None:
    assert re.match(SERIAL_NUMBER_PATTERN, text)


@pytest.mark.parametrize("text", ["A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "g" * 64])
def test_not_a_fingerprint(text: str) -> None:
    assert re.match(FINGERPRINT_PATTERN, text) is None
