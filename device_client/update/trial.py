"""From the switch to the verdict: the part of an update that needs no network.

It goes on by itself after every restart, connected or not, because an image that can't reach its
fleet must be rolled back just then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from broker.protocol.updates import Phase
from device_client.update import sink, steps
from device_client.update.codes import PASSING, UpdateCode, UpdateRefused
from device_client.update.images import Image
from device_client.update.installers.port import Installer, InstallFailed
from device_client.update.journal import Stage, Work
from device_client.update.timing import switch_time
from device_client.update.updater import Updater

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 3_600.0
"""Clocks are set while one waits."""
_MOST_RESTARTS: Final = 2


async def attend(updater: Updater) -> None:
    """Switches when it's time, tries what was switched, and commits it or goes back; for ever."""
    while True:
        try:
            wait_s = await Trial(updater).settle()
        except (UpdateRefused, OSError) as error:
            log.warning("the update can't go on: %s", error)
            wait_s = updater.means.patience_s
        except Exception:
            # A device whose agent ends here at each start is out of reach for good.
            log.exception("the update can't go on")
            wait_s = updater.means.patience_s
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await updater.until_changed(updater.state)


class Trial:
    """Takes the work from where it stands to where only time or the network can take it further."""

    def __init__(self, updater: Updater) -> None:
        self._updater = updater
        self._means = updater.means
        self._do: dict[Stage | None, Callable[[Work], Awaitable[None]]] = {
            Stage.SWITCHING: self._switch,
            Stage.RESTARTING: self._restart,
            Stage.TRIAL: self._try,
            Stage.ROLLING_BACK: self._roll_back,
            Stage.RETURNING: self._return,
        }

    async def settle(self) -> float:
        """Does what can be done; how many seconds until there may be more to do.

        Raises:
            UpdateRefused: the disk doesn't take a step now.
            OSError: the disk can't be read.
        """
        async with self._updater.busy:
            while (work := self._updater.state.work) is not None:
                if work.stage is Stage.READY:
                    wait_s = self._wait(work)
                    if wait_s > 0:
                        return wait_s
                    await self._begin(work)
                elif work.stage in self._do:
                    await self._do[work.stage](work)
                else:
                    break
        return _LONGEST_WAIT_S

    def _wait(self, work: Work) -> float:
        now = self._means.clock()
        if work.expires <= now:
            return _LONGEST_WAIT_S
        wait = switch_time(work, now) - now
        lately = steps.lately_switched(self._updater.state, now)
        if len(lately) >= self._means.most_switches:
            log.warning("%d images were switched within a day: the next one waits", len(lately))
            wait = max(wait, lately[0] + timedelta(days=1) - now)
        return min(max(wait, timedelta()).total_seconds(), _LONGEST_WAIT_S)

    async def _begin(self, work: Work) -> None:
        """The images may have lain there for long: what isn't as it was is fetched again."""
        try:
            for image in work.images:
                installer = self._installer(image)
                await sink.verify(await installer.staging(image), image.target)
        except UpdateRefused as error:
            refused, now, tried = error, self._means.clock(), work.failures + 1
            await self._updater.change(
                lambda state: (
                    steps.failed(state, refused, now, tried)
                    if refused.why in PASSING
                    else steps.given_up(state, refused, now)
                )
            )
            return
        now = self._means.clock()
        await self._updater.change(lambda state: steps.switching(state, now))

    async def _switch(self, work: Work) -> None:
        try:
            for image in work.images:
                installer = self._installer(image)
                if not await installer.runs(image):
                    file = await installer.staging(image)
                    await sink.verify(file, image.target)
                    await installer.install(image, file)
            for image in work.images:
                await self._installer(image).switch(image)
        except UpdateRefused as error:
            await self._undo(error)
        except Exception as error:
            # Whatever an image makes an installer stumble over: a step that is repeated for ever,
            # after each restart of the agent, would be the end of this device.
            log.debug("the switch failed", exc_info=error)
            why = str(error) if isinstance(error, InstallFailed | OSError) else repr(error)
            await self._undo(UpdateRefused(UpdateCode.INSTALL_FAILED, why))
        else:
            await self._move(Stage.RESTARTING, boot=self._means.restart.run_id())

    async def _restart(self, work: Work) -> None:
        failed = await self._start(work)
        if failed is not None:
            await self._undo(failed)
        else:
            await self._move(Stage.TRIAL)

    async def _start(self, work: Work) -> UpdateRefused | None:
        """Starts what is selected; why that failed, if it did.

        After a crash it's done again, as the crash may have come first. Where a run has no name
        it's done once more only, as the program may restart this very agent."""
        run_id = self._means.restart.run_id()
        if work.boot != run_id or (not run_id and work.restarts >= _MOST_RESTARTS):
            return None
        await self._move(work.stage, restarts=work.restarts + 1)
        try:
            await self._means.restart.perform()
        except UpdateRefused as error:
            return error
        return None

    async def _try(self, work: Work) -> None:
        if work.starts >= self._means.most_starts:
            why = f"It was started {work.starts} times and came to no verdict."
            await self._undo(UpdateRefused(UpdateCode.ATTEMPTS_SPENT, why))
            return
        await self._move(Stage.TRIAL, starts=work.starts + 1)
        try:
            for image in work.images:
                if not await self._installer(image).runs(image):
                    raise UpdateRefused(
                        UpdateCode.HEALTH_FAILED, f"{image.target.path} isn't what was started."
                    )
            await self._means.health.pass_or_fail()
            for image in work.images:
                await self._installer(image).commit(image)
        except InstallFailed as error:
            await self._undo(UpdateRefused(UpdateCode.INSTALL_FAILED, str(error)))
        except UpdateRefused as error:
            await self._undo(error)
        else:
            await self._updater.finish(Phase.INSTALLED)
            log.info("committed the update of rollout %s", work.rollout)

    def _installer(self, image: Image) -> Installer:
        component = image.facts.component
        try:
            return self._means.installers[component]
        except KeyError:
            raise UpdateRefused(
                UpdateCode.COMPONENT_UNKNOWN,
                f"The component {component} isn't in the configuration any more.",
            ) from None

    async def _undo(self, error: UpdateRefused) -> None:
        log.warning("rolling back: %s: %s", error.stable_code, error)
        now = self._means.clock()
        await self._updater.change(lambda state: steps.undoing(state, error, now))

    async def _roll_back(self, work: Work) -> None:
        failures = []
        for image in reversed(work.images):
            try:
                await self._installer(image).roll_back(image)
            except (InstallFailed, UpdateRefused, OSError) as error:
                failures.append(error)
        if failures:
            await self._fail_to_go_back(work, failures[0])
        else:
            await self._move(Stage.RETURNING, boot=work.boot and self._means.restart.run_id())

    async def _fail_to_go_back(self, work: Work, error: Exception) -> None:
        """Whatever keeps it from going back may pass. If it doesn't, the fleet has to know, and the
        next assignment may be what mends this device.

        Raises:
            UpdateRefused: ROLLBACK_FAILED; it's tried again.
        """
        why = f"What ran before can't be selected after {work.why}: {error}"
        failed, now = UpdateRefused(UpdateCode.ROLLBACK_FAILED, why), self._means.clock()
        if work.undo_failures + 1 < self._means.most_failures:
            await self._updater.change(lambda state: steps.stuck(state, failed, now))
            raise failed
        log.error("given up: %s", failed)
        await self._updater.change(lambda state: steps.not_undone(state, failed, now))

    async def _return(self, work: Work) -> None:
        failed = await self._start(work)
        if failed is not None:
            log.error("what ran before can't be started: %s", failed)
        await self._updater.finish(Phase.ROLLED_BACK)

    async def _move(self, stage: Stage, **changes: object) -> None:
        await self._updater.change(lambda state: steps.moved(state, stage, **changes))
