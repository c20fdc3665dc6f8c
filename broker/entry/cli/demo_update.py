"""The demonstration's update: a ceremony, an image, a rollout, and a device that rolls it back."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from broker.core.metadata_lifetime import Lifetimes
from broker.core.rollout import Progress, Selection
from broker.core.update_records import Part
from broker.entry.cli.rollout_shown import show_parts, watch
from broker.operating.installation import Installation
from broker.operating.updating import (
    Key,
    KeyReference,
    KeySet,
    NewImage,
    UpdateDesk,
    new_key,
    update_desk,
    update_repository,
)
from broker.ports.registry import Registry
from broker.ports.updates import PublishedTarget
from broker.protocol.names import GroupName
from broker.protocol.updates import ImageFacts
from broker.services import rollouts
from broker.services.problems import Problem, ProblemCode
from broker.services.rollouts import Push

MODEL: Final = "thermometer"
FACTORY: Final = "1.0.0"
_VERSION: Final = "1.1.0"
_NAME: Final = "thermometer-1-1-0"
_ALGORITHM: Final = "ed25519"
_SUPPORT: Final = timedelta(days=5 * 365)


@dataclass(frozen=True)
class Ceremony:
    """The repository, and the keys that somebody would have taken away by now."""

    desk: UpdateDesk
    targets: KeyReference

    def publish(self, folder: Path) -> PublishedTarget:
        """Makes an image and publishes it, signed by the targets key. Blocks."""
        image = folder / "thermometer.bin"
        image.write_bytes(f"what a thermometer {_VERSION} runs\n".encode() * 4096)
        facts = ImageFacts(
            model=MODEL,
            version=_VERSION,
            security_counter=1,
            support_until=datetime.now(UTC).replace(microsecond=0) + _SUPPORT,
            vulnerability_contact="mailto:security@example.com",
        )
        staged = self.desk.add(NewImage(image, facts))
        self.desk.sign([self.targets], staged)
        self.desk.publish()
        (published,) = update_repository(self.desk.home, None).targets()
        return published


def hold_ceremony(installation: Installation, media: Path) -> Ceremony:
    """Makes root's keys, of which two of three sign, and one of targets; then the repository.

    Blocks. A real ceremony has passphrases, and takes the keys away.
    """
    media.mkdir(mode=0o700)
    desk = update_desk(installation.home, None)
    root = [_key(media / f"root-{number}.key") for number in (1, 2, 3)]
    targets = _key(media / "targets-1.key")
    roots = KeySet([key for key, _ in root], 2)
    staged = desk.create(roots, KeySet([targets[0]], 1), Lifetimes(), _ALGORITHM)
    desk.sign([reference for _, reference in (*root[:2], targets)], staged)
    desk.publish()
    return Ceremony(desk, targets[1])


async def push(
    registry: Registry, installation: Installation, image: PublishedTarget, group: GroupName
) -> None:
    """Has the group install the image, and shows how it goes until the last one has reported."""
    wanted = Push(_NAME, (image.path,), Selection((), group, everyone=False))
    rollout = rollouts.planned(wanted, [image], installation.clock.now())
    await rollouts.start(registry, installation.clock, rollout)
    await watch(registry, _NAME, as_json=False)


async def show(registry: Registry, failing: str | None) -> None:
    """Where each device stands, by what the registry says.

    Raises:
        Problem: DEMO_FAILED when that isn't what was to be shown.
    """
    parts = await registry.read(lambda view: view.parts(_NAME, tuple(Progress), None, 1000))
    show_parts(parts, is_first=True)
    wrong = [part.device_id for part in parts if part.progress is not _expected(part, failing)]
    if wrong or not parts:
        raise Problem(
            ProblemCode.DEMO_FAILED,
            f"The update ended otherwise than it should on {len(wrong)} devices: {wrong[:5]}.",
            "Run 'muster demo --keep' and look at 'muster update rollouts' there.",
        )


def _expected(part: Part, failing: str | None) -> Progress:
    return Progress.ROLLED_BACK if part.device_id == failing else Progress.INSTALLED


def _key(path: Path) -> tuple[Key, KeyReference]:
    return new_key(path, _ALGORITHM, None), KeyReference(str(path), None)
