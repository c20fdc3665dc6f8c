"""What `muster demo` does: an installation, the service and a batch of devices, from nothing.

All of it is real: the service with both brokers in a process of its own, TLS with certificates
made a moment ago, and the devices' own program. Only the devices share a process.
"""

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Certificate, Device, EnrollmentGroup
from broker.entry.cli.demo import MOST
from broker.entry.cli.demo_fleet import Claimed, claim_all, living
from broker.entry.cli.demo_service import running_service
from broker.entry.cli.demo_update import Ceremony, hold_ceremony, push, show
from broker.entry.cli.output import note, say, table
from broker.entry.cli.views import shown_time
from broker.operating.initialise import Choices, ZoneChoice, initialise
from broker.operating.installation import Installation, SecretFile, open_installation
from broker.ports.registry import DeviceFilter, ReadTransaction, Registry
from broker.protocol.names import ClaimName, GroupName, SerialNumber
from broker.services import claim_certificates, enrollments, groups
from broker.services.claim_certificates import Wanted
from broker.services.problems import Problem, ProblemCode
from broker.settings import BrokerKind

_BATCH: Final = "demo-batch"
_GROUP: Final = GroupName("thermometers")

_FAILING: Final = 6
"""Which of the devices the new image doesn't suit."""


def demonstrate(devices: int, keep: bool) -> None:
    """The whole of it; what it made is gone at the end, if it isn't to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="muster-demo-"))
    try:
        with _no_settings_in_environment():
            asyncio.run(_demo(folder, devices))
        if keep:
            say(f"Kept: {folder}")
            note(f"Look around: muster --home {folder / 'home'} devices list")
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


async def _demo(folder: Path, count: int) -> None:
    began = time.monotonic()
    serials = [SerialNumber(f"T-{number:04}") for number in range(1, count + 1)]
    installation = await asyncio.to_thread(_make_installation, folder / "home")
    ceremony = await asyncio.to_thread(hold_ceremony, installation, folder / "media")
    _step("muster update init --keys …", "root keys 2 of 3, a targets key; none of them online")
    bundle = folder / f"{_BATCH}.bundle.json"
    async with installation.registry() as registry:
        await _prepare(installation, registry, bundle, serials)
    async with running_service(installation.home.path):
        _step("muster up", "the service and both brokers are up")
        claimed = await claim_all(folder / "devices", bundle, serials)
        _step("muster-device claim …", f"{len(claimed)} devices have claimed, over TLS")
        async with installation.registry() as registry:
            members = await registry.read(_members)
            _show(claimed, members)
            _check(members, serials)
            await _update(folder, installation, registry, ceremony, serials)
    say(
        f"All {count} devices are members of the fleet, and the update ended as it should: "
        f"{time.monotonic() - began:.1f} s in all."
    )


async def _update(
    folder: Path,
    installation: Installation,
    registry: Registry,
    ceremony: Ceremony,
    serials: Sequence[SerialNumber],
) -> None:
    """Every device installs an image, but for one: there it fails its health check."""
    failing = serials[_FAILING] if len(serials) > _FAILING else None
    async with living(folder / "devices", serials, failing):
        image = await asyncio.to_thread(ceremony.publish, folder)
        _step("muster update add, sign, publish", f"{image.path}, {image.length:,} bytes")
        _step(f"muster update push {image.path} --group {_GROUP}", "devices are told over MQTT")
        await push(registry, installation, image, _GROUP)
        await show(registry, failing and f"thermo-{failing}")


def _make_installation(home: Path) -> Installation:
    claim_port, fleet_port = _free_ports()
    choices = Choices(
        hosts=["localhost"],
        claim=ZoneChoice(BrokerKind.EMBEDDED, claim_port),
        fleet=ZoneChoice(BrokerKind.EMBEDDED, fleet_port),
    )
    initialise(home, choices, None, datetime.now(UTC))
    _step(f"muster init {home}", "authorities, certificates, settings and registry are made")
    return open_installation(home, None)


async def _prepare(
    installation: Installation, registry: Registry, bundle: Path, serials: list[SerialNumber]
) -> None:
    """What an operator types for a new batch."""
    clock = installation.clock
    wanted = Wanted(_BATCH, len(serials), timedelta(days=1))
    await claim_certificates.create(
        registry, clock, installation.claim_authority(), wanted, SecretFile(bundle)
    )
    _step(f"muster claim-cert create {_BATCH}", f"good for {len(serials)} claims")
    group = EnrollmentGroup(
        name=_GROUP,
        claim_certificates=frozenset({ClaimName(_BATCH)}),
        device_name="thermo-{serial}",
        allowed_keys=frozenset({KeyType.P256, KeyType.P384, KeyType.ED25519}),
        certificate_lifetime=timedelta(days=90),
        quota=len(serials),
    )
    await groups.apply(registry, clock, [group])
    _step("muster group apply groups.toml", f"group {_GROUP}, listed serial numbers only")
    await enrollments.import_serials(registry, clock, _GROUP, serials, lambda _: None)
    _step("muster enroll import serials.csv", f"{len(serials)} serial numbers may claim")


def _members(view: ReadTransaction) -> list[tuple[Device, list[Certificate]]]:
    found = view.devices(DeviceFilter(limit=MOST))
    certificates = view.certificates_of([device.id for device in found])
    return [
        (device, [each for each in certificates if each.device_id == device.id]) for device in found
    ]


def _show(claimed: list[Claimed], members: list[tuple[Device, list[Certificate]]]) -> None:
    took = {each.serial: f"{each.took_s * 1000:.0f} ms" for each in claimed}
    rows = [
        (
            device.id,
            device.state.value,
            certificate.serial,
            shown_time(certificate.not_after),
            took.get(device.serial, "-"),
        )
        for device, certificates in members
        for certificate in certificates
    ]
    table(("device", "state", "certificate", "expires", "claimed in"), rows)


def _check(members: list[tuple[Device, list[Certificate]]], serials: list[SerialNumber]) -> None:
    """What the registry says counts, not what the devices believe."""
    whole = {
        device.serial
        for device, certificates in members
        if device.state is DeviceState.ACTIVE
        and [each.state for each in certificates] == [CertificateState.ACTIVE]
    }
    missing = [serial for serial in serials if serial not in whole]
    if missing:
        raise Problem(
            ProblemCode.DEMO_FAILED,
            f"{len(missing)} of {len(serials)} devices aren't active: {', '.join(missing[:5])} …",
            "Run 'muster demo --keep' and look at 'muster events' of the installation it leaves.",
        )


def _step(command: str, outcome: str) -> None:
    note(f"  {command:<60} {outcome}")


def _free_ports() -> list[int]:
    """Two ports that nobody has; both are held while they are looked for, so that they differ."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]


@contextmanager
def _no_settings_in_environment() -> Iterator[None]:
    """The demo is about an installation of its own, whatever the environment says of another."""
    others = {name: value for name, value in os.environ.items() if name.startswith("MUSTER_")}
    for name in others:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(others)
