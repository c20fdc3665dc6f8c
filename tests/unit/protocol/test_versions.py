"""The order of versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.versions import parse_version

# SemVer 2.0, section 11, with what Muster adds: missing numbers are 0, and a fourth is allowed.
RISING = [
    *("0", "0.0.0.1", "0.1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta"),
    *("1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1-1", "1.0.1-1.1", "1.0.1--"),
    *("1.0.1-a", "1.0.1", "1.2", "1.10", "2", "2.0.0.1", "2026.06", "2026.7"),
]
NUMBERS = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)
IDENTIFIERS = st.lists(st.from_regex(r"\A[0-9A-Za-z-]{1,6}\Z"), max_size=3)
VERSIONS = st.builds(
    lambda numbers, parts: ".".join(map(str, numbers)) + ("-" + ".".join(parts) if parts else ""),
    NUMBERS,
    IDENTIFIERS,
)


@pytest.mark.parametrize("at", range(len(RISING) - 1))
def test_each_comes_before_the_next(at: int) -> None:
    assert parse_version(RISING[at]) < parse_version(RISING[at + 1])


@given(NUMBERS)
def test_missing_numbers_are_zero(numbers: list[int]) -> None:
    short = ".".join(map(str, numbers))
    full = ".".join(map(str, [*numbers, 0, 0, 0, 0][:4]))
    assert parse_version(short) == parse_version(full)


@given(VERSIONS)
def test_a_pre_release_comes_before_its_release(text: str) -> None:
    release = text.split("-", 1)[0]
    assert (parse_version(text) < parse_version(release)) == ("-" in text)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_total(a: str, b: str, c: str) -> None:
    first, second, third = sorted(map(parse_version, (a, b, c)))
    assert first <= second <= third
    assert first <= third
    assert (first < second) + (first == second) + (first > second) == 1


@given(VERSIONS, st.from_regex(r"\A[0-9A-Za-z-]{1,6}\Z"))
def test_more_identifiers_come_later(text: str, more: str) -> None:
    if "-" in text:
        assert parse_version(text) < parse_version(f"{text}.{more}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "v1", "1.", ".1", "1.2.3.4.5", "1-", "1-a..b", "1-a.", "1+b", "1 ", "1\n", "-1"),
        *("\u0661", "1." + "0" * 63),
    ],
)
def test_not_a_version(text: str) -> None:
    with pytest.raises(ValueError, match="isn't a version"):
        parse_version(text)
