"""What lapses is told in time, and not all the time."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.core.findings import Level
from broker.operating.updating import update_repository
from broker.services.update_warnings import UpdateWarnings
from tests.support.update_workshop import make_workshop

START = datetime.now(UTC)


@dataclass
class Hand:
    """A clock that is set by hand."""

    at: datetime = field(default=START)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0


async def test_each_role_is_told_once_a_day(tmp_path: Path) -> None:
    clock = Hand()
    warnings = UpdateWarnings(update_repository(make_workshop(tmp_path).home, None), clock)
    assert await warnings.look() == []
    clock.at = START + timedelta(days=2, hours=12)
    (told,) = await warnings.look()
    assert (told.subject, told.level) == ("timestamp", Level.WARNING)
    assert "keys" in told.remedy
    assert await warnings.look() == []
    clock.at += timedelta(days=1)
    (again,) = await warnings.look()
    assert (again.subject, again.level) == ("timestamp", Level.ERROR)


async def test_what_was_mended_is_told_at_once_when_it_lapses_again(tmp_path: Path) -> None:
    clock = Hand(START + timedelta(days=2, hours=12))
    repository = update_repository(make_workshop(tmp_path).home, None)
    warnings = UpdateWarnings(repository, clock)
    assert len(await warnings.look()) == 1
    repository.refresh(clock.at)
    assert await warnings.look() == []


async def test_without_a_repository_there_is_nothing_to_tell(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, publish=False)
    assert await UpdateWarnings(update_repository(workshop.home, None), Hand()).look() == []
