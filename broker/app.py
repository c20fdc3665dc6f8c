"""The composition root: the only place that knows every adapter, and joins them to the services."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from broker.adapters.brokers.crl_file import WatchedCrlFile
from broker.adapters.brokers.embedded import BrokerTls, EmbeddedBroker
from broker.adapters.brokers.errors import BrokerControlError
from broker.adapters.brokers.mosquitto import MosquittoControl, MosquittoEndpoint
from broker.adapters.ca.bundles import read_trust_bundle
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.fleet_authorities import FleetAuthorities
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.ocsp import StatusAnswers
from broker.adapters.ca.server_trust import read_server_trust
from broker.adapters.clock import SystemClock
from broker.adapters.metrics import PrometheusTelemetry
from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.sqlite_file import file_number
from broker.adapters.run_lock import held_against_looks, note_registry
from broker.adapters.updates.repository import HomeUpdateRepository
from broker.audit_chores import audit_chores
from broker.core.ca_rollover import in_force
from broker.core.rate_limit import TokenBuckets
from broker.core.records import Event, EventKind
from broker.entry.changes import Changes
from broker.entry.housekeeping import Chore
from broker.entry.mqtt.link import BrokerLink, LinkSettings, LinkTls
from broker.entry.mqtt.router import Router, Services
from broker.ports import BrokerControl, PublishError, RegistryError
from broker.protocol.messages import Endpoint, SignedTrustBundle
from broker.protocol.topics import CLAIM_REQUESTS, DEVICE_REQUESTS
from broker.protocol.zones import Zone
from broker.registries import open_registry
from broker.services.admission import Admission
from broker.services.assigning import Assigner
from broker.services.blocks import BlockService
from broker.services.ca_rollover_steps import CaRolloverSteps
from broker.services.campaign_runner import CampaignRunner
from broker.services.certificate_status import StatusService
from broker.services.claim_alarms import ClaimAlarms
from broker.services.confirm import ConfirmService
from broker.services.crl import ClaimCrl, FleetCrl, put_in_place
from broker.services.enroll import EnrollService
from broker.services.issuing import Issuing, Welcome
from broker.services.lapse import LapseService
from broker.services.lock_out import LockOuts
from broker.services.outbox import Outbox
from broker.services.recover import RecoverService
from broker.services.refusals import RefusalLog
from broker.services.renew import RenewService
from broker.services.reports import ReportService
from broker.services.retained import RetainedMessages
from broker.services.rollout_director import Director
from broker.services.superseded import SupersededService
from broker.services.support import SupportWatch
from broker.services.tombstones import Tombstones
from broker.services.trust_bundles import TrustBundles
from broker.services.update_metadata import UpdateMetadata
from broker.services.update_warnings import UpdateWarnings
from broker.settings import BrokerKind, Settings

_log = structlog.get_logger(__name__)

SERVICE_NAMES = {Zone.CLAIM: "muster-service-claim", Zone.FLEET: "muster-service-fleet"}
_REQUESTS = {Zone.CLAIM: CLAIM_REQUESTS, Zone.FLEET: DEVICE_REQUESTS}
_CANCEL_AGAIN_S = 0.5


@dataclass(frozen=True)
class Running:
    """Where the brokers of a running installation are."""

    claim: Endpoint
    fleet: Endpoint


class _Links:
    """Both zones' connections as one publisher."""

    def __init__(self) -> None:
        self.by_zone: dict[Zone, BrokerLink] = {}

    async def publish(
        self, zone: Zone, topic: str, payload: bytes, *, retain: bool = False
    ) -> None:
        link = self.by_zone.get(zone)
        if link is None:
            raise PublishError(f"no link to the {zone} broker")
        await link.publish(topic, payload, retain=retain)


