"""How long caches may keep a CRL, what comes when its file changes or is gone, and health."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509

from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.entry.http.application import Shown, application
from broker.entry.http.caching import Content, InPieces
from broker.protocol.zones import Zone
from tests.support.http import ask, served
from tests.support.operating import NOW, SetClock


@dataclass
class Site:
    """The pages on a home's CRLs, with nothing behind the others."""

    home: MusterHome
    clock: SetClock = field(default_factory=SetClock)
    zones: Mapping[Zone, bool] = field(default_factory=lambda: dict.fromkeys(Zone, True))
    port: int = 0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    home = MusterHome(tmp_path / "home")
    create_home(home, hosts=[], passphrase=None, now=NOW)
    site = Site(home)
    nothing = cast(Any, None)
    shown = Shown(
        crl_files={zone: home.crl_file(zone) for zone in Zone},
        status=nothing,
        repository=nothing,
        connected=lambda: site.zones,
        clock=site.clock,
    )
    async with served(application(shown)) as site.port:
        yield site


async def test_caches_keep_a_crl_no_longer_than_it_is_valid(site: Site) -> None:
    answer = await ask(site.port, "/crl/fleet.der")
    ends = x509.load_der_x509_crl(answer.body).next_update_utc
    assert ends is not None
    assert answer.headers["cache-control"] == "public, max-age=60, must-revalidate"
    for left, age in ((61, 60), (30, 30), (0, 0), (-1000, 0)):
        site.clock.at = ends - timedelta(seconds=left)
        answer = await ask(site.port, "/crl/fleet.der")
        assert answer.headers["cache-control"] == f"public, max-age={age}, must-revalidate"


async def test_a_file_that_has_changed_is_read_anew(site: Site) -> None:
    first = await ask(site.port, "/crl/claim.pem")
    file = site.home.crl_file(Zone.CLAIM)
    newer = file.with_suffix(".new")
    newer.write_bytes(site.home.crl_file(Zone.FLEET).read_bytes())
    newer.replace(file)
    second = await ask(site.port, "/crl/claim.pem", {"If-None-Match": first.headers["etag"]})
    assert (second.status, second.body) == (200, file.read_bytes())


async def test_a_large_crl_is_tagged_once_and_handed_over_in_pieces(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = b"\n" * 1_000_000
    file = site.home.crl_file(Zone.FLEET)
    file.write_bytes(file.read_bytes() + blank)
    first = await ask(site.port, "/crl/fleet.pem")
    assert first.body == file.read_bytes()

    def tagged_again(_: bytes) -> Content:
        raise AssertionError("tagged again")

    monkeypatch.setattr(Content, "of", tagged_again)
    again = await ask(site.port, "/crl/fleet.pem")
    assert (again.body, again.headers["etag"]) == (first.body, first.headers["etag"])


@pytest.mark.parametrize("length", [0, 1, 65_536, 65_537, 200_000])
async def test_no_piece_is_large(length: int) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    body = bytes(length)
    await InPieces(body)({"type": "http"}, cast(Any, None), send)
    start, *pieces = sent
    assert (b"content-length", str(length).encode()) in start["headers"]
    assert b"".join(piece["body"] for piece in pieces) == body
    assert max(len(piece["body"]) for piece in pieces) <= 65_536
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN X509 CRL-----\nAA==\n"])
async def test_without_a_whole_crl_there_is_none(site: Site, content: bytes | None) -> None:
    file = site.home.crl_file(Zone.FLEET)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert (await ask(site.port, "/crl/fleet.der")).status == 404


async def test_a_zone_without_its_broker_isn_t_healthy(site: Site) -> None:
    assert (await ask(site.port, "/healthz")).status == 200
    site.zones = {Zone.CLAIM: True, Zone.FLEET: False}
    answer = await ask(site.port, "/healthz")
    assert (answer.status, answer.body) == (503, b'{"claim":true,"fleet":false}')
    assert answer.headers["cache-control"] == "no-store"
