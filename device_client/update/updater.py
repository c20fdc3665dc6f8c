"""The work on one assignment, up to the switch; `trial.py` does what follows.

Each step is written down before the next begins, and can be done again after a crash. Whatever the
disk, the network or the director do, what runs goes on running until a whole, verified image is
ready in the other slot.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime

from broker.protocol.updates import AssignedTarget, Assignment, Phase
from device_client.errors import DeviceError, StateUnusable
from device_client.finishing import to_its_end
from device_client.update import sink, steps
from device_client.update.codes import LASTING, PASSING, UpdateCode, UpdateRefused
from device_client.update.health import HealthCheck
from device_client.update.images import (
    Hardware,
    Image,
    Running,
    check_dependencies,
    check_fit,
)
from device_client.update.installers.port import MARGIN, Installer
from device_client.update.journal import WITHDRAWABLE, Journal, Stage, State
from device_client.update.restarting import Restart
from device_client.update.sink import FileSink

log = logging.getLogger(__name__)

Fetch = Callable[[AssignedTarget, FileSink], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Means:
    """What the updater works with."""

    hardware: Hardware
    installers: Mapping[str, Installer]
    """By component; what has none isn't updated."""
    health: HealthCheck
    restart: Restart
    clock: Callable[[], datetime]
    """The time in UTC, never before what is proven."""
    most_failures: int = 8
    """Tries before the switch; then the assignment is refused."""
    most_starts: int = 3
    """Starts of a new image without a verdict; then it's rolled back."""
    most_switches: int = 24
    """In a day; a stolen director's key may choose between signed images again and again."""
    patience_s: float = 30.0
    """Until another try when the disk wouldn't take a step."""


