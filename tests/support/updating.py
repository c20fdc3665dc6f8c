"""A device with an updater, without a broker: its disk, its clock, its health, its downloads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from broker.protocol import codec
from broker.protocol.names import DeviceId
from broker.protocol.updates import AssignedTarget, Phase, UpdateReport
from device_client.backoff import Backoff
from device_client.timekeeping import Timekeeper
from device_client.update.codes import UpdateRefused
from device_client.update.images import Hardware, Running
from device_client.update.installers.directory import DirectorySlots
from device_client.update.installers.port import Installer
from device_client.update.journal import Journal, Stage
from device_client.update.pursuit import Pursuit
from device_client.update.repository import Repository
from device_client.update.restarting import NoRestart, Restart
from device_client.update.sink import FileSink
from device_client.update.store import MetadataStore
from device_client.update.trial import attend
from device_client.update.updater import Means, Updater
from tests.support.update_repository import NOW, FilesSource, MadeRepository

DEVICE = DeviceId("meter-1")
FACTORY = b"what the maker flashed"


@dataclass
class Health:
    """Passes unless it's told a reason; hangs while `hangs` is set."""

    why: UpdateRefused | None = None
    asked: int = 0
    hangs: bool = False

    async def pass_or_fail(self) -> None:
        """As `HealthCheck` says."""
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.why is not None:
            raise self.why


@dataclass
class UpdatingDevice:
    """What survives restarts is in `home`; the rest is made anew by `start`."""

    home: Path
    made: MadeRepository
    hardware: Hardware = Hardware(model="meter", hw_rev="a")  # noqa: RUF009 - frozen
    clock: datetime = NOW
    health: Health = field(default_factory=Health)
    restart: Restart = field(default_factory=NoRestart)
    fetched: list[str] = field(default_factory=list)
    part: int = 4
    """Bytes of one write of a download."""
    most_failures: int = 3
    serve: dict[str, bytes] | None = None
    """What downloads deliver instead of the repository's images."""
    installer: Installer | None = None
    """None for directory slots."""

    def __post_init__(self) -> None:
        self.source = FilesSource(self.made.files)
        self.start()

    def start(self) -> None:
        """What a process does first."""
        self.timekeeper = Timekeeper(self.home.parent / "clock.json", lambda: self.clock)
        self.timekeeper.load()
        journal = Journal(self.home)
        journal.open({"main": Running(version="1.0.0", security_counter=1)})
        means = Means(
            hardware=self.hardware,
            installers={"main": self.installer or DirectorySlots(self.home / "main")},
            health=self.health,
            restart=self.restart,
            clock=self.timekeeper.now,
            most_failures=self.most_failures,
            patience_s=0.01,
        )
        self.updater = Updater(journal, means)

    @property
    def pursuit(self) -> Pursuit:
        """A connected device's work on an assignment."""
        store = MetadataStore(self.home / "metadata", self.made.first_root)
        return Pursuit(self.updater, Repository(store, self.source), self.timekeeper)

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """With the part at work that needs no connection."""
        task = asyncio.create_task(attend(self.updater))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def follow(self, payload: bytes) -> None:
        """Follows an assignment to its end, or until it waits for something."""
        async with self.attended(), asyncio.timeout(60):
            await self.pursuit.pursue(payload, DEVICE, self.fetch, no_waiting())

    async def begin(self, payload: bytes, until: Callable[[], bool]) -> None:
        """Follows it until something holds."""
        async with asyncio.timeout(60):
            following = asyncio.create_task(self.follow(payload))
            try:
                while not until() and not following.done():
                    state = self.updater.state
                    changed = asyncio.create_task(self.updater.until_changed(state))
                    await asyncio.wait(
                        {changed, following}, timeout=0.05, return_when="FIRST_COMPLETED"
                    )
                    changed.cancel()
                assert until(), following
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following

    async def settled(self) -> None:
        """After a restart without a connection, as far as it goes."""
        async with self.attended(), asyncio.timeout(60):
            while self.updater.state.stage not in (
                None, Stage.CHECKING, Stage.DOWNLOADING, Stage.READY,
            ):  # fmt: skip
                await self.updater.until_changed(self.updater.state)

    async def fetch(self, target: AssignedTarget, sink: FileSink) -> None:
        """A download that goes on where the last one stopped."""
        self.fetched.append(f"{target.path}@{sink.position}")
        content = (self.serve or self.made.images)[target.path]
        while part := content[sink.position : sink.position + self.part]:
            await sink.write(part)

    def current(self) -> bytes | None:
        """The image that would start now."""
        try:
            return (self.home / "main" / "current" / "image").read_bytes()
        except FileNotFoundError:
            return None

    def reports(self) -> list[UpdateReport]:
        """What is to be reported, the oldest first."""
        return [
            codec.decode(each.text.encode(), UpdateReport) for each in self.updater.state.outbox
        ]

    def finals(self) -> Sequence[tuple[int, Phase, str | None]]:
        """The final reports: sequence, phase, code."""
        return [(x.sequence, x.phase, x.code) for x in self.reports() if x.phase.is_final]

    @property
    def counter(self) -> int:
        """The security counter that was reached."""
        return self.updater.state.running["main"].security_counter


def flashed(home: Path, content: bytes = FACTORY) -> None:
    """A slot with what came from the factory, selected."""
    slot = home / "main" / "slots" / "factory"
    slot.mkdir(parents=True)
    (slot / "image").write_bytes(content)
    (home / "main" / "current").symlink_to("slots/factory")


def no_waiting() -> Backoff:
    """Tries again at once."""
    return Backoff(0.0, 0.0, lambda: 0.0)
