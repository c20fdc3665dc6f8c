"""What the director wants of this device, and whether the signed images agree.

An assignment is worth something only together with TUF's targets metadata: the director chooses,
the offline keys say what there is to choose from.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET

from broker.protocol import codec, limits
from broker.protocol.codes import Refused
from broker.protocol.messages import Moment, Sha256
from broker.protocol.names import DeviceId
from broker.protocol.statements import assignment_statement
from broker.protocol.updates import (
    AssignedTarget,
    Assignment,
    ImageFacts,
    SignedAssignment,
    VersionText,
)
from broker.protocol.versions import parse_version
from device_client.update import signing
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.metadata import TargetFile
from device_client.update.repository import Repository
from device_client.update.trusted import DIRECTOR, Trusted

_MAX_SIGNED: Final = limits.MAX_ASSIGNMENT * 2 + 8 * (limits.MAX_SIGNATURE + 128)
"""The text is JSON in JSON: each of its quotes takes two bytes."""


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


def authentic(payload: bytes, trusted: Trusted, device_id: DeviceId, now: datetime) -> Assignment:
    """The assignment, if the director made it for this device and it still holds.

    Raises:
        UpdateRefused: ASSIGNMENT_MALFORMED, ASSIGNMENT_UNTRUSTED, KEY_REVOKED, ASSIGNMENT_NOT_OURS
            or ASSIGNMENT_EXPIRED.
    """
    try:
        signed = codec.decode(payload, SignedAssignment, _MAX_SIGNED)
        _check_director(signed, trusted)
        found = codec.decode(signed.assignment.encode(), Assignment, limits.MAX_ASSIGNMENT)
    except Refused as error:
        raise UpdateRefused(UpdateCode.ASSIGNMENT_MALFORMED, str(error)) from error
    if found.device_id != device_id:
        raise UpdateRefused(
            UpdateCode.ASSIGNMENT_NOT_OURS, f"The assignment is for {found.device_id}."
        )
    if found.expires <= now:
        raise UpdateRefused(
            UpdateCode.ASSIGNMENT_EXPIRED, f"The assignment expired at {found.expires:%F %T} UTC."
        )
    return found


async def resolve(
    assignment: Assignment, repository: Repository, trusted: Trusted
) -> tuple[Image, ...]:
    """The images that are assigned, with the facts that the offline keys vouch for.

    Raises:
        UpdateRefused: TARGET_UNKNOWN, TARGET_MISMATCH, FACTS_INVALID, or why metadata is refused.
    """
    images = []
    for target in assignment.targets:
        signed = await repository.find(trusted, target.path)
        if signed is None:
            raise UpdateRefused(UpdateCode.TARGET_UNKNOWN, f"Nobody has signed {target.path}.")
        if (signed.hashes.get("sha256"), signed.length) != (target.sha256, target.length):
            raise UpdateRefused(
                UpdateCode.TARGET_MISMATCH, f"{target.path} was signed as another image."
            )
        images.append(Image(target=target, facts=_facts(target.path, signed)))
    if len({image.facts.component for image in images}) != len(images):
        raise UpdateRefused(UpdateCode.TARGET_MISMATCH, "Two images are for the same component.")
    return tuple(images)


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
        raise UpdateRefused(
            UpdateCode.SOURCE_TOO_OLD, f"{path} can follow {oldest}, not {running.version}."
        )


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


def _check_director(signed: SignedAssignment, trusted: Trusted) -> None:
    role = trusted.root.director
    if role is UNSET:
        raise UpdateRefused(UpdateCode.ASSIGNMENT_UNTRUSTED, "The root names no director.")
    given = {each.keyid: _bytes(each.signature) for each in signed.signatures}
    statement = assignment_statement(signed.assignment)
    if signing.count(role, trusted.root.keys, given, statement) >= role.threshold:
        return
    if any(each in trusted.former[DIRECTOR] for each in given):
        raise UpdateRefused(UpdateCode.KEY_REVOKED, "The director's key was revoked.")
    raise UpdateRefused(UpdateCode.ASSIGNMENT_UNTRUSTED, "The director hasn't signed it.")


def _bytes(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except binascii.Error:
        return b""


def _facts(path: str, signed: TargetFile) -> ImageFacts:
    try:
        return codec.decode(bytes(signed.custom), ImageFacts, limits.MAX_METADATA)
    except (Refused, msgspec.MsgspecError) as error:
        raise UpdateRefused(
            UpdateCode.FACTS_INVALID, f"What was signed of {path} can't be read: {error}"
        ) from error


def _reaches(version: str | None, oldest: str) -> bool:
    return version is not None and parse_version(version) >= parse_version(oldest)
