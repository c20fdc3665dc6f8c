"""Real handshakes whose dates and clocks disagree: what is let pass, and what never is."""

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.protocol.messages import TrustBundle
from device_client.errors import DeviceError, ServerNotTrusted, Unreachable
from device_client.timekeeping import Timekeeper
from tests.support.certificates import Certificates
from tests.support.device_agents import QUICK, device, utc_now
from tests.support.strange_clocks import Clock, in_2100, reads, since_1970
from tests.support.strange_server import StrangeServer

HASTY = dataclasses.replace(QUICK, connect_s=0.5)
DAY = timedelta(days=1)


def right() -> Clock:
    return utc_now


async def tries(
    place: Path,
    server: StrangeServer,
    clock: Clock = utc_now,
    host: str = "localhost",
    root: str | None = None,
    trust: TrustBundle | None = None,
) -> DeviceError:
    """What becomes of one try to claim at that server, which says nothing."""
    async with server.listening() as port:
        bundle = server.bundle(host, port, root)
        bundle = dataclasses.replace(bundle, trust_bundle=trust or bundle.trust_bundle)
        with (
            device(place / "state", bundle, timing=HASTY, clock=clock) as (agent, _),
            pytest.raises(DeviceError) as caught,
        ):
            await agent.claim(60, wait=False)
    return caught.value


async def test_a_certificate_that_begins_tomorrow_proves_the_clock_behind(tmp_path: Path) -> None:
    """OpenSSL refuses it at first."""
    server = StrangeServer(tmp_path, days=(1, 30))
    error = await tries(tmp_path, server)
    assert isinstance(error, Unreachable)
    assert server.met == 1
    assert server.heard


@pytest.mark.parametrize("clock", [since_1970, in_2100, right])
async def test_by_another_name_with_any_clock(tmp_path: Path, clock: Callable[[], Clock]) -> None:
    server = StrangeServer(tmp_path, days=(1, 30))
    error = await tries(tmp_path, server, clock(), host="127.0.0.1", root=a_root(tmp_path))
    assert isinstance(error, ServerNotTrusted)
    assert "mismatch" in str(error)
    assert (server.met, server.heard) == (0, b"")


@pytest.mark.parametrize("clock", [since_1970, in_2100, right])
async def test_of_another_installation_with_any_clock(
    tmp_path: Path, clock: Callable[[], Clock]
) -> None:
    server, foreign = StrangeServer(tmp_path, days=(1, 30)), tmp_path / "foreign"
    foreign.mkdir()
    home = (await asyncio.to_thread(Certificates, foreign)).home
    trust = TrustBundle(
        version=1, anchors=home.server_anchors.read_text(), root=home.root.certificate.read_text()
    )
    error = await tries(tmp_path, server, clock(), trust=trust)
    assert isinstance(error, ServerNotTrusted)
    assert (server.met, server.heard) == (0, b"")


async def test_over_by_the_floor_and_good_by_the_clock(tmp_path: Path) -> None:
    """As when somebody has set the clock back to when a stolen key was good."""
    server = StrangeServer(tmp_path, days=(-3, -1.5))
    timekeeper = Timekeeper(tmp_path / "state" / "clock.json", utc_now)
    timekeeper.not_before(utc_now() - DAY)
    (tmp_path / "state").mkdir(mode=0o700)
    timekeeper.save()
    error = await tries(tmp_path, server, reads(utc_now() - 1.7 * DAY), root=a_root(tmp_path))
    assert isinstance(error, ServerNotTrusted)
    assert "expired" in str(error)
    assert server.heard == b""


async def test_over_by_a_clock_that_nothing_contradicts(tmp_path: Path) -> None:
    """Without a root there is no proof; with one, it's asked for, and nothing else is believed."""
    server = StrangeServer(tmp_path, days=(-3, -1))
    assert isinstance(await tries(tmp_path, server), ServerNotTrusted)
    assert (server.met, server.heard) == (0, b"")
    error = await tries(tmp_path, server, root=a_root(tmp_path))
    assert isinstance(error, Unreachable)
    assert server.met == 1


def a_root(place: Path) -> str:
    folder = place / "rooted"
    if not folder.exists():
        folder.mkdir()
        Certificates(folder)
    return (folder / "home" / "ca" / "root.crt").read_text()
