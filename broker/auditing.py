"""The audit log's seals, for commands and the doctor."""

import asyncio
from collections.abc import AsyncIterator

from broker.adapters.audit_files import AuditFolder, FileAuditHead, FileAuditKey
from broker.audit_ports import AuditError
from broker.core.findings import Finding, Level
from broker.installation import Installation
from broker.ports import Registry
from broker.services.audit_verification import AUDIT_LOG, examine_audit, verify


async def verified(installation: Installation, registry: Registry) -> AsyncIterator[Finding]:
    """What `verify` finds, with this home's key."""
    folder = AuditFolder(installation.home.path)
    try:
        key = await asyncio.to_thread(FileAuditKey.for_looking, folder)
    except AuditError as error:
        yield Finding(Level.ERROR, AUDIT_LOG, "audit log", str(error), error.remedy)
        return
    async for finding in verify(registry, key, FileAuditHead(folder)):
        yield finding


async def examined(installation: Installation, registry: Registry) -> list[Finding]:
    """Whether the log is sealed to its end; nothing where it never was."""
    folder = AuditFolder(installation.home.path)
    if not await asyncio.to_thread(folder.is_used):
        return []
    try:
        key = await asyncio.to_thread(FileAuditKey.for_looking, folder)
    except AuditError as error:
        return [Finding(Level.ERROR, AUDIT_LOG, "audit log", str(error), error.remedy)]
    now = installation.clock.now()
    return await examine_audit(registry, key, FileAuditHead(folder), now)
