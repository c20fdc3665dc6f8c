"""What an image is, and whether it fits what this device is and runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.protocol.messages import Moment, Sha256
from broker.protocol.updates import AssignedTarget, ImageFacts, VersionText
from broker.protocol.versions import parse_version
from device_client.update.codes import UpdateCode, UpdateRefused


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What this device is, from its own configuration; a server can't talk it into another."""

    model: str
    hw_rev: str | None = None


@dataclass(frozen=True, kw_only=True)
class Running:
    """What runs of one component, since it was committed."""

    path: str | None = None
    """Its target's path; none for what came from the factory."""
    version: VersionText | None = None
    sha256: Sha256 | None = None
    security_counter: int = 0
    support_until: Moment | None = None
    vulnerability_contact: str | None = None
    depends: dict[str, VersionText] = field(default_factory=dict)
    """By component, the oldest version that must go on running beside it."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An assigned image of which the offline keys say the same as the director."""

    target: AssignedTarget
    facts: ImageFacts

    def as_running(self, counter: int) -> Running:
        """What runs once it's committed, where `counter` was reached before."""
        return Running(
            path=self.target.path,
            version=self.facts.version,
            sha256=self.target.sha256,
            security_counter=max(counter, self.facts.security_counter),
            support_until=self.facts.support_until,
            vulnerability_contact=self.facts.vulnerability_contact,
            depends=self.facts.depends,
        )


def check_fit(image: Image, hardware: Hardware, running: Running) -> None:
    """Returns when the image may follow what runs on this hardware.

    Raises:
        UpdateRefused: MODEL_WRONG, HARDWARE_WRONG, COUNTER_TOO_LOW or SOURCE_TOO_OLD.
    """
    facts, path = image.facts, image.target.path
    if facts.model != hardware.model:
        raise UpdateRefused(
            UpdateCode.MODEL_WRONG, f"{path} is for the model {facts.model}, not {hardware.model}."
        )
    if facts.hw_revs and hardware.hw_rev not in facts.hw_revs:
        raise UpdateRefused(
            UpdateCode.HARDWARE_WRONG, f"{path} doesn't run on the revision {hardware.hw_rev}."
        )
    if facts.security_counter < running.security_counter:
        raise UpdateRefused(
            UpdateCode.COUNTER_TOO_LOW,
            f"{path} has the security counter {facts.security_counter}, "
            f"and this device has reached {running.security_counter}.",
        )
    oldest = facts.min_source_version
    if oldest is not None and not _reaches(running.version, oldest):
        known = running.version or "an unknown version"
        raise UpdateRefused(UpdateCode.SOURCE_TOO_OLD, f"{path} can follow {oldest}, not {known}.")


def check_dependencies(images: tuple[Image, ...], running: Mapping[str, Running]) -> None:
    """Returns when all that the images depend on runs, or comes with them; and they leave what
    goes on running what that depends on.

    Raises:
        UpdateRefused: DEPENDENCY_MISSING.
    """
    versions = {component: each.version for component, each in running.items()}
    versions |= {image.facts.component: image.facts.version for image in images}
    needs = {component: each.depends for component, each in running.items()}
    needs |= {image.facts.component: image.facts.depends for image in images}
    for needy, depends in needs.items():
        for component, oldest in depends.items():
            if not _reaches(versions.get(component), oldest):
                raise UpdateRefused(
                    UpdateCode.DEPENDENCY_MISSING,
                    f"{needy} {versions[needy]} needs {component} {oldest} beside it.",
                )


def _reaches(version: str | None, oldest: str) -> bool:
    return version is not None and parse_version(version) >= parse_version(oldest)
