"""Fetching an image from whichever source has it, with patience, and never from the beginning
unless a source leaves no choice.
"""

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final, Protocol

from broker.protocol.updates import AssignedTarget
from device_client.backoff import Backoff
from device_client.fetch.budget import DailyBudget
from device_client.fetch.errors import (
    FetchError,
    ImageBudgetSpent,
    ImageTooLong,
    ImageUnavailable,
    SourceNotAllowed,
    SourceUnfit,
)
from device_client.fetch.intake import Intake
from device_client.fetch.limits import FetchLimits
from device_client.fetch.sink import BlockAsker, Sink
from device_client.fetch.suspects import Suspects

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)


_SUSPECTS: Final = Suspects()


class _Source(Protocol):
    @property
    def name(self) -> str:
        """By which it's remembered."""

    async def pour(self, intake: Intake) -> None: ...


async def fetch(
    target: AssignedTarget,
    sink: Sink,
    ask_blocks: BlockAsker | None,
    limits: FetchLimits,
    anchors: str,
    suspects: Suspects = _SUSPECTS,
) -> None:
    """Fills the sink to the target's length. What the bytes are worth, the caller's hash says.

    The target's sources are tried in their order, and then blocks over MQTT. Where one fails, the
    next goes on at the byte that the sink has reached. It may be cancelled at any time. When the
    same image is fetched again, the sources that it came from go last: it can't have been right.

    Args:
        ask_blocks: none where there is no connection to ask on.
        anchors: CA certificates in PEM that HTTPS servers are trusted by, besides the system's.
        suspects: what is remembered of sources, by default in this process.

    Raises:
        ImageTooLong, ImageTooSlow, ImageUnavailable: the last source's reason, when none is left or
            all have failed several times without getting on.
        SourceNotAllowed: the same, where a source is on a host that isn't asked.
        ImageBudgetSpent: it goes on tomorrow.
        ConnectionLost: while blocks were asked for.
        Exception: what the sink raised.
    """
    if sink.position > target.length:
        await sink.restart()
    intake = Intake(target, sink, limits)
    try:
        if intake.left:
            sources = await _sources(target, ask_blocks, limits, anchors)
            known = suspects.of(target.sha256)
            plan = _Plan(sorted(sources, key=lambda each: each.name in known), intake, limits)
            await plan.carry_out()
            suspects.completed(target.sha256, plan.givers)
    finally:
        if limits.budget is not None:
            await _keep(limits.budget)


async def _keep(budget: DailyBudget) -> None:
    """Whatever the disk says must not take the place of why the fetch has ended."""
    try:
        await budget.keep()
    except OSError as error:
        log.warning("what was fetched today couldn't be written down: %s", error)


class _Plan:
    """The sources that are left, and how often they have failed."""

    def __init__(self, sources: list[_Source], intake: Intake, limits: FetchLimits) -> None:
        self.givers: set[str] = set()
        """The sources that bytes have come from."""
        self._sources = sources
        self._not_allowed: SourceNotAllowed | None = None
        self._intake = intake
        self._limits = limits
        self._backoff = Backoff(limits.backoff_base_s, limits.backoff_cap_s, random.random)
        self._worth_while = max(1.0, limits.least_rate * limits.slow_window_s)
        """Bytes that a round must bring: else a source could keep us busy with one at a time."""

    async def carry_out(self) -> None:
        error: FetchError = ImageUnavailable(
            "The image has no source, and there is no connection to ask for blocks on.",
            "Connect the device, or give the rollout sources.",
        )
        fruitless = 0
        while self._sources:
            before = self._intake.position
            failed = await self._round()
            if failed is None:
                return
            error = failed
            if self._intake.position - before >= self._worth_while:
                fruitless = 0
                self._backoff.reset()
            elif (fruitless := fruitless + 1) >= self._limits.fruitless:
                break
            if self._sources:
                await asyncio.sleep(max(self._backoff.next(), error.retry_after_s))
        raise self._why(error)

    def _why(self, error: FetchError) -> FetchError:
        """Where the device's own settings stand in the way, that is what the operator can mend."""
        if self._not_allowed is None or isinstance(error, SourceNotAllowed):
            return error
        return SourceNotAllowed(f"{self._not_allowed} {error}", self._not_allowed.remedy)

    async def _round(self) -> FetchError | None:
        """Tries each source; the last one's reason when all have failed."""
        error = None
        for source in list(self._sources):
            error = await self._exhaust(source)
            if error is None:
                return None
        return error

    async def _pour(self, source: _Source) -> None:
        received = self._intake.received
        try:
            await source.pour(self._intake)
        finally:
            if self._intake.received > received:
                self.givers.add(source.name)

    async def _exhaust(self, source: _Source) -> FetchError | None:
        """Tries a source for as long as it gets on, with a pause where it breaks off."""
        while True:
            before = self._intake.position
            try:
                await self._pour(source)
            except ImageBudgetSpent:
                raise
            except FetchError as failed:
                log.warning("a source failed at byte %d: %s", self._intake.position, failed)
                if isinstance(failed, SourceNotAllowed):
                    self._not_allowed = failed
                if isinstance(failed, SourceUnfit | ImageTooLong):
                    self._sources.remove(source)
                gained = self._intake.position - before
                if type(failed) is not ImageUnavailable or gained < self._worth_while:
                    return failed
            else:
                return None
            self._backoff.reset()
            await asyncio.sleep(self._backoff.next())


async def _sources(
    target: AssignedTarget, ask_blocks: BlockAsker | None, limits: FetchLimits, anchors: str
) -> list[_Source]:
    """What each kind needs is loaded only where it is used: a device at rest has none of it."""
    sources: list[_Source] = []
    if target.sources:
        from device_client.fetch.exchange import trusting
        from device_client.fetch.http import HttpSource

        context: ssl.SSLContext = await asyncio.to_thread(trusting, anchors)
        sources += [HttpSource(url, target, limits, context) for url in target.sources]
    if ask_blocks is not None:
        from device_client.fetch.blocks import BlockSource

        sources.append(BlockSource(ask_blocks, target, limits))
    return sources
