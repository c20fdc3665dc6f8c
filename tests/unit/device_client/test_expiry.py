"""When a certificate counts as expired, and which errors say no more than that."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from broker.protocol.codes import Code
from broker.protocol.messages import Rejected
from broker.protocol.zones import Zone
from device_client.errors import CertificateRefused, DeviceError, RequestRejected, Unreachable
from device_client.expiry import Expiry
from device_client.identity import Identity
from device_client.timekeeping import Timekeeper

NOW = datetime(2026, 6, 1, tzinfo=UTC)
REFUSED = CertificateRefused(Zone.FLEET)
SAID = CertificateRefused(Zone.FLEET, expired=True)


def ends(in_s: float) -> Identity:
    not_after = NOW + timedelta(seconds=in_s)
    return cast(Identity, SimpleNamespace(certificate_sha256=f"{in_s}", not_after=not_after))


def rejected(code: Code) -> DeviceError:
    return RequestRejected(Rejected(request_id=None, code=code, message="", remedy=""))


@pytest.fixture
def keeper(tmp_path: Path) -> Timekeeper:
    return Timekeeper(tmp_path / "clock.json", lambda: NOW, lambda: 0.0)


@pytest.fixture
def expiry(keeper: Timekeeper) -> Expiry:
    return Expiry(keeper)


def test_the_clock_alone_makes_nothing_certain(expiry: Expiry) -> None:
    assert not expiry.is_certain(ends(-60))


def test_the_floor_does(expiry: Expiry, keeper: Timekeeper) -> None:
    keeper.not_before(NOW)
    assert expiry.is_certain(ends(0))
    assert not expiry.is_certain(ends(1))


def test_what_was_heard_counts_until_it_is_doubted_or_there_was_a_success(expiry: Expiry) -> None:
    one, other = ends(60), ends(90)
    assert expiry.hear(one)
    assert not expiry.hear(one)
    assert expiry.is_certain(one)
    assert not expiry.is_certain(other)
    expiry.doubt(one)
    assert not expiry.is_certain(one)
    expiry.hear(one)
    expiry.forget()
    assert not expiry.is_certain(one)


@pytest.mark.parametrize(
    ("error", "in_s", "explained"),
    [
        (SAID, 9e6, True),
        (REFUSED, -1, True),
        (REFUSED, 1, False),
        (rejected(Code.CERTIFICATE_REVOKED), -1, True),
        (rejected(Code.CERTIFICATE_REVOKED), 200, True),
        (rejected(Code.CERTIFICATE_REVOKED), 400, False),
        (rejected(Code.CERTIFICATE_UNKNOWN), -1, False),
        (Unreachable("nobody there"), -1, False),
    ],
)
def test_what_expiry_explains(
    expiry: Expiry, error: DeviceError, in_s: float, explained: bool
) -> None:
    assert expiry.explains(error, ends(in_s)) is explained
