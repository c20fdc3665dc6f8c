"""What the director wants of this device, and whether the signed images agree.

An assignment is worth something only together with TUF's targets metadata: the director chooses,
the offline keys say what there is to choose from.
"""

import base64
import binascii
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET

from broker.protocol import codec, limits
from broker.protocol.codes import Refused
from broker.protocol.names import DeviceId
from broker.protocol.statements import assignment_statement
from broker.protocol.updates import Assignment, ImageFacts, SignedAssignment
from device_client.update import signing
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.images import Image
from device_client.update.metadata import TargetFile
from device_client.update.repository import Repository
from device_client.update.trusted import DIRECTOR, Trusted

_MAX_SIGNED: Final = limits.MAX_ASSIGNMENT * 2 + 8 * (limits.MAX_SIGNATURE + 128)
"""The text is JSON in JSON: each of its quotes takes two bytes."""


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
