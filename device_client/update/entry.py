"""The updater's place in the agent: what the command line says, and what runs beside it."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from device_client.arguments import Options
from device_client.errors import ArgumentInvalid
from device_client.keystore import Keystore
from device_client.settings import Timing
from device_client.timekeeping import Timekeeper
from device_client.update import build, config
from device_client.update.duty import UpdateDuty
from device_client.update.fetching import named_hosts
from device_client.update.trial import attend

FOLDER: Final = "update"


def remember(state: Path, options: Options) -> None:
    """Keeps what the command line says about updates.

    Raises:
        ArgumentInvalid: it can't be used.
    """
    directory = state / FOLDER
    kept = config.remember(directory, options.update_config, options.model, options.hw_rev)
    if options.hw_rev is not None and kept is None:
        raise ArgumentInvalid("A hardware revision needs a model.", "Give --model, too.")
    if options.update_root is not None:
        config.remember_root(directory, options.update_root)


def prepare(
    store: Keystore,
    timekeeper: Timekeeper,
    timing: Timing,
    chance: Callable[[], float] = random.random,
) -> UpdateDuty | None:
    """The duty to update, if this device was told what it is. Blocks on the disk."""
    directory = store.directory / FOLDER
    known = config.load(directory)
    if known is None:
        return None
    claim = store.enrollment_if_readable()
    flashed = claim.bundle.update_root if claim else None
    root = config.first_root(directory, flashed)
    hosts = named_hosts(claim.bundle if claim else None)
    timekeeper.load()
    return build.updates(directory, known, root, timekeeper, timing, chance, hosts)


async def beside(duty: UpdateDuty | None, agent: Coroutine[Any, Any, None]) -> None:
    """Runs the agent, and beside it what of an update needs no connection."""
    async with asyncio.TaskGroup() as tasks:
        attending = tasks.create_task(attend(duty.updater)) if duty else None
        await agent
        if attending:
            attending.cancel()
