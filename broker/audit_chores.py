"""What the service does about its audit log: seals it, and ends it."""

import asyncio

import structlog

from broker.adapters.audit_files import AuditFolder, FileAuditHead, FileAuditKey
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.home import MusterHome
from broker.adapters.clock import SystemClock
from broker.audit_ports import AuditError
from broker.entry.changes import Changes
from broker.entry.housekeeping import Chore
from broker.ports import Registry
from broker.services.audit_seals import AuditSeals
from broker.services.retention import Retention
from broker.settings import Settings

_log = structlog.get_logger(__name__)


async def audit_chores(
    home: MusterHome,
    passphrase: bytes | None,
    settings: Settings,
    registry: Registry,
    changes: Changes,
) -> list[Chore]:
    """None when the key can't be used: devices needn't wait for that."""
    folder, clock = AuditFolder(home.path), SystemClock()
    try:
        key = await asyncio.to_thread(FileAuditKey.opened, folder, passphrase)
    except (AuditError, AuthorityError) as error:
        _log.error("audit_log_not_sealed", error=str(error), remedy=error.remedy)
        return []
    seals = AuditSeals(registry, key, FileAuditHead(folder), clock)
    retention = Retention(registry, key, clock, settings.audit.keep or None)
    return [
        changes.chore("audit-seals", 10.0, 600.0, seals.bring_up_to_date),
        Chore("audit-retention", 60.0, retention.drop, wake=asyncio.Event(), least_s=1.0),
    ]
