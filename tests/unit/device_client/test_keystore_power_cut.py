"""The power is cut after every single step; what wasn't synced is there or not."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest

from broker.protocol.messages import EnrollAccepted
from device_client import keystore
from tests.support import device_claims
from tests.support.device_claims import Service, assert_settled, assert_tidy
from tests.support.disk_model import ALL_DEPTHS, Disk, Luck, Step, Tree, lay_down, recorded

DEPTHS = range(4)  # the parent of the state directory, itself, the slots, one slot
LUCKS = [
    Luck(frozenset(names), share)
    for count in range(len(DEPTHS) + 1)
    for names in combinations(DEPTHS, count)
    for share in (0, 0.5, 1)
]
Scenario = Callable[[Path, Service], object]


@pytest.fixture(autouse=True)
def without_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model knows what is synced; the real disk needn't be waited for."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


class Watching(Service):
    """Notes how many steps were done when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.asked_after: list[int] = []

    def enroll(self, csr_pem: str) -> EnrollAccepted:
        self.asked_after.append(len(self.steps))
        return super().enroll(csr_pem)


@dataclass(frozen=True)
class Cut:
    """What one cut leaves, and which keys the service had seen by then."""

    what: str
    tree: Tree
    seen: tuple[str, ...]


def cuts(place: Path, service: Watching, scenarios: Sequence[Scenario]) -> Iterator[Cut]:
    """Every state that a cut during the last scenario may leave, each once."""
    place.mkdir()
    begin = 0
    with recorded(place) as recording:
        service.steps = recording.steps
        for scenario in scenarios:
            begin = len(recording.steps)
            scenario(place / "state", service)
    asked = list(zip(service.seen, service.asked_after, strict=True))
    known = set()
    for count in range(begin, len(recording.steps) + 1):
        disk = Disk(recording.steps[:count])
        seen = tuple(key for key, after in asked if after <= count)
        for luck in LUCKS:
            tree = disk.left(luck)
            if (tree, seen) not in known:
                known.add((tree, seen))
                yield Cut(f"after {recording.steps[:count][-1:]} with {luck}", tree, seen)


@contextmanager
def laid_down(place: Path, cut: Cut) -> Iterator[Path]:
    """The state directory that the cut left."""
    lay_down(place, cut.tree)
    try:
        yield place / "state"
    except Exception as error:
        raise AssertionError(cut.what) from error
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize(
    "again", [None, device_claims.claim_again, device_claims.discard], ids=["first", "again", "new"]
)
def test_every_cut_ends_with_the_one_identity(tmp_path: Path, again: Scenario | None) -> None:
    service = Watching()
    scenarios = [device_claims.claim, *([again] if again else [])]
    left = list(cuts(tmp_path / "recorded", service, scenarios))
    assert len(left) > 30
    for cut in left:
        service.seen = list(cut.seen)
        with laid_down(tmp_path / "cut", cut) as state:
            assert_settled(state, service, device_claims.claim(state, service))


def test_a_member_never_loses_its_identity(tmp_path: Path) -> None:
    scenarios = [device_claims.claim, device_claims.claim_again]
    for cut in cuts(tmp_path / "recorded", Watching(), scenarios):
        with laid_down(tmp_path / "cut", cut) as state, keystore.opened(state) as store:
            assert store.current() is not None


def test_a_renewal_is_cut_and_carried_on_with_the_same_key(tmp_path: Path) -> None:
    """Never without a proven identity, and the service never sees a third key."""
    service = Watching()
    left = list(cuts(tmp_path / "recorded", service, [device_claims.claim, device_claims.renew]))
    assert len(left) > 30
    for cut in left:
        service.seen = list(cut.seen)
        with laid_down(tmp_path / "cut", cut) as state:
            with keystore.opened(state) as store:
                current = store.current()
                assert current is not None
                assert current.confirmed_at is not None
                is_old = current.key_sha256 == cut.seen[0]
            if is_old:
                device_claims.renew(state, service)
            with keystore.opened(state) as store:
                renewed = store.current()
            assert renewed is not None
            assert set(service.seen) == {cut.seen[0], renewed.key_sha256}
            assert renewed.key_sha256 != cut.seen[0]
            assert_tidy(state, renewed)


def test_giving_a_successor_up_is_cut(tmp_path: Path) -> None:
    service = Watching()
    scenarios = [device_claims.claim, device_claims.give_up]
    for cut in cuts(tmp_path / "recorded", service, scenarios):
        with laid_down(tmp_path / "cut", cut) as state, keystore.opened(state) as store:
            current = store.current()
            assert current is not None
            assert current.key_sha256 == cut.seen[0]
            successor = store.succession.successor()
            assert successor is None or successor.key_sha256 == cut.seen[1]


def test_the_model_tells_what_is_not_certain(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        descriptor = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, b"content")
        os.close(descriptor)
        (tmp_path / "new").replace(tmp_path / "file")
    disk = Disk(recording.steps)
    assert disk.left(Luck(ALL_DEPTHS, share=1)) == (("file", b"content"),)
    assert disk.left(Luck(ALL_DEPTHS, share=0)) == (("file", b""),)
    assert disk.left(Luck(frozenset(), share=1)) == ()
