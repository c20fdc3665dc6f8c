"""The composition root: the only place that knows every adapter, and joins them to the services."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from broker.adapters.brokers.crl_file import WatchedCrlFile
from broker.adapters.brokers.errors import BrokerControlError
from broker.adapters.ca.bundles import read_trust_bundle
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.fleet_authorities import FleetAuthorities
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.ocsp import StatusAnswers
from broker.adapters.ca.server_trust import read_server_trust
from broker.adapters.clock import SystemClock
from broker.adapters.doorbell import Doorbell
from broker.adapters.metrics import PrometheusTelemetry
from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.sqlite_file import file_number
from broker.adapters.run_lock import held_against_looks, note_registry
from broker.adapters.updates.repository import HomeUpdateRepository
from broker.composition.chores import (
    World,
    audit_chores,
    give_alarms,
    identity_chores,
    update_chores,
)
from broker.composition.registries import open_registry
from broker.composition.zone_brokers import Links, link_settings, zone_broker
from broker.core.ca_rollover import in_force
from broker.core.rate_limit import TokenBuckets
from broker.core.records import Event, EventKind
from broker.entry.changes import Changes
from broker.entry.housekeeping import Chore
from broker.entry.mqtt.link import BrokerLink
from broker.entry.mqtt.router import Router, Services
from broker.ports.brokers import BrokerControl
from broker.ports.registry import RegistryError
from broker.protocol.messages import Endpoint, SignedTrustBundle
from broker.protocol.zones import Zone
from broker.services.admission import Admission
from broker.services.blocks import BlockService
from broker.services.certificate_status import StatusService
from broker.services.claim_alarms import ClaimAlarms
from broker.services.confirm import ConfirmService
from broker.services.crl import put_in_place
from broker.services.enroll import EnrollService
from broker.services.issuing import Issuing, Welcome
from broker.services.outbox import Outbox
from broker.services.recover import RecoverService
from broker.services.refusals import RefusalLog
from broker.services.renew import RenewService
from broker.services.reports import ReportService
from broker.services.retained import RetainedMessages
from broker.services.tombstones import Tombstones
from broker.services.trust_bundles import TrustBundles
from broker.settings import BrokerKind, Settings

_log = structlog.get_logger(__name__)

_CANCEL_AGAIN_S = 0.5


@dataclass(frozen=True)
class Running:
    """Where the brokers of a running installation are."""

    claim: Endpoint
    fleet: Endpoint

    def endpoint(self, zone: Zone) -> Endpoint:
        """Where this zone's broker is."""
        return self.claim if zone is Zone.CLAIM else self.fleet


