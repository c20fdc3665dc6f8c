"""A batch of devices that claim and live, each by the device's own program, with its own state."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.entry.cli.demo_update import FACTORY, MODEL
from broker.entry.cli.output import advance, progress
from broker.protocol import codec
from broker.protocol.bundle import ClaimBundle
from broker.protocol.names import SerialNumber
from device_client import keystore
from device_client.agent import Agent, utc_now
from device_client.enrollment import Enrollment, bundle_from
from device_client.settings import Timing
from device_client.status_note import StatusFile
from device_client.timekeeping import CLOCK_FILE, Timekeeper
from device_client.update import config, entry
from device_client.update.config import Component, DeviceConfig

_AT_ONCE: Final = 8
_TIMEOUT_S: Final = 60.0
_FAILING_CHECK: Final = (sys.executable, "-c", "raise SystemExit('the sensor reads nothing')")


@dataclass(frozen=True)
class Claimed:
    """A device that was accepted and has proven it."""

    serial: SerialNumber
    device_id: str
    took_s: float
    """From its first packet to the proof in the fleet zone."""


async def claim_all(
    folder: Path, bundle_file: Path, serials: Sequence[SerialNumber]
) -> list[Claimed]:
    """Every device claims, a few at once.

    Raises:
        DeviceError: a device gave up.
    """
    logging.getLogger("device_client").setLevel(logging.ERROR)
    bundle = bundle_from(bundle_file)
    slots = asyncio.Semaphore(_AT_ONCE)
    with progress("claiming", len(serials)) as bar:

        async def claim(serial: SerialNumber) -> Claimed:
            async with slots:
                claimed = await _claim(folder / serial, bundle, serial)
            advance(bar, 1)
            return claimed

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(claim(serial)) for serial in serials]
    return [task.result() for task in tasks]


async def _claim(folder: Path, bundle: ClaimBundle, serial: SerialNumber) -> Claimed:
    with ExitStack() as stack:
        store = await asyncio.to_thread(stack.enter_context, keystore.opened(folder))
        await asyncio.to_thread(store.remember, Enrollment(bundle=bundle, serial=serial))
        began = time.monotonic()
        identity = await Agent(store, StatusFile(folder)).claim(_TIMEOUT_S)
        return Claimed(serial, identity.device_id, time.monotonic() - began)


@asynccontextmanager
async def living(
    folder: Path, serials: Sequence[SerialNumber], failing: SerialNumber | None
) -> AsyncIterator[None]:
    """The devices that have claimed stay connected and follow updates, until the block ends.

    The new image doesn't do on `failing`: its own health check says so.
    """
    with ExitStack() as stack:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(await _life(stack, folder / serial, serial == failing))
                for serial in serials
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


async def _life(stack: ExitStack, folder: Path, is_failing: bool) -> Coroutine[Any, Any, None]:
    store = await asyncio.to_thread(stack.enter_context, keystore.opened(folder))
    await asyncio.to_thread(_tell, folder, is_failing)
    timekeeper = Timekeeper(folder / CLOCK_FILE, utc_now)
    duty = await asyncio.to_thread(entry.prepare, store, timekeeper, Timing())
    duties = [duty] if duty else []
    agent = Agent(store, StatusFile(folder), duties=duties, timekeeper=timekeeper)
    return entry.beside(duty, agent.run())


def _tell(folder: Path, is_failing: bool) -> None:
    """What the maker writes onto a device: its model, and how it sees that it's well."""
    known = DeviceConfig(
        model=MODEL,
        components={"main": Component(version=FACTORY, security_counter=1)},
        health=_FAILING_CHECK if is_failing else None,
    )
    file = folder / "maker.json"
    file.write_bytes(codec.encode(known))
    config.remember(folder / entry.FOLDER, file, None, None)
