"""Who is out is looked for while a broker may have let him in by a certificate from before."""

from collections.abc import Iterable
from datetime import timedelta

import pytest

from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import RevocationReason
from broker.protocol.names import CertificateSerial, DeviceId, SerialNumber
from broker.services import stragglers
from broker.services.stragglers import Stragglers
from tests.support.desk import Desk
from tests.support.operating import NOW
from tests.support.records import a_certificate, a_device, a_fingerprint

OUT = (DeviceState.SUSPENDED, DeviceState.REVOKED, DeviceState.RETIRED)


async def with_devices(desk: Desk, state: DeviceState, count: int, days: int = 90) -> list[str]:
    """Devices that stand so, with a certificate each."""
    names = [f"{state}-{number:02}" for number in range(count)]
    for name in names:
        device = a_device(id=DeviceId(name), state=state, serial=SerialNumber(name))
        certificate = a_certificate(
            serial=CertificateSerial(f"c-{name}"),
            device_id=DeviceId(name),
            state=CertificateState.REVOKED,
            revoked_at=NOW,
            revoked_for=RevocationReason.OPERATOR,
            not_after=NOW + timedelta(days=days),
            key_sha256=a_fingerprint(f"key-{name}"),
            certificate_sha256=a_fingerprint(f"certificate-{name}"),
        )
        await desk.write(("save_device", device), ("save_certificate", certificate))
    return names


def looking(desk: Desk) -> tuple[Stragglers, list[str]]:
    found: list[str] = []

    def suspect(names: Iterable[DeviceId]) -> None:
        found.extend(names)

    return Stragglers(desk.registry, desk.clock, suspect), found


async def test_all_who_are_out_are_looked_for_again_and_again(desk: Desk) -> None:
    wanted = [name for state in OUT for name in await with_devices(desk, state, 2)]
    await with_devices(desk, DeviceState.ACTIVE, 2)
    watch, found = looking(desk)
    for _ in range(3):
        found.clear()
        await watch.look()
        assert sorted(found) == sorted(wanted)


async def test_no_longer_than_their_certificates_last(desk: Desk) -> None:
    await with_devices(desk, DeviceState.REVOKED, 2, days=1)
    watch, found = looking(desk)
    desk.clock.at += timedelta(days=1)
    await watch.look()
    assert found == []


async def test_many_are_looked_for_in_turns(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stragglers, "_PAGE", 2)
    wanted = [name for state in OUT for name in await with_devices(desk, state, 5)]
    watch, found = looking(desk)
    for _ in range(20):
        await watch.look()
    assert {found.count(name) for name in wanted} <= {2, 3, 4}
    assert set(found) == set(wanted)
