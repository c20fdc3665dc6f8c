"""Everything that `muster doctor` looks at, gathered from the home, the machine, the registry and
the brokers. Nothing is changed.
"""

import asyncio
import errno
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from broker.adapters.audit_files import AuditFolder
from broker.adapters.brokers.admin_socket import visit
from broker.adapters.brokers.errors import BrokerControlCode, BrokerControlError
from broker.adapters.ca import findings as ca_findings
from broker.adapters.ca.crl import unlisted
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.inspect import inspect_home
from broker.core.ca_rollover import in_force
from broker.core.findings import Finding, Level
from broker.operating.auditing import examined
from broker.operating.broker_examination import check_admin_socket, examine_brokers
from broker.operating.installation import Installation
from broker.operating.key_examination import examine_passphrase
from broker.operating.updating import update_repository
from broker.ports.registry import Registry, RegistryError
from broker.protocol.names import CertificateSerial
from broker.protocol.zones import Zone
from broker.services.ca_rollover_findings import examine_ca_rollover
from broker.services.campaign_findings import examine_campaigns
from broker.services.claim_crl_findings import examine_claim_crl
from broker.services.doctor import examine_registry, registry_failed
from broker.services.problems import Problem
from broker.services.rollout_findings import examine_rollouts
from broker.services.update_findings import examine_lost_updates, examine_updates
from broker.settings import BrokerKind, ZoneSettings

_LOW_DISK: Final = 256 * 1024 * 1024
_NO_DISK: Final = 32 * 1024 * 1024
_ADMIN_TIMEOUT_S: Final = 5.0


async def examine(installation: Installation) -> list[Finding]:
    """All findings, also of what is fine."""
    try:
        await asyncio.to_thread(lambda: installation.passphrase)
    except Problem as problem:
        finding = Finding(Level.ERROR, "passphrase", "passphrase", str(problem), problem.remedy)
        return [finding, *await _examine(replace(installation, read_passphrase=lambda: None))]
    return await _examine(installation)


async def _examine(installation: Installation) -> list[Finding]:
    home = installation.home
    now = installation.clock.now()
    trusted = await _trusted(installation)
    inspected = await asyncio.to_thread(inspect_home, home, now, installation.passphrase, trusted)
    findings = [_of_ca(home, finding) for finding in inspected]
    findings += await asyncio.to_thread(lambda: list(_examine_machine(home)))
    findings += await _examine_registry(installation)
    repository = update_repository(home, installation.passphrase)
    findings += await asyncio.to_thread(examine_updates, repository, now)
    findings += await examine_brokers(installation)
    for zone in Zone:
        findings += await _examine_steering(installation, zone)
    findings += await asyncio.to_thread(lambda: list(_examine_service(installation)))
    return findings


async def lock_out_obstacles(installation: Installation) -> list[Finding]:
    """What keeps an act on devices from coming into force on the fleet's broker; nothing when only
    time is lacking."""
    home, now = installation.home, installation.clock.now()
    trusted = await _trusted(installation)
    inspected = await asyncio.to_thread(inspect_home, home, now, installation.passphrase, trusted)
    read = (home.crl_file(Zone.FLEET), home.infrastructure_crl)
    findings = [_of_ca(home, finding) for finding in inspected if finding.path in read]
    findings += await _examine_steering(installation, Zone.FLEET)
    findings += await asyncio.to_thread(lambda: list(_examine_service(installation)))
    return [finding for finding in findings if finding.level is not Level.OK]


async def _trusted(installation: Installation) -> frozenset[int]:
    """The operational authorities that count; the first when the registry can't be asked."""
    try:
        async with installation.registry() as registry:
            return in_force(await registry.read(lambda tx: tx.ca_rollover())).trusted
    except RegistryError:  # the examination of the registry says so
        return in_force(None).trusted


def _of_ca(home: MusterHome, finding: ca_findings.Finding) -> Finding:
    path = finding.path
    subject = path.relative_to(home.path) if path.is_relative_to(home.path) else path
    return Finding(finding.level, finding.check, str(subject), finding.message, finding.remedy)


