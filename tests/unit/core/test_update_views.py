"""When what is staged could be published."""

from datetime import UTC, datetime

import pytest

from broker.core.update_views import SignatureNeed, StagedRole

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("signed", "threshold", "missing"), [(0, 2, 2), (1, 2, 1), (2, 2, 0), (3, 2, 0)]
)
def test_signatures_that_are_missing(signed: int, threshold: int, missing: int) -> None:
    keys = ("a", "b", "c")
    need = SignatureNeed("root 1", threshold, keys[:signed], keys[signed:])
    assert need.missing == missing


@pytest.mark.parametrize(
    ("signed", "is_complete"), [((), False), ((1,), True), ((0,), False), ((1, 0), False)]
)
def test_a_role_is_complete_when_each_delegator_s_threshold_is_met(
    signed: tuple[int, ...], is_complete: bool
) -> None:
    needs = tuple(SignatureNeed("root 1", 1, ("a",)[:n], ("a",)[n:]) for n in signed)
    assert StagedRole("targets", 2, NOW, needs, ()).is_complete is is_complete
