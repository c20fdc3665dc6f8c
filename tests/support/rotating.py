"""Members whose certificate is replaced, and what must be true of them whatever happened."""

import dataclasses
import itertools
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from broker.core.lifecycle import CertificateState, DeviceState
from device_client import keystore
from device_client.identity import Identity
from device_client.settings import Timing
from tests.support.acting import as_client, is_admitted
from tests.support.certificates import Client
from tests.support.device_agents import device
from tests.support.stack import STUBBORN, Stack
from tests.support.waiting import eventually

DAYS: Final = timedelta(days=90)
EXPIRING: Final = timedelta(seconds=2)
IMPATIENT: Final = dataclasses.replace(STUBBORN, connect_s=2.0, answers_s=(0.5, 1.0))
HOUR: Final = timedelta(hours=1)
SWEPT_WITHIN: Final = timedelta(seconds=20)
"""After the end of a grace, on a machine that is busy, where the service's sweeps hardly rest."""
_numbers = itertools.count(1)


async def member(
    stack: Stack, state: Path, lifetime: timedelta = DAYS, grace: timedelta = HOUR
) -> str:
    """A device that is a member; with a short lifetime its certificate is over by now.

    Its next certificate lasts for long; then this one has its `grace`. Returns its serial number.
    """
    serial = f"device-{next(_numbers)}"
    await stack.installation.enroll([serial])
    await stack.installation.save_group(lifetime=lifetime)
    identity = await stack.claim_device(serial, state, timing=STUBBORN)
    await stack.installation.save_group(lifetime=DAYS, rotation_grace=grace)
    if lifetime < DAYS:
        await eventually(lambda: datetime.now(UTC) > identity.not_after)
    return serial


async def renewed(stack: Stack, serial: str, state: Path, timing: Timing = STUBBORN) -> Identity:
    """The agent replaces the certificate, whatever stands in its way meanwhile."""
    with device(state, stack.bundle(), serial, timing=timing) as (agent, _):
        return await agent.renew(60)


async def recovered(stack: Stack, serial: str, state: Path, timing: Timing = STUBBORN) -> Identity:
    """The agent finds its certificate expired, and comes back."""
    return await stack.claim_device(serial, state, timing=timing)


def key_of(state: Path) -> str:
    """The fingerprint of the key of the identity in use."""
    identity = keystore.looked_at(state).current()
    assert identity is not None
    return identity.key_sha256


def kept_client(stack: Stack, state: Path, place: Path) -> Client:
    """The identity in use, in files that outlast it."""
    identity = keystore.looked_at(state).current()
    assert identity is not None
    shutil.copytree(identity.directory, place, copy_function=os.link)
    return as_client(stack, dataclasses.replace(identity, directory=place))


async def assert_ended(stack: Stack, old: Client, old_key: str) -> None:
    """The broker lets nobody in by the old certificate beyond its grace, whatever the registry says
    of it; not for longer than a sweep takes."""
    admitted_at = datetime.min.replace(tzinfo=UTC)

    async def is_kept_out() -> bool:
        nonlocal admitted_at
        asked_at = datetime.now(UTC)
        if not await is_admitted(stack, old):
            return True
        admitted_at = asked_at
        return False

    await eventually(is_kept_out)
    (ended,) = [c for c in await stack.certificates() if c.key_sha256 == old_key]
    assert ended.grace_until is not None
    end = min(ended.grace_until, ended.not_after)
    assert admitted_at < end + SWEPT_WITHIN
    assert datetime.now(UTC) >= end, "it was still needed"


async def assert_settled(stack: Stack, serial: str, state: Path) -> None:
    """The device and the registry agree on one proven certificate; others have an hour at most."""
    store = keystore.looked_at(state)
    identity = store.current()
    assert identity is not None
    assert identity.confirmed_at is not None
    assert store.succession.successor() is None
    certificates = await stack.live_certificates(serial)
    (active,) = [c for c in certificates if c.state is CertificateState.ACTIVE]
    assert active.certificate_sha256 == identity.certificate_sha256
    for other in certificates:
        if other is not active:
            assert other.state is CertificateState.SUPERSEDED, other
            assert other.grace_until is not None
            assert other.grace_until <= datetime.now(UTC) + HOUR
    assert (await stack.device(serial)).state is DeviceState.ACTIVE
    slots = [path.name for path in (state / "credentials").iterdir()]
    assert slots == [identity.directory.name]
