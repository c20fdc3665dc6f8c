"""Whom a device asks for images: nobody but those whom its maker named."""

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from broker.protocol.updates import BlockAccepted, BlockRequest
from device_client.errors import ArgumentInvalid
from device_client.fetch.errors import ImageUnavailable, SourceNotAllowed
from device_client.fetch.hosts import check_host
from device_client.fetch.plan import fetch
from device_client.update import config
from device_client.update.codes import UpdateCode
from device_client.update.config import DeviceConfig
from device_client.update.fetching import allowed_hosts
from tests.support.hostile_http import answers, honest, hostile
from tests.support.sinks import MemorySink, quick, target_of

IMAGE = bytes(range(256)) * 100


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("cdn.example.com", "cdn.example.com"),
        ("CDN.example.COM.", "cdn.Example.com"),
        ("eu.cdn.example.com", "*.example.com"),
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:db8::1]", "2001:DB8::1"),
    ],
)
def test_named(host: str, allowed: str) -> None:
    check_host(urlsplit(f"https://{host}:8443/image"), ("other.example", allowed))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.com", "*.example.com"),
        ("evilexample.com", "*.example.com"),
        ("cdn.example.com.evil.net", "cdn.example.com"),
        ("cdn.example.com", "example.com"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("192.168.0.1", "cdn.example.com"),
        ("192.168.0.1\0.example.com", "*.example.com"),  # the resolver reads up to the NUL
        ("192.168.0.1 .example.com", "*.example.com"),
        ("[fe80::1%25.example.com]", "*.example.com"),
    ],
)
def test_not_named(host: str, allowed: str) -> None:
    with pytest.raises(SourceNotAllowed) as caught:
        check_host(urlsplit(f"http://{host}/image"), (allowed,))
    assert caught.value.stable_code == UpdateCode.SOURCE_NOT_ALLOWED


async def test_a_stolen_director_has_nobody_asked_in_the_device_s_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even DNS."""
    asked: list[object] = []

    def look_up(host: object, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        raise OSError("looked up")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    inside = ("http://192.168.0.1/reboot", "http://printer.local/", "http://169.254.169.254/latest")
    with pytest.raises(SourceNotAllowed, match=r"doesn't ask '169\.254\.169\.254'"):
        await fetch(target_of(IMAGE, *inside), MemorySink(), None, quick(), "")
    assert asked == []


async def test_a_source_leads_nowhere_else_either() -> None:
    async with (
        hostile(honest(IMAGE)) as inside,
        hostile(answers(302, Location=inside.url.replace("localhost", "127.0.0.1"))) as named,
    ):
        limits = quick(hosts=("localhost",))
        with pytest.raises(SourceNotAllowed):
            await fetch(target_of(IMAGE, named.url), MemorySink(), None, limits, "")
    assert named.asked
    assert not inside.asked


async def test_the_next_source_and_blocks_still_serve() -> None:
    async with hostile(honest(IMAGE)) as named:
        target = target_of(IMAGE, "https://elsewhere.example/image", named.url)
        sink = MemorySink()
        await fetch(target, sink, None, quick(), "")
    assert bytes(sink.data) == IMAGE

    async def block(request: BlockRequest) -> BlockAccepted:
        part = IMAGE[request.offset : request.offset + request.length]
        return BlockAccepted(request_id=request.request_id, offset=request.offset, data=part)

    sink = MemorySink()
    elsewhere = target_of(IMAGE, "https://elsewhere.example/image")
    await fetch(elsewhere, sink, block, quick(hosts=()), "")
    assert bytes(sink.data) == IMAGE


async def test_where_all_fails_the_code_is_what_the_operator_can_mend() -> None:
    async with hostile(answers(404)) as empty:
        target = target_of(IMAGE, "https://elsewhere.example/image", empty.url)
        with pytest.raises(SourceNotAllowed, match="status 404"):
            await fetch(target, MemorySink(), None, quick(), "")
        with pytest.raises(ImageUnavailable) as caught:
            await fetch(target_of(IMAGE, empty.url), MemorySink(), None, quick(), "")
    assert caught.value.stable_code == UpdateCode.IMAGE_UNAVAILABLE


class TestWhoIsNamed:
    def test_the_bundle_s_hosts_and_the_fleet_broker_s_without_a_list(self) -> None:
        known = DeviceConfig(model="meter", metadata_url="https://meta.example:8443/updates")
        assert allowed_hosts(known, ("claim.example", "cdn.example"), "fleet.example") == (
            "claim.example", "cdn.example", "fleet.example", "meta.example",
        )  # fmt: skip

    def test_the_list_alone_where_there_is_one(self) -> None:
        known = DeviceConfig(model="meter", update_hosts=("*.cdn.example",))
        assert allowed_hosts(known, ("claim.example",), "fleet.example") == ("*.cdn.example",)
        assert allowed_hosts(DeviceConfig(model="meter", update_hosts=()), ("a",), "b") == ()

    @pytest.mark.parametrize("host", ["", "*", "a/b", "http://a", "*.*.a", "a b", "x" * 254])
    def test_hosts_only(self, tmp_path: Path, host: str) -> None:
        told = tmp_path / "told.json"
        told.write_text(f'{{"model": "meter", "update_hosts": ["{host}"]}}')
        with pytest.raises(ArgumentInvalid):
            config.remember(tmp_path / "update", told, None, None)