class Muster:
    """The service, with its embedded brokers where the settings say so."""

    def __init__(self, home: MusterHome, settings: Settings, passphrase: bytes | None) -> None:
        self._home = home
        self._settings = settings
        self._passphrase = passphrase
        self._clock = SystemClock()
        self._telemetry = PrometheusTelemetry()
        self._updates = HomeUpdateRepository(home.updates, passphrase)

    async def run(self, ready: Callable[[Running], None], stop: asyncio.Event) -> None:
        """Serves until `stop` is set; calls `ready` once devices can claim.

        Raises:
            RegistryError, AuthorityError, BrokerControlError, BrokerError, AlreadyRunning,
            HttpListenError, MetricsListenError: it can't start, and says why.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(held_against_looks(self._home.service_lock))
            registry = await stack.enter_async_context(open_registry(self._home, self._settings))
            await asyncio.to_thread(
                note_registry, self._home.service_lock, file_number(registry.url)
            )
            trusted = in_force(await registry.read(lambda tx: tx.ca_rollover()))
            authority = await asyncio.to_thread(
                FleetAuthorities.load, self._home, self._passphrase, trusted
            )
            await self._prepare_fleet(registry, authority)
            controls = {}
            endpoints = {}
            for zone in Zone:
                controls[zone], endpoints[zone] = await stack.enter_async_context(
                    zone_broker(self._home, self._settings, zone)
                )
            running = Running(endpoints[Zone.CLAIM], endpoints[Zone.FLEET])
            if self._settings.metrics_port is not None:
                self._telemetry.serve(self._settings.metrics_port)
            rest = stack.enter_context(_doorbell(self._home.doorbell))
            await self._serve(registry, authority, controls, running, rest, ready, stop)

    async def _prepare_fleet(self, registry: SqlRegistry, authority: FleetAuthorities) -> None:
        """An embedded broker refuses to start with files that don't fit together, as a kill in a
        rollover leaves them, and with a CRL that has expired. Mosquitto has its own start."""
        if self._settings.fleet.broker is not BrokerKind.EMBEDDED:
            return
        file = WatchedCrlFile(self._home.crl_file(Zone.FLEET))
        try:
            await put_in_place(registry, authority, file, self._clock)
        except (AuthorityError, BrokerControlError) as error:  # its start says what comes of that
            _log.warning("fleet_files_not_written", error=error.message, remedy=error.remedy)

    async def _signed_bundle(self) -> SignedTrustBundle | None:
        trust = await asyncio.to_thread(read_server_trust, self._home)
        return None if trust is None else trust.bundle

    async def _serve(
        self,
        registry: SqlRegistry,
        authority: FleetAuthorities,
        controls: dict[Zone, BrokerControl],
        running: Running,
        rest: Callable[[float], None],
        ready: Callable[[Running], None],
        stop: asyncio.Event,
    ) -> None:
        links = Links()
        outbox = Outbox(registry, links)
        refusals = RefusalLog(registry, self._clock)
        welcome = Welcome(running.fleet, await asyncio.to_thread(read_trust_bundle, self._home))
        services = self._services(registry, authority, outbox, refusals, welcome)
        trust_bundles = TrustBundles(registry, self._signed_bundle, welcome, self._clock)
        router = Router(services, links, self._telemetry)
        links.by_zone = {
            zone: BrokerLink(
                link_settings(self._home, self._settings, zone, running.endpoint(zone)),
                router.handle,
                outbox.resend,
            )
            for zone in Zone
        }
        retained = RetainedMessages(registry, links.by_zone[Zone.FLEET])
        tombstones = Tombstones(registry, lambda: retained.told, self._clock)
        alarms = ClaimAlarms(registry, self._clock, services.admission, self._telemetry)
        crl_file = WatchedCrlFile(self._home.crl_file(Zone.FLEET))
        # What the registry's contents make due needn't be looked for while nobody changes them.
        changes = Changes(lambda: (registry.version(), crl_file.look()), rest)
        to_retain = changes.wake()
        world = World(self._home, self._settings, registry, self._clock, self._telemetry, changes)
        chores = [
            Chore("outbox", 0.2, outbox.clear_sent),
            *identity_chores(world, authority, controls, crl_file),
            changes.chore("trust-bundle", trust_bundles.bring_up_to_date, least_s=1.0, every_s=5.0),
            changes.chore(
                "tombstones", tombstones.drop, says_more=True, least_s=60.0, every_s=600.0
            ),
            *await audit_chores(world, self._passphrase),
            *update_chores(world, self._updates, to_retain.set),
            Chore("retained", 1.0, retained.bring_up_to_date, longest_pause_s=5.0, wake=to_retain),
            Chore("refusals", 10.0, refusals.flush),
            Chore("claim-alarms", 5.0, lambda: give_alarms(alarms)),
        ]
        async with self._http(registry, authority, links), asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(link.run()) for link in links.by_zone.values()]
            work += [tasks.create_task(chore.keep_doing()) for chore in chores]
            work.append(tasks.create_task(changes.keep_looking()))
            work.append(tasks.create_task(self._announce(registry, links, running, ready)))
            await stop.wait()
            await _end(work)
        await _clear_sent(outbox)

    async def _announce(
        self,
        registry: SqlRegistry,
        links: Links,
        running: Running,
        ready: Callable[[Running], None],
    ) -> None:
        for link in links.by_zone.values():
            await link.connected.wait()
        event = Event(self._clock.now(), EventKind.SERVICE_STARTED)
        await registry.write(lambda tx: tx.add_event(event))
        ready(running)

    def _services(
        self,
        registry: SqlRegistry,
        authority: FleetAuthorities,
        outbox: Outbox,
        refusals: RefusalLog,
        welcome: Welcome,
    ) -> Services:
        limits = self._settings.limits
        issuing = Issuing(authority, welcome, limits.confirm_within, _new_id)
        admission = Admission(
            self._clock,
            per_certificate=TokenBuckets(limits.claims_per_second, limits.claims_burst),
            per_client=TokenBuckets(
                limits.client_claims_per_minute / 60, limits.client_claims_burst
            ),
        )
        return Services(
            enroll=EnrollService(registry, self._clock, issuing),
            recover=RecoverService(registry, self._clock, issuing),
            confirm=ConfirmService(registry, self._clock, _new_id),
            renew=RenewService(registry, self._clock, issuing),
            admission=admission,
            refusals=refusals,
            outbox=outbox,
            blocks=BlockService(
                registry,
                self._updates,
                self._clock,
                TokenBuckets(limits.blocks_per_second, limits.blocks_burst),
            ),
            reports=ReportService(registry, self._clock, _new_id),
        )

    @asynccontextmanager
    async def _http(
        self, registry: SqlRegistry, authority: FleetAuthorities, links: Links
    ) -> AsyncIterator[None]:
        """CRLs, certificates' status and update files, while the context lasts; if that is set."""
        wanted = self._settings.http
        if wanted.port is None:
            yield
            return
        # Here, because every command would pay for them with a tenth of a second.
        from broker.entry.http.application import Shown, application
        from broker.entry.http.server import Allowed, serving

        shown = Shown(
            crl_files={zone: self._home.crl_file(zone) for zone in Zone},
            status=StatusService(registry, StatusAnswers(lambda: authority.signers), self._clock),
            repository=self._updates,
            connected=lambda: {zone: link.is_connected for zone, link in links.by_zone.items()},
            clock=self._clock,
        )
        allowed = Allowed(wanted.connections_per_address, wanted.requests_per_second)
        async with serving(application(shown), wanted.listen, wanted.port, allowed) as port:
            _log.info("http_ready", listen=wanted.listen, port=port)
            yield


@contextmanager
def _doorbell(path: Path) -> Iterator[Callable[[float], None]]:
    """How to rest between two looks at the registry."""
    try:
        bell = Doorbell(path)
    except OSError as error:
        _log.warning("no_doorbell", path=str(path), error=str(error))
        yield time.sleep
        return
    with bell:
        yield bell.wait


async def _clear_sent(outbox: Outbox) -> None:
    try:
        await outbox.clear_sent()
    except RegistryError as error:  # then the next life publishes them again, to no harm
        _log.warning("outbox_not_cleared", error=str(error), remedy=error.remedy)


def _new_id() -> str:
    return uuid.uuid4().hex


async def _end(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancels until all have ended: once isn't enough where a library waits with `wait_for`, which
    on Python 3.11 forgets a cancellation that comes at the moment when its wait is over."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
