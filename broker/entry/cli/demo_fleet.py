"""A batch of devices that claim, each with the device's own program and a state of its own."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.entry.cli.output import advance, progress
from broker.protocol.bundle import ClaimBundle
from broker.protocol.names import SerialNumber
from device_client import keystore
from device_client.agent import Agent
from device_client.enrollment import Enrollment, bundle_from
from device_client.status import StatusFile

_AT_ONCE: Final = 8
_TIMEOUT_S: Final = 60.0


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
