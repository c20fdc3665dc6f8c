"""Waiting for the service to carry out what acts on devices asked for."""

import asyncio
from collections.abc import Callable, Iterable

from broker.core.records import LockOut
from broker.ports.registry import ReadTransaction, Registry

_PAUSE_S = 0.05


async def follow(
    registry: Registry,
    lock_outs: Iterable[LockOut],
    within_s: float,
    on_settled: Callable[[int], None],
) -> dict[str, LockOut]:
    """How each stands when all are settled, or the time is over; by its id.

    Settled is what is complete, or what a later act has ended.

    Args:
        lock_outs: those to wait for.
        within_s: for how long at most, in seconds.
        on_settled: is told of each that settles, by how many at a time.
    """
    known = {each.id: each for each in lock_outs}
    pending = [each.id for each in known.values() if not _is_settled(each)]
    on_settled(len(known) - len(pending))
    try:
        async with asyncio.timeout(within_s):
            while pending:
                for each in await _read(registry, pending):
                    known[each.id] = each
                left = [each for each in pending if not _is_settled(known[each])]
                on_settled(len(pending) - len(left))
                pending = left
                if pending:
                    await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        pass
    return known


async def _read(registry: Registry, ids: list[str]) -> list[LockOut]:
    def work(view: ReadTransaction) -> list[LockOut]:
        found = (view.lock_out(each) for each in ids)
        return [each for each in found if each is not None]

    return await registry.read(work)


def _is_settled(lock_out: LockOut) -> bool:
    return lock_out.is_complete or lock_out.ended_at is not None