class Muster:
    """The service, with its embedded brokers where the settings say so."""

    def __init__(self, home: MusterHome, settings: Settings, passphrase: bytes | None) -> None:
        self._home = home
        self._settings = settings
        self._passphrase = passphrase
        self._clock = SystemClock()
        self._telemetry = PrometheusTelemetry()
        self._updates = HomeUpdateRepository(home.path / "updates", passphrase)

    async def run(self, ready: Callable[[Running], None], stop: asyncio.Event) -> None:
        """Serves until `stop` is set; calls `ready` once devices can claim.

        Raises:
            RegistryError, AuthorityError, BrokerControlError, AlreadyRunning: it can't start, and
                says why.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(held_against_looks(self._home.run / "service.lock"))
            registry = await stack.enter_async_context(open_registry(self._home, self._settings))
            await asyncio.to_thread(
                note_registry, self._home.run / "service.lock", file_number(registry.url)
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
                    self._broker(zone)
                )
            running = Running(endpoints[Zone.CLAIM], endpoints[Zone.FLEET])
            if self._settings.metrics_port is not None:
                self._telemetry.serve(self._settings.metrics_port)
            await self._serve(registry, authority, controls, running, ready, stop)

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
        ready: Callable[[Running], None],
        stop: asyncio.Event,
    ) -> None:
        links = _Links()
        outbox = Outbox(registry, links)
        refusals = RefusalLog(registry, self._clock)
        welcome = Welcome(running.fleet, await asyncio.to_thread(read_trust_bundle, self._home))
        services = self._services(registry, authority, outbox, refusals, welcome)
        trust_bundles = TrustBundles(registry, self._signed_bundle, welcome, self._clock)
        router = Router(services, links, self._telemetry)
        links.by_zone = {
            zone: BrokerLink(self._link_settings(zone, running), router.handle, outbox.resend)
            for zone in Zone
        }
        retained = RetainedMessages(registry, links.by_zone[Zone.FLEET])
        tombstones = Tombstones(registry, lambda: retained.told, self._clock)
        lock_outs = LockOuts(registry, controls[Zone.FLEET], self._clock)
        crl_file = WatchedCrlFile(self._home.crl_file(Zone.FLEET))
        fleet_crl = FleetCrl(
            registry,
            authority,
            crl_file,
            controls[Zone.FLEET],
            self._clock,
            lock_outs,
        )
        alarms = ClaimAlarms(registry, self._clock, services.admission, self._telemetry)
        claim_crl = ClaimCrl(registry, controls[Zone.CLAIM])
        confirm_within_s = self._settings.limits.confirm_within.total_seconds()
        ca_rollover = CaRolloverSteps(registry, fleet_crl, self._clock)
        lapses = LapseService(registry, self._clock)
        # What the registry's contents make due needn't be looked for while nobody changes them.
        changes = Changes(lambda: (registry.version(), crl_file.look()))
        to_retain = changes.wake()
        chores = [
            Chore("outbox", 0.2, outbox.clear_sent),
            Chore("lapse", min(5.0, confirm_within_s / 10), lapses.revoke_unconfirmed),
            Chore("superseded", 1.0, SupersededService(registry, self._clock).revoke_superseded),
            changes.chore("fleet-crl", 0.1, 1.0, fleet_crl.bring_up_to_date, 1.0),
            changes.chore("lock-out", 1.0, 5.0, lock_outs.watch, 1.0),
            changes.chore("trust-bundle", 1.0, 5.0, trust_bundles.bring_up_to_date),
            changes.chore("ca-rollover", 0.2, 1.0, ca_rollover.advance),
            changes.chore("campaigns", 0.5, 5.0, CampaignRunner(registry, self._clock).advance),
            changes.chore("tombstones", 60.0, 600.0, tombstones.drop),
            *await audit_chores(self._home, self._passphrase, self._settings, registry, changes),
            *self._update_chores(registry, changes, to_retain.set),
            Chore("retained", 1.0, retained.bring_up_to_date, longest_pause_s=5.0, wake=to_retain),
            changes.chore("claim-crl", 0.5, 5.0, claim_crl.bring_up_to_date),
            Chore("refusals", 10.0, refusals.flush),
            Chore("claim-alarms", 5.0, lambda: _give_alarms(alarms)),
        ]
        async with self._http(registry, authority, links), asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(link.run()) for link in links.by_zone.values()]
            work += [tasks.create_task(chore.keep_doing()) for chore in chores]
            work.append(tasks.create_task(changes.keep_looking()))
            work.append(tasks.create_task(self._announce(registry, links, running, ready)))
            await stop.wait()
            await _end(work)
        await _clear_sent(outbox)

    def _update_chores(
        self, registry: SqlRegistry, changes: Changes, on_told: Callable[[], None]
    ) -> list[Chore]:
        sources = self._settings.updates.sources
        assigner = Assigner(registry, self._updates, self._clock, _new_nonce, sources, on_told)
        director = Director(registry, self._updates, self._clock, assigner)
        metadata = UpdateMetadata(registry, self._updates, self._clock)
        support = SupportWatch(registry, self._clock, self._telemetry)
        warnings = UpdateWarnings(self._updates, self._clock)
        return [
            changes.chore("rollouts", 0.1, 1.0, director.advance),
            Chore("update-metadata", 1.0, metadata.bring_up_to_date, longest_pause_s=10.0),
            Chore("support", 60.0, support.look),
            Chore("update-warnings", 60.0, lambda: _warn(warnings)),
        ]

    async def _announce(
        self,
        registry: SqlRegistry,
        links: _Links,
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
        self, registry: SqlRegistry, authority: FleetAuthorities, links: _Links
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
            connected=lambda: {
                zone: link.session is not None for zone, link in links.by_zone.items()
            },
            clock=self._clock,
        )
        allowed = Allowed(wanted.connections_per_address, wanted.requests_per_second)
        async with serving(application(shown), wanted.listen, wanted.port, allowed) as port:
            _log.info("http_ready", listen=wanted.listen, port=port)
            yield

    @asynccontextmanager
    async def _broker(self, zone: Zone) -> AsyncIterator[tuple[BrokerControl, Endpoint]]:
        """The zone's broker, steered; an embedded one runs as long as the context."""
        settings = self._settings.zone(zone)
        if settings.broker is BrokerKind.MOSQUITTO:
            if settings.pid_file is None or settings.admin_socket is None:
                raise ValueError("a Mosquitto zone needs pid_file and admin_socket")
            endpoint = MosquittoEndpoint(
                pid_file=self._home.path / settings.pid_file,
                admin_socket=self._home.path / settings.admin_socket,
                crls=(self._home.crl_file(zone), self._home.infrastructure_crl),
                reload_socket=settings.reload_socket and self._home.path / settings.reload_socket,
            )
            yield MosquittoControl(endpoint), Endpoint(host=settings.host, port=settings.port)
            return
        embedded = EmbeddedBroker(zone, self._broker_tls(zone), settings.listen, settings.port)
        await embedded.start()
        try:
            yield embedded, Endpoint(host=settings.host, port=embedded.port)
        finally:
            await embedded.stop()

    def _broker_tls(self, zone: Zone) -> BrokerTls:
        pair = self._home.broker(zone)
        return BrokerTls(
            certificate=pair.certificate,
            key=pair.key,
            client_anchors=self._home.client_anchors(zone),
            crl=self._home.crl_file(zone),
            infrastructure_anchor=self._home.server_anchors,
            infrastructure_crl=self._home.infrastructure_crl,
        )

    def _link_settings(self, zone: Zone, running: Running) -> LinkSettings:
        settings = self._settings.zone(zone)
        public = running.claim if zone is Zone.CLAIM else running.fleet
        pair = self._home.service(zone)
        return LinkSettings(
            zone=zone,
            broker=Endpoint(
                host=settings.service_host or public.host,
                port=settings.service_port or public.port,
            ),
            tls=LinkTls(pair.certificate, pair.key, self._home.server_anchors),
            name=SERVICE_NAMES[zone],
            subscription=_REQUESTS[zone],
            concurrent=self._settings.limits.concurrent_requests,
        )


async def _give_alarms(alarms: ClaimAlarms) -> None:
    for each in await alarms.look():
        _log.warning(
            "claim_certificate_alarm",
            code=each.alarm,
            claim_certificate=each.claim_name,
            detail=each.detail,
            remedy=f"see 'muster claim-cert show {each.claim_name}'; if it leaked, revoke it",
        )


async def _clear_sent(outbox: Outbox) -> None:
    try:
        await outbox.clear_sent()
    except RegistryError as error:  # then the next life publishes them again, to no harm
        _log.warning("outbox_not_cleared", error=str(error), remedy=error.remedy)


async def _warn(warnings: UpdateWarnings) -> None:
    for each in await warnings.look():
        _log.warning(
            "update_metadata_lapses", role=each.subject, detail=each.message, remedy=each.remedy
        )


def _new_id() -> str:
    return uuid.uuid4().hex


def _new_nonce() -> str:
    return secrets.token_hex(16)


async def _end(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancels until all have ended: once isn't enough where a library waits with `wait_for`, which
    on Python 3.11 forgets a cancellation that comes at the moment when its wait is over."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