class Updater:
    """One device's updates; what it's at is in the journal, which is open."""

    def __init__(self, journal: Journal, means: Means) -> None:
        self.journal = journal
        self.means = means
        self.busy = asyncio.Lock()
        """Held by whoever takes the work from one stage to another."""
        self._writing = asyncio.Lock()
        self._changed = asyncio.Condition()

    @property
    def state(self) -> State:
        """What the disk holds."""
        return self.journal.state

    async def consider(self, assignment: Assignment) -> None:
        """Takes up an authentic assignment; one that was taken up before changes nothing.

        While an image is switched or on trial, it waits for the outcome.

        Raises:
            UpdateRefused: ASSIGNMENT_REPLAYED.
        """
        while True:
            await self._until(lambda state: state.stage is None or state.stage in WITHDRAWABLE)
            async with self.busy:
                if self.state.stage is None or self.state.stage in WITHDRAWABLE:
                    await self._take_up(assignment)
                    return

    async def follow_directors(self, keyids: Set[str], threshold: int) -> bool:
        """Heeds who the director is; whether what was counted under former keys is forgotten."""
        now, before = self.means.clock(), self.state
        if steps.directed(before, keyids, threshold, now) == before:
            return False
        async with self.busy:
            after = await self.change(lambda state: steps.directed(state, keyids, threshold, now))
        return after.sequence < before.sequence or before.learned is not after.learned

    async def learn(self, moment: datetime) -> None:
        """Keeps what the director says of the time."""
        if steps.learned(self.state, moment) is not self.state:
            await self.change(lambda state: steps.learned(state, moment))

    async def choose(self, images: tuple[Image, ...]) -> None:
        """Goes on to fetch the images, as far as they don't run already.

        Raises:
            UpdateRefused: why they may not run here.
        """
        running = self.state.running
        new = tuple(
            image
            for image in images
            if running.get(image.facts.component, Running()).sha256 != image.target.sha256
        )
        for image in new:
            if image.facts.component not in self.means.installers:
                raise UpdateRefused(
                    UpdateCode.COMPONENT_UNKNOWN,
                    f"This device has no component {image.facts.component}.",
                )
            check_fit(image, self.means.hardware, running.get(image.facts.component, Running()))
        check_dependencies(new, running)
        async with self.busy:
            if not new:
                await self.finish(Phase.INSTALLED)
                return
            now = self.means.clock()
            await self.change(
                lambda state: steps.progressed(steps.chosen(state, new), Phase.DOWNLOADING, now)
            )

    async def download(self, fetch: Fetch) -> None:
        """Fetches what is missing of the images, and reads it back from storage.

        Raises:
            UpdateRefused: an image isn't the signed one, or there's no room.
            DeviceError: it couldn't be fetched.
        """
        work = self.state.work
        assert work is not None, "there is something to download"  # noqa: S101
        for image in work.images:
            installer = self.means.installers[image.facts.component]
            try:
                receiving = await sink.opened(await installer.staging(image), image.target)
                missing = image.target.length - receiving.position
                if await installer.room() < missing + MARGIN:
                    raise UpdateRefused(
                        UpdateCode.SPACE_MISSING, f"{image.target.path} needs {missing} bytes more."
                    )
                if missing:
                    await fetch(image.target, receiving)
                await receiving.finish()
            except OSError as error:
                raise UpdateRefused(
                    UpdateCode.STORAGE_UNUSABLE, f"The image can't be stored: {error}."
                ) from error
        async with self.busy:
            now = self.means.clock()
            await self.change(
                lambda state: steps.progressed(steps.moved(state, Stage.READY), Phase.WAITING, now)
            )

    async def fail(self, error: DeviceError) -> None:
        """Counts a try in vain, unless time alone will mend it; the last one, or what no try can
        mend, ends in a refusal."""
        refused = _as_refusal(error)
        now = self.means.clock()
        async with self.busy:
            work = self.state.work
            if work is None or work.stage not in WITHDRAWABLE:
                return
            tried = work.failures + (refused.why not in LASTING)
            if refused.why not in PASSING or tried >= self.means.most_failures:
                log.warning("refused for good: %s: %s", refused.stable_code, refused)
                await self.change(lambda state: steps.given_up(state, refused, now))
            else:
                await self.change(lambda state: steps.failed(state, refused, now, tried))

    async def note(self, error: DeviceError) -> None:
        """Keeps for people why something was refused that isn't worth a report."""
        refused, now = _as_refusal(error), self.means.clock()
        known = self.state.refusal
        if known is None or (known.code, known.message) != (refused.stable_code, str(refused)):
            await self.change(lambda state: steps.noted(state, refused, now))

    async def change(self, step: Callable[[State], State]) -> State:
        """Writes what the step makes of the record.

        Raises:
            UpdateRefused: STORAGE_UNUSABLE; nothing has changed.
        """
        try:
            async with self._writing:
                state = await to_its_end(
                    asyncio.to_thread(lambda: self.journal.change(step(self.journal.state)))
                )
        except OSError as error:
            raise UpdateRefused(
                UpdateCode.STORAGE_UNUSABLE, f"The journal can't be written: {error}."
            ) from error
        async with self._changed:
            self._changed.notify_all()
        return state

    async def until_changed(self, since: State) -> None:
        """Returns when the record isn't `since` any more."""
        await self._until(lambda state: state is not since)

    async def finish(self, phase: Phase) -> None:
        """Ends the work with its final report; `busy` is held."""
        now = self.means.clock()
        await self.change(lambda state: steps.finished(state, phase, now))

    async def _take_up(self, assignment: Assignment) -> None:
        known = self.state.sequence
        if assignment.sequence < known:
            raise UpdateRefused(
                UpdateCode.ASSIGNMENT_REPLAYED,
                f"Assignment {assignment.sequence} is older than {known}.",
            )
        if assignment.sequence == known and self.state.work is None:
            return
        now = self.means.clock()
        if steps.taken_up(self.state, assignment, now) != self.state:
            await self.change(lambda state: steps.taken_up(state, assignment, now))

    async def _until(self, holds: Callable[[State], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: holds(self.state))


def _as_refusal(error: DeviceError) -> UpdateRefused:
    if isinstance(error, UpdateRefused):
        return error
    if isinstance(error, StateUnusable):
        return UpdateRefused(UpdateCode.STORAGE_UNUSABLE, str(error))
    try:
        code = UpdateCode(error.stable_code)
    except ValueError:
        code = UpdateCode.IMAGE_UNAVAILABLE
    return UpdateRefused(code, str(error))
