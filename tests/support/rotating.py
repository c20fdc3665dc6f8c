"""Members whose certificate is replaced, and what must be true of them whatever happened."""

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from broker.core.lifecycle import CertificateState, DeviceState
from device_client import keystore
from device_client.identity import Identity
from device_client.settings import Timing
from tests.support.device_agents import device
from tests.support.stack import STUBBORN, Stack
from tests.support.waiting import eventually

DAYS: Final = timedelta(days=90)
EXPIRING: Final = timedelta(seconds=2)
IMPATIENT: Final = dataclasses.replace(STUBBORN, connect_s=2.0, answers_s=(0.5, 1.0))
_numbers = itertools.count(1)


async def member(stack: Stack, state: Path, lifetime: timedelta = DAYS) -> str:
    """A device that is a member; with a short lifetime its certificate is over by now.

    Returns its serial number.
    """
    serial = f"device-{next(_numbers)}"
    await stack.installation.enroll([serial])
    await stack.installation.save_group(lifetime=lifetime)
    identity = await stack.claim_device(serial, state, timing=STUBBORN)
    await stack.installation.save_group(lifetime=DAYS)
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
            assert other.grace_until <= datetime.now(UTC) + timedelta(hours=1)
    assert (await stack.device(serial)).state is DeviceState.ACTIVE
    slots = [path.name for path in (state / "credentials").iterdir()]
    assert slots == [identity.directory.name]
