"""A running installation: both brokers, the registry and the service, on the loopback."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cryptography import x509

from broker.adapters.ca.home import MusterHome
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Certificate, Device, Event, EventKind
from broker.protocol.bundle import ClaimBundle
from broker.protocol.messages import Endpoint
from broker.protocol.names import ClaimName
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from device_client.identity import Identity
from device_client.settings import Timing
from tests.support.certificates import Client
from tests.support.device_agents import QUICK, device
from tests.support.forked_service import ForkedService
from tests.support.installation import BATCH, Installation, install, make_home
from tests.support.mosquitto import RunningMosquitto, run_mosquitto
from tests.support.ports import free_port
from tests.support.service import Service, ServiceProcess, ServiceTask

CLAIM_S: Final = 60.0
STUBBORN: Final = replace(QUICK, answers_s=(0.5,) * 20)
"""For devices whose requests get lost: a service that comes back is asked at its first moment."""


@dataclass(frozen=True)
class Plan:
    """What to run, and how."""

    brokers: BrokerKind = BrokerKind.EMBEDDED
    database_url: str = "sqlite:///registry.db"
    in_process: bool = True
    forks: bool = False
    """A process that is started many times, and quickly."""
    limits: dict[str, str | float] = field(default_factory=dict)
    """Lines of the section [limits] of muster.toml."""
    metrics_port: int | None = None
    http_port: int | None = None
    supervised: bool = False
    """Mosquitto only: under its supervisor, and reloaded through it."""
    sources: tuple[str, ...] = ()
    """Where assignments say that images are."""
    told_ports: dict[Zone, int] = field(default_factory=dict)
    """Mosquitto only: what devices are told instead of a broker's own port."""


class Stack:
    """What a test does to a running installation, and sees of it."""

    def __init__(
        self,
        plan: Plan,
        installation: Installation,
        service: Service,
        ports: dict[Zone, int],
        brokers: dict[Zone, RunningMosquitto],
    ) -> None:
        self.plan = plan
        self.installation = installation
        self.service = service
        self.ports = ports
        """Where the brokers listen for devices, the same after every restart."""
        self.service_ports = ports | {zone: each.service_port for zone, each in brokers.items()}
        """And for the service."""
        self.brokers = brokers
        """Each zone's Mosquitto; none when the brokers are embedded."""
        self.devices = installation.devices
        self.certificates = installation.certificates
        self.events = installation.events

    @property
    def home(self) -> MusterHome:
        """Its files."""
        return self.installation.home

    @property
    def process(self) -> ServiceProcess:
        """The service, when it's a process."""
        assert isinstance(self.service, ServiceProcess)
        return self.service

    async def start_service(self) -> None:
        """Returns when devices can claim."""
        await self.service.start()

    async def stop_service(self) -> None:
        """Ends the service in order."""
        await self.service.stop()

    async def kill_service(self) -> None:
        """Kill -9."""
        await self.process.kill()

    def bundle(self, name: ClaimName = BATCH, port: int | None = None) -> ClaimBundle:
        """What is flashed on a batch; `port` when devices reach the claim broker by another."""
        told = self.plan.told_ports.get(Zone.CLAIM, self.ports[Zone.CLAIM])
        return self.installation.bundle(Endpoint(host="localhost", port=port or told), name)

    def claim_client(self, name: ClaimName = BATCH) -> Client:
        """A claim certificate in files, for clients that aren't device agents."""
        issued = self.installation.claims[name]
        certificate = self.home.path.parent / f"{name}.crt"
        key = self.home.path.parent / f"{name}.key"
        if not certificate.exists():
            key.touch(0o600)
            key.write_text(issued.key_pem)
            certificate.write_text(issued.certificate_pem)
        return Client(name, certificate, key, self.home.server_anchors)

    async def claim_device(
        self,
        serial: str,
        state: Path,
        timing: Timing = QUICK,
        bundle: ClaimBundle | None = None,
        within: float = CLAIM_S,
        wait: bool = True,
    ) -> Identity:
        """A device agent claims and confirms; its keys are in `state`. `wait` is the agent's."""
        with device(state, bundle or self.bundle(), serial, timing=timing) as (agent, _):
            return await agent.claim(within, wait=wait)

    async def device(self, serial: str) -> Device:
        """The device with this serial number."""
        (found,) = [d for d in await self.devices() if d.serial == serial]
        return found

    async def certificates_of(self, serial: str) -> list[Certificate]:
        """All certificates of this serial number, oldest first."""
        device_id = (await self.device(serial)).id
        return [c for c in await self.certificates() if c.device_id == device_id]

    async def live_certificates(self, serial: str) -> list[Certificate]:
        """Those that aren't revoked."""
        found = await self.certificates_of(serial)
        return [c for c in found if c.state is not CertificateState.REVOKED]

    def revoked_serials(self) -> set[int]:
        """The serials in the fleet zone's CRL file."""
        pem = self.home.crl_file(Zone.FLEET).read_bytes()
        blocks = pem.split(b"-----BEGIN X509 CRL-----")[1:]
        crls = [x509.load_pem_x509_crl(b"-----BEGIN X509 CRL-----" + block) for block in blocks]
        return {line.serial_number for crl in crls for line in crl}

    async def is_active(self, serial: str) -> bool:
        """Whether this serial number is a confirmed member."""
        return any(
            d.serial == serial and d.state is DeviceState.ACTIVE for d in await self.devices()
        )

    async def events_of(self, *kinds: EventKind) -> list[Event]:
        """The audit events of these kinds, oldest first."""
        return [e for e in reversed(await self.events()) if e.kind in kinds]


