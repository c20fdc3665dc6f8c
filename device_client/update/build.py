"""Puts the updater together from the device's configuration."""

from collections.abc import Callable
from pathlib import Path

from device_client.backoff import Backoff
from device_client.errors import ArgumentInvalid
from device_client.online import Online
from device_client.settings import Timing
from device_client.timekeeping import Timekeeper
from device_client.update.config import Component, DeviceConfig, Kind
from device_client.update.duty import Lines, UpdateDuty
from device_client.update.fetching import fetcher
from device_client.update.health import Both, CommandCheck, HealthCheck, Line, OnlineCheck
from device_client.update.images import Hardware
from device_client.update.installers.command import CommandSlots, Programs
from device_client.update.installers.directory import DirectorySlots
from device_client.update.installers.port import Installer
from device_client.update.journal import Journal
from device_client.update.reports import Reporting
from device_client.update.restarting import NoRestart, Reboot, Restart, ServiceRestart
from device_client.update.sources import MetadataSource, RetainedSource, WebSource
from device_client.update.store import MetadataStore
from device_client.update.updater import Means, Updater

_ABSENT_AFTER_S = 3.0
"""Of silence: what is retained comes at once, or begins to."""


def updates(
    directory: Path,
    config: DeviceConfig,
    first_root: bytes | None,
    timekeeper: Timekeeper,
    timing: Timing,
    chance: Callable[[], float],
    named_hosts: tuple[str, ...] = (),
) -> UpdateDuty:
    """The duty, over the state in `directory`, which is made if need be; blocks on the disk.

    `named_hosts` are those that came flashed, with the claim bundle."""
    journal = Journal(directory)
    journal.open(config.factory())
    line = Line()
    means = Means(
        hardware=Hardware(model=config.model, hw_rev=config.hw_rev),
        installers={
            name: installer(directory / "components" / name, each)
            for name, each in config.components.items()
        },
        health=_health(config, line),
        restart=_restart(config),
        clock=timekeeper.now,
    )
    updater = Updater(journal, means)
    fetching = fetcher(config, directory, named_hosts, timekeeper, timing)
    again = Backoff(timing.slow_base_s, timing.slow_cap_s, chance)
    reporting = Reporting(
        updater, timing.answers_s, Backoff(timing.backoff_base_s, timing.slow_cap_s, chance)
    )
    return UpdateDuty(
        updater,
        MetadataStore(directory / "metadata", first_root),
        timekeeper,
        Lines(
            source=lambda on: _source(config, on),
            fetch=lambda on: fetching(on, updater),
        ),
        reporting,
        again,
        line,
    )


def installer(directory: Path, component: Component) -> Installer:
    """The component's slots.

    Raises:
        ArgumentInvalid: a program is missing that its kind needs.
    """
    place = Path(component.directory) if component.directory else directory
    match component.installer:
        case Kind.DIRECTORY:
            return DirectorySlots(place)
        case Kind.RAUC:
            from device_client.update.installers.rauc import RaucSlots

            return RaucSlots(place, timeout_s=component.timeout_s)
        case Kind.COMMAND:
            return CommandSlots(place, _programs(component))
        case Kind.MCUBOOT:
            from device_client.update.installers.mcuboot import McubootSlots

            return McubootSlots(place, _programs(component))


def _programs(component: Component) -> Programs:
    if component.install is None or component.roll_back is None:
        raise ArgumentInvalid(
            f"A component installed by '{component.installer}' needs the programs "
            "'install' and 'roll_back'.",
            "Add them to the configuration; docs/updates.md shows an example.",
        )
    return Programs(
        install=component.install,
        switch=component.switch,
        active=component.active,
        commit=component.commit,
        roll_back=component.roll_back,
        timeout_s=component.timeout_s,
    )


def _health(config: DeviceConfig, line: Line) -> HealthCheck:
    reached = OnlineCheck(line, config.health_timeout_s)
    if config.health is None:
        return reached
    return Both((reached, CommandCheck(config.health, config.health_timeout_s)))


def _restart(config: DeviceConfig) -> Restart:
    if config.reboot is not None:
        return Reboot(config.reboot, config.restart_timeout_s)
    if config.restart is not None:
        return ServiceRestart(config.restart, config.restart_timeout_s)
    return NoRestart()


def _source(config: DeviceConfig, online: Online) -> MetadataSource:
    if config.metadata_url is not None:
        return WebSource(config.metadata_url, online.identity.trust_bundle.anchors)
    return RetainedSource(online.connection, _ABSENT_AFTER_S)
