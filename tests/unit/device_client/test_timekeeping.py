"""The floor rises and never falls; a clock is corrected until it's set."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from device_client.timekeeping import RELEASED, Standing, Timekeeper
from device_client.validity import leads_to
from tests.support.pki import Authority

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Clocks:
    """A calendar clock and a monotonic one, both set by the test."""

    def __init__(self, reads: datetime = NOW) -> None:
        self.reads = reads
        self.elapsed_s = 0.0

    def go_on(self, by: timedelta) -> None:
        """Time passes."""
        self.reads += by
        self.elapsed_s += by.total_seconds()

    def keeper(self, folder: Path) -> Timekeeper:
        """As after a start of the program."""
        keeper = Timekeeper(folder / "clock.json", lambda: self.reads, lambda: self.elapsed_s)
        keeper.load()
        return keeper


def test_a_clock_that_nothing_contradicts_is_believed(tmp_path: Path) -> None:
    keeper = Clocks().keeper(tmp_path)
    assert (keeper.now(), keeper.standing()) == (NOW, Standing.BELIEVED)
    assert keeper.floor() == RELEASED


def test_a_clock_behind_the_floor_is_replaced_by_it_and_the_floor_goes_on(tmp_path: Path) -> None:
    clocks = Clocks(datetime(1970, 1, 1, tzinfo=UTC))
    keeper = clocks.keeper(tmp_path)
    keeper.not_before(NOW)
    clocks.go_on(DAY)
    assert (keeper.now(), keeper.standing()) == (NOW + DAY, Standing.BEHIND)


def test_the_floor_never_falls(tmp_path: Path) -> None:
    keeper = Clocks().keeper(tmp_path)
    keeper.not_before(NOW + DAY)
    keeper.not_before(NOW - DAY)
    assert keeper.floor() == NOW + DAY


def test_the_floor_is_kept_at_most_a_day_behind(tmp_path: Path) -> None:
    clocks = Clocks(datetime(1970, 1, 1, tzinfo=UTC))
    keeper = clocks.keeper(tmp_path)
    keeper.not_before(NOW)
    keeper.save()
    written = (tmp_path / "clock.json").read_bytes()
    clocks.go_on(DAY / 2)
    keeper.save()
    assert (tmp_path / "clock.json").read_bytes() == written
    clocks.go_on(DAY)
    keeper.save()
    again = Clocks(datetime(1970, 1, 1, tzinfo=UTC)).keeper(tmp_path)
    assert again.now() == NOW + 1.5 * DAY


def test_a_clock_ahead_is_corrected_also_after_a_restart(tmp_path: Path) -> None:
    clocks = Clocks(NOW + 1000 * DAY)
    keeper = clocks.keeper(tmp_path)
    keeper.proven(NOW)
    keeper.save()
    clocks.go_on(DAY)
    assert (keeper.now(), keeper.standing()) == (NOW + DAY, Standing.AHEAD)
    again = clocks.keeper(tmp_path)
    assert (again.now(), again.standing()) == (NOW + DAY, Standing.AHEAD)


def test_a_correction_ends_for_good_when_the_clock_is_set(tmp_path: Path) -> None:
    clocks = Clocks(NOW + 1000 * DAY)
    keeper = clocks.keeper(tmp_path)
    keeper.proven(NOW)
    keeper.save()
    clocks.reads = NOW + DAY
    assert (keeper.now(), keeper.standing()) == (NOW + DAY, Standing.BELIEVED)
    keeper.save()
    clocks.reads = NOW + 1001 * DAY
    assert clocks.keeper(tmp_path).standing() is Standing.BELIEVED


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"floor": "yesterday"}'])
def test_a_damaged_file_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clock.json").write_bytes(content)
    assert Clocks().keeper(tmp_path).floor() == RELEASED


def test_a_certificate_proves_no_time_beyond_its_issuer_s_end() -> None:
    """Else a stolen operational key could put a device's floor out of everybody's reach."""
    root = Authority("root", None)
    operational = Authority("operational", 0, root)
    end = operational.certificate.not_valid_after_utc

    def chain(leaf: x509.Certificate) -> str:
        return _pem(leaf) + _pem(operational.certificate)

    left = (end - datetime.now(UTC)) / DAY
    inside, _ = operational.issue("lamp-1", days=(left - 1, left + 9))
    beyond, _ = operational.issue("lamp-1", days=(left + 1, left + 9))
    assert leads_to(chain(inside), _pem(root.certificate))
    assert not leads_to(chain(beyond), _pem(root.certificate))
    assert not leads_to(chain(inside), _pem(Authority("root", None).certificate))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")
