"""Kill -9 of the service at every step by which a device is put out, or let in again.

In the end it is as the operator said: on the broker, in the registry, and for its live connection.
"""

import itertools
from pathlib import Path
from typing import Final

import pytest

from broker.core.lifecycle import DeviceInput
from broker.protocol.zones import Zone
from tests.fault.dying_revocation import KEPT
from tests.fault.dying_service import CRL_STEPS
from tests.support.acting import act, is_admitted, is_complete, joined, lock_outs
from tests.support.peers import peer
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS: Final = (*CRL_STEPS, *KEPT)
_numbers = itertools.count(1)


async def dies(stack: Stack, step: str) -> None:
    """Starts the service, which then dies of itself at `step`."""
    await stack.process.dies("dying_revocation", f"{step}:1")


def serials() -> list[str]:
    return [f"K{next(_numbers)}", f"K{next(_numbers)}"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_revocation_is_completed(stack: Stack, step: str, tmp_path: Path) -> None:
    revoked, neighbour = await joined(stack, tmp_path, *serials())
    await stack.kill_service()
    (acted,) = await act(stack, DeviceInput.REVOKE, revoked.name, within_s=0)
    assert acted.lock_out is not None
    assert not acted.lock_out.is_complete
    await dies(stack, step)
    await stack.start_service()
    await eventually(lambda: is_complete(stack, revoked.name))
    assert not await is_admitted(stack, revoked)
    assert await is_admitted(stack, neighbour)
    # One act, one lock-out, however often it was begun.
    assert len(await lock_outs(stack, revoked.name)) == 1


@pytest.mark.parametrize("step", STEPS)
async def test_a_live_connection_ends_with_the_next_life_at_the_latest(
    stack: Stack, step: str, tmp_path: Path
) -> None:
    """An embedded broker's connections end with its service; Mosquitto's live on."""
    revoked, _ = await joined(stack, tmp_path, *serials())
    async with peer(stack.ports[Zone.FLEET], revoked) as connection:
        await stack.kill_service()
        await act(stack, DeviceInput.REVOKE, revoked.name, within_s=0)
        await dies(stack, step)
        await stack.start_service()
        await connection.ended()
    await eventually(lambda: is_complete(stack, revoked.name))


@pytest.mark.parametrize("step", [s for s in STEPS if not s.startswith("lock-out")])
async def test_a_suspension_is_lifted_all_the_same(stack: Stack, step: str, tmp_path: Path) -> None:
    held, _ = await joined(stack, tmp_path, *serials())
    await act(stack, DeviceInput.SUSPEND, held.name)
    assert not await is_admitted(stack, held)
    await stack.kill_service()
    await act(stack, DeviceInput.RESUME, held.name, within_s=0)
    await dies(stack, step)
    await stack.start_service()
    await eventually(lambda: is_complete(stack, held.name))
    assert await is_admitted(stack, held)