def _examine_machine(home: MusterHome) -> Iterator[Finding]:
    yield from _examine_settings(home.settings)
    yield from _examine_root_key(home)
    yield from examine_passphrase(home)
    for path in (home.ca, home.settings, home.registry):
        yield from _examine_mode(path, 0o077)
    # Who may write to a folder can put another in the place of anything in it.
    folders = (home.tls, home.trust, home.crl, home.run, AuditFolder(home.path).path)
    for path in (home.path, *folders, home.updates):
        yield from _examine_mode(path, 0o022)
    for path in home.updates.glob("keys/*.key"):
        yield from _examine_mode(path, 0o077)
    yield _examine_disk(home.path)


def _examine_settings(path: Path) -> Iterator[Finding]:
    """Whether there is a file to read; the settings in it have been checked already."""
    if path.is_file():
        return
    remedy = "Restore it from the backup of this home."
    instead = "the defaults are in force: embedded brokers, SQLite"
    if os.path.lexists(path):
        message = f"It isn't a regular file, so {instead}."
        yield Finding(Level.ERROR, "settings", path.name, message, remedy)
    else:
        message = f"It is missing, so {instead}."
        yield Finding(Level.WARNING, "settings", path.name, message, remedy)


def _examine_root_key(home: MusterHome) -> Iterator[Finding]:
    if home.root.key.exists():
        yield Finding(
            Level.WARNING,
            "root_key",
            "ca/root.key",
            "The root's key lies on this machine; nothing here needs it.",
            "Move it to an offline medium (with a copy), and delete it here.",
        )


def _examine_mode(path: Path, others: int) -> Iterator[Finding]:
    """Whether those who shouldn't can reach it; what doesn't exist is no finding."""
    try:
        found = path.stat()
    except OSError:
        return
    mode = found.st_mode & 0o777
    if mode & others:
        yield Finding(
            Level.ERROR,
            "permissions",
            path.name,
            f"Its mode is {mode:04o}, so others than its owner can get at it.",
            f"chmod {mode & ~others:o} {path}",
        )
    elif found.st_uid != os.geteuid() and os.geteuid() != 0:
        yield Finding(
            Level.ERROR,
            "permissions",
            path.name,
            "It belongs to another user than the one who runs this.",
            "Run Muster as the user that owns the home.",
        )
    else:
        yield Finding(Level.OK, "permissions", path.name, f"mode {mode:04o}")


