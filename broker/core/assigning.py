"""What a device is told, as the assignment that is signed for it."""

from datetime import datetime, timedelta
from typing import Final

from broker.core.rollout import Image, Rollout
from broker.core.update_records import GivenAssignment
from broker.protocol.names import DeviceId
from broker.protocol.updates import AssignedTarget, Assignment

LIFETIME: Final = timedelta(days=14)
"""A device that is switched off for longer finds one that was renewed meanwhile."""
RENEW_WITHIN: Final = LIFETIME / 2


def given(
    rollout: Rollout,
    device_id: DeviceId,
    sequence: int,
    images: tuple[Image, ...],
    nonce: str,
    now: datetime,
    calls_back: int | None = None,
) -> GivenAssignment:
    """A new assignment; without images it calls `calls_back` back."""
    return GivenAssignment(
        device_id=device_id,
        sequence=sequence,
        rollout=rollout.name,
        nonce=nonce,
        issued_at=now,
        expires=now + LIFETIME,
        targets=tuple((image.path, image.sha256) for image in images),
        calls_back=calls_back,
    )


def message(assignment: GivenAssignment, rollout: Rollout, sources: "Sources") -> Assignment:
    """The assignment as it's signed; the same again, but for its times, when it's renewed."""
    images = {(image.path, image.sha256): image for image in rollout.images}
    holds = bool(assignment.targets)
    return Assignment(
        device_id=assignment.device_id,
        sequence=assignment.sequence,
        rollout=assignment.rollout,
        nonce=assignment.nonce,
        issued_at=assignment.issued_at,
        expires=assignment.expires,
        targets=tuple(_target(images[each], sources) for each in assignment.targets),
        not_before=rollout.timing.not_before if holds else None,
        deadline=rollout.timing.deadline if holds else None,
        window=rollout.timing.window if holds else None,
    )


def _target(image: Image, sources: "Sources") -> AssignedTarget:
    where = tuple(
        source.rstrip("/") + "/" + stored_as(image.path, image.sha256) for source in sources
    )
    return AssignedTarget(path=image.path, sha256=image.sha256, length=image.length, sources=where)


def stored_as(path: str, sha256: str) -> str:
    """The file's path below a repository's targets: with the hash in front of the file's name, so
    that it never changes (TUF 1.0, section 6, consistent snapshots)."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{sha256}.{name}"


Sources = tuple[str, ...]
"""Where images can be fetched: the URL of the folder of targets, the best first."""