@asynccontextmanager
async def running_stack(place: Path, plan: Plan = Plan()) -> AsyncIterator[Stack]:
    """An installation whose service runs and knows nobody; ended at the end."""
    async with prepared_stack(place, plan) as stack:
        await stack.start_service()
        yield stack


@asynccontextmanager
async def prepared_stack(place: Path, plan: Plan) -> AsyncIterator[Stack]:
    """The same with the service not started yet."""
    home = await make_home(place / "home")
    async with AsyncExitStack() as ending:
        brokers = await _run_brokers(place, home, plan, ending)
        ports = {zone: broker.port for zone, broker in brokers.items()}
        ports = ports or {zone: free_port() for zone in Zone}
        installation = await install(home, _settings(plan, ports, brokers))
        service = _service(home, place / "log", plan)
        if isinstance(service, ServiceProcess):
            ending.push_async_callback(service.end)
        ending.push_async_callback(service.stop)
        yield Stack(plan, installation, service, ports, brokers)


def _service(home: MusterHome, log: Path, plan: Plan) -> ServiceTask | ServiceProcess:
    if plan.in_process:
        return ServiceTask(home)
    return ForkedService(home, log) if plan.forks else ServiceProcess(home, log)


async def _run_brokers(
    place: Path, home: MusterHome, plan: Plan, ending: AsyncExitStack
) -> dict[Zone, RunningMosquitto]:
    if plan.brokers is BrokerKind.EMBEDDED:
        return {}
    run = place / "run"
    await asyncio.to_thread(run.mkdir)
    return {
        zone: await ending.enter_async_context(run_mosquitto(zone, home.path, run, plan.supervised))
        for zone in Zone
    }


def _settings(plan: Plan, ports: dict[Zone, int], brokers: dict[Zone, RunningMosquitto]) -> str:
    lines = [] if plan.metrics_port is None else [f"metrics_port = {plan.metrics_port}"]
    for zone in Zone:
        lines += [f"[{zone}]", f'broker = "{plan.brokers}"']
        lines += [f"port = {plan.told_ports.get(zone, ports[zone])}"]
        if zone in brokers:
            endpoint = brokers[zone].endpoint
            lines += [f"service_port = {brokers[zone].service_port}"]
            lines += [f'pid_file = "{endpoint.pid_file}"']
            lines += [f'admin_socket = "{endpoint.admin_socket}"']
            if endpoint.reload_socket is not None:
                lines += [f'reload_socket = "{endpoint.reload_socket}"']
    lines += [] if plan.http_port is None else ["[http]", f"port = {plan.http_port}"]
    lines += ["[updates]", f"sources = {json.dumps(plan.sources)}"]
    lines += ["[registry]", f'url = "{plan.database_url}"', "[limits]"]
    lines += [
        f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
        for name, value in plan.limits.items()
    ]
    return "\n".join(lines) + "\n"