def _examine_disk(path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    message = f"{free // (1024 * 1024):,} MiB are free."
    remedy = "Make room: without it nothing can be committed, and nobody can claim."
    if free < _NO_DISK:
        return Finding(Level.ERROR, "disk", str(path), message, remedy)
    if free < _LOW_DISK:
        return Finding(Level.WARNING, "disk", str(path), message, remedy)
    return Finding(Level.OK, "disk", str(path), message)


async def _examine_registry(installation: Installation) -> list[Finding]:
    try:
        async with installation.registry() as registry:
            found = await examine_registry(registry, installation.clock)
            found += await examine_campaigns(registry, installation.clock)
            found += await examine_ca_rollover(registry, installation.clock)
            found += await _examine_claim_crl(installation, registry)
            found += await examined(installation, registry)
            repository = update_repository(installation.home, None)
            found += await examine_lost_updates(registry, repository)
            return found + await examine_rollouts(registry, installation.clock)
    except RegistryError as error:
        return [registry_failed(error)]


async def _examine_claim_crl(installation: Installation, registry: Registry) -> list[Finding]:
    file = installation.home.crl_file(Zone.CLAIM)
    named = str(file.relative_to(installation.home.path))

    def missing(serials: Sequence[CertificateSerial]) -> list[CertificateSerial]:
        return unlisted(file, serials)

    try:
        return await examine_claim_crl(registry, installation.clock, missing, named)
    except AuthorityError:
        return []  # the inspection of the home says so


def _examine_service(installation: Installation) -> Iterator[Finding]:
    """Embedded brokers end with the service, so only a Mosquitto can hide that there is none."""
    if installation.serves_another_registry():
        yield Finding(
            Level.ERROR,
            "registry_replaced",
            installation.home.registry.name,
            "It took the place of the one that the service has open, which commits nothing now.",
            "Put the former file back, and the service goes on by itself. To use this one: stop "
            "the service, remove registry.db-wal and registry.db-shm, put it in place once more, "
            "and start again.",
        )
    zones = [installation.settings.zone(zone) for zone in Zone]
    if all(zone.broker is not BrokerKind.MOSQUITTO for zone in zones):
        return
    if installation.is_served() is False:
        yield Finding(
            Level.WARNING,
            "service",
            "run/service.lock",
            "No service runs on this home: devices reach Mosquitto, and nobody answers them.",
            "Start it: 'systemctl start muster', or 'muster up'. If it runs on another machine, "
            "run doctor there.",
        )


async def _examine_steering(installation: Installation, zone: Zone) -> list[Finding]:
    """Whether the service can have a Mosquitto read a CRL and end a connection."""
    settings = installation.settings.zone(zone)
    if settings.broker is not BrokerKind.MOSQUITTO:
        return []
    subject = f"{zone} broker"
    try:
        await _check_steering(installation.home.path, settings)
        await check_admin_socket(installation, zone)
    except BrokerControlError as error:
        message, remedy = _sentence(error.message), _sentence(error.remedy)
        return [Finding(Level.ERROR, "broker_control", subject, message, remedy)]
    return [Finding(Level.OK, "broker_control", subject, "The service can steer it.")]


def _sentence(said: str) -> str:
    return f"{said[:1].upper()}{said[1:]}."


async def _check_steering(home: Path, settings: ZoneSettings) -> None:
    listening = 0
    if settings.admin_socket is not None:
        name = f"muster-admin-{secrets.token_hex(8)}"
        listening = await visit(home / settings.admin_socket, name, _ADMIN_TIMEOUT_S)
    if settings.reload_socket is not None:
        _check_reload_socket(home / settings.reload_socket)
    elif settings.pid_file is not None:
        await asyncio.to_thread(_check_pid_file, home / settings.pid_file, listening)


def _check_reload_socket(path: Path) -> None:
    """Whether somebody listens, without a reload: to connect would be to ask for one, also of a
    damaged CRL. A socket of another type can't connect, and hears of a listener nevertheless
    (EPROTOTYPE, unix(7)).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        try:
            other.connect(str(path))
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                return
            reason = error.strerror or str(error)
        else:
            reason = "it isn't the supervisor's"
    raise BrokerControlError(
        BrokerControlCode.BROKER_DOWN,
        f"nobody reloads Mosquitto through {path}: {reason}",
        "start it by mosquitto/supervise.py, and give the service access to the socket's folder",
    )


def _check_pid_file(path: Path, listening: int) -> None:
    """Args: listening: the process behind the admin socket; 0 when it can't be seen from here."""
    try:
        with path.open("rb") as file:
            pid = int(file.read(32))
    except (OSError, ValueError) as error:
        raise _no_process(path, "doesn't name a process") from error
    if not _lives(pid):
        raise _no_process(path, f"names process {pid}, which doesn't run")
    if listening not in (0, pid):
        raise BrokerControlError(
            BrokerControlCode.BROKER_MISMATCH,
            f"{path} says {pid}, but process {listening} listens on the admin socket",
            "set pid_file and admin_socket to those of the same Mosquitto",
        )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it lives; the service may be another user than the one who asks here
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0  # 0 and below are groups of processes: kill(2)


def _no_process(path: Path, what: str) -> BrokerControlError:
    remedy = (
        "start Mosquitto with Muster's configuration, which writes it, or correct pid_file; under "
        "mosquitto/supervise.py there is none, set reload_socket"
    )
    return BrokerControlError(BrokerControlCode.BROKER_DOWN, f"{path} {what}", remedy)
