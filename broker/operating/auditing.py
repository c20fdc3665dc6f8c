"""The audit log's seals, for commands and the doctor."""

import asyncio
from collections.abc import AsyncIterator

from broker.adapters.audit_files import AuditFolder, FileAuditHead, FileAuditKey
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.core.findings import Finding, Level
from broker.operating.installation import Installation
from broker.operating.key_examination import needs_passphrase
from broker.ports.audit import AuditError
from broker.ports.registry import ReadTransaction, Registry
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
    """Whether the log is sealed to its end, and can be; nothing where it never was.

    Raises:
        RegistryError: the registry failed.
    """
    folder = AuditFolder(installation.home.path)
    is_used = await asyncio.to_thread(folder.is_used)
    if not is_used and not await registry.read(_was_sealed):
        return []
    try:
        key = await asyncio.to_thread(FileAuditKey.for_looking, folder)
        await asyncio.to_thread(_check_key, installation, folder)
    except AuditError as error:
        return [_not_sealed(str(error), error.remedy)]
    except AuthorityError as error:
        return [_not_sealed(f"{error.message}.", f"{error.remedy}.")]
    now = installation.clock.now()
    return await examine_audit(registry, key, FileAuditHead(folder), now)


def _was_sealed(view: ReadTransaction) -> bool:
    return view.newest_audit_seal() is not None or view.audit_floor() is not None


def _check_key(installation: Installation, folder: AuditFolder) -> None:
    """Whether the service can sign with it, as far as can be told without a passphrase."""
    try:
        FileAuditKey.check_private(folder, installation.passphrase)
    except AuthorityError as error:
        if error.code is not AuthorityCode.PASSPHRASE_MISSING or not needs_passphrase(
            installation.home
        ):
            raise


def _not_sealed(why: str, remedy: str) -> Finding:
    message = f"Nothing is sealed, so who may write to the registry can change the log: {why}"
    return Finding(Level.ERROR, AUDIT_LOG, "audit log", message, remedy)
