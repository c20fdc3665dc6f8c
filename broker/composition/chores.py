"""What the service does unasked, by subject: identities, updates, the audit log."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from broker.adapters.audit_files import AuditFolder, FileAuditHead, FileAuditKey
from broker.adapters.brokers.crl_file import WatchedCrlFile
from broker.adapters.brokers.lasting_crl import LastingCrlFile
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.fleet_authorities import FleetAuthorities
from broker.adapters.ca.home import MusterHome
from broker.adapters.metrics import PrometheusTelemetry
from broker.entry.changes import Changes
from broker.entry.housekeeping import Chore
from broker.ports.audit import AuditError
from broker.ports.brokers import BrokerControl
from broker.ports.clock import Clock
from broker.ports.registry import Registry
from broker.ports.updates import UpdateRepository
from broker.protocol.zones import Zone
from broker.services.assigning import Assigner
from broker.services.assignment_renewal import AssignmentRenewal
from broker.services.assignment_signing import AssignmentSigner
from broker.services.audit_seals import AuditSeals
from broker.services.ca_rollover_steps import CaRolloverSteps
from broker.services.campaign_runner import CampaignRunner
from broker.services.claim_alarms import ClaimAlarms
from broker.services.crl import ClaimCrl, FleetCrl
from broker.services.lapse import LapseService
from broker.services.lock_out import LockOuts
from broker.services.retention import Retention
from broker.services.rollout_director import Director
from broker.services.stragglers import EVERY_S, Stragglers
from broker.services.superseded import SupersededService
from broker.services.support import SupportWatch
from broker.services.update_metadata import UpdateMetadata
from broker.services.update_warnings import UpdateWarnings
from broker.settings import Settings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class World:
    """What every chore may need."""

    home: MusterHome
    settings: Settings
    registry: Registry
    clock: Clock
    telemetry: PrometheusTelemetry
    changes: Changes


def identity_chores(
    world: World,
    authority: FleetAuthorities,
    controls: Mapping[Zone, BrokerControl],
    crl_file: WatchedCrlFile,
) -> list[Chore]:
    """Certificates come to their end, in the registry, in CRLs and on brokers."""
    registry, clock, changes = world.registry, world.clock, world.changes
    confirm_within_s = world.settings.limits.confirm_within.total_seconds()
    lock_outs = LockOuts(registry, controls[Zone.FLEET], clock)
    home = world.home
    infrastructure = LastingCrlFile(
        home.infrastructure_crl, home.server_anchors, home.run / "infrastructure-crl.pem"
    )
    fleet_crl = FleetCrl(
        registry, authority, crl_file, controls[Zone.FLEET], clock, lock_outs, infrastructure
    )
    claim_crl = ClaimCrl(registry, controls[Zone.CLAIM])
    lapses = LapseService(registry, clock)
    superseded = SupersededService(registry, clock)
    rollover = CaRolloverSteps(registry, fleet_crl, clock)
    campaigns = CampaignRunner(registry, clock)
    stragglers = Stragglers(registry, clock, lock_outs.suspect)
    return [
        Chore("lapse", min(5.0, confirm_within_s / 10), lapses.revoke_unconfirmed),
        Chore("stragglers", EVERY_S, stragglers.look),
        Chore("superseded", 1.0, superseded.revoke_superseded),
        changes.chore(
            "fleet-crl", fleet_crl.bring_up_to_date, least_s=0.1, every_s=1.0, longest_pause_s=1.0
        ),
        changes.chore("claim-crl", claim_crl.bring_up_to_date, least_s=0.5, every_s=5.0),
        changes.chore(
            "lock-out",
            lock_outs.watch,
            says_more=True,
            least_s=1.0,
            every_s=5.0,
            longest_pause_s=1.0,
        ),
        changes.chore("ca-rollover", rollover.advance, least_s=0.2, every_s=1.0),
        changes.chore("campaigns", campaigns.advance, says_more=True, least_s=0.5, every_s=5.0),
    ]


def update_chores(
    world: World, repository: UpdateRepository, on_told: Callable[[], None]
) -> list[Chore]:
    """Rollouts go on, metadata stays fresh, and what ends is announced.

    Args:
        on_told: called when there is something new for the fleet's broker to retain.
    """
    registry, clock, changes = world.registry, world.clock, world.changes
    signer = AssignmentSigner(repository, world.settings.updates.sources)
    assigner = Assigner(registry, signer, clock, _new_nonce, on_told)
    renewal = AssignmentRenewal(registry, signer, clock)
    director = Director(registry, repository, clock, assigner, renewal)
    metadata = UpdateMetadata(registry, repository, clock)
    support = SupportWatch(registry, clock, world.telemetry)
    warnings = UpdateWarnings(repository, clock)
    return [
        changes.chore("rollouts", director.advance, least_s=0.1, every_s=1.0),
        Chore("update-metadata", 1.0, metadata.bring_up_to_date, longest_pause_s=10.0),
        Chore("support", 60.0, support.look),
        Chore("update-warnings", 60.0, lambda: _warn(warnings)),
    ]


async def audit_chores(world: World, passphrase: bytes | None) -> list[Chore]:
    """The audit log is sealed, and its oldest events end.

    There are none when the key can't be used: devices needn't wait for that.
    """
    registry, clock, changes = world.registry, world.clock, world.changes
    folder = AuditFolder(world.home.path)
    try:
        key = await asyncio.to_thread(FileAuditKey.opened, folder, passphrase)
    except (AuditError, AuthorityError) as error:
        _log.error("audit_log_not_sealed", error=str(error), remedy=error.remedy)
        return []
    seals = AuditSeals(registry, key, FileAuditHead(folder), clock)
    retention = Retention(registry, key, clock, world.settings.audit.keep or None)
    return [
        changes.chore(
            "audit-seals", seals.bring_up_to_date, says_more=True, least_s=10.0, every_s=600.0
        ),
        Chore("audit-retention", 60.0, retention.drop, says_more=True, least_s=1.0),
    ]


async def give_alarms(alarms: ClaimAlarms) -> None:
    """Says in the log what operators should know about claim certificates."""
    for each in await alarms.look():
        _log.warning(
            "claim_certificate_alarm",
            code=each.alarm,
            claim_certificate=each.claim_name,
            detail=each.detail,
            remedy=f"see 'muster claim-cert show {each.claim_name}'; if it leaked, revoke it",
        )


async def _warn(warnings: UpdateWarnings) -> None:
    for each in await warnings.look():
        _log.warning(
            "update_metadata_lapses", role=each.subject, detail=each.message, remedy=each.remedy
        )


def _new_nonce() -> str:
    return secrets.token_hex(16)
