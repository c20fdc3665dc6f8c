"""A desk with one group open."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.desk import Desk, open_desk
from tests.support.operating import NOW, SetClock
from tests.support.records import a_claim_certificate, a_group


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """The group `lamps` takes A1 to A5 and nobody has claimed yet."""
    async with open_desk(tmp_path) as opened:
        await opened.open_group(
            a_group(), a_claim_certificate(not_before=NOW), "A1", "A2", "A3", "A4", "A5"
        )
        yield opened


@pytest.fixture
def clock() -> SetClock:
    """Stands still until it is set."""
    return SetClock()
