"""A published image, without the ceremony of a real update repository."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from broker.ports.updates import UpdateCode, UpdateError
from broker.protocol import codec
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic
from broker.protocol.updates import AssignedTarget, Assignment, KeySignature, SignedAssignment


class PublishedImages:
    """Meets as much of `broker.ports.updates.UpdateRepository` as serving images needs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: dict[tuple[str, str], Path] = {}
        self.metadata: dict[str, bytes] = {}

    def add(self, path: str, content: bytes, *sources: str) -> AssignedTarget:
        """Publishes it."""
        sha256 = hashlib.sha256(content).hexdigest()
        file = self._folder / sha256
        file.write_bytes(content)
        self._images[path, sha256] = file
        return AssignedTarget(path=path, sha256=sha256, length=len(content), sources=sources)

    def files(self) -> Mapping[str, bytes]:
        """The metadata that a test has put there."""
        return dict(self.metadata)

    def image(self, path: str, sha256: str) -> Path:
        """Its file."""
        try:
            return self._images[path, sha256]
        except KeyError:
            raise UpdateError(UpdateCode.IMAGE_UNKNOWN, "no such image", "") from None

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody should ask for {name}")


def assignment(device_id: str, *targets: AssignedTarget) -> dict[str, bytes]:
    """What the service retains for the device, by topic; nobody here looks at the signature."""
    now = datetime.now(UTC)
    assigned = Assignment(
        device_id=device_id,
        sequence=1,
        rollout="spring",
        nonce="0123456789abcdef",
        issued_at=now,
        expires=now + timedelta(days=1),
        targets=targets,
    )
    signed = SignedAssignment(
        assignment=codec.encode(assigned).decode(),
        signatures=(KeySignature(keyid="0" * 64, signature="AA=="),),
    )
    return {desired_topic(DeviceId(device_id), Desired.UPDATE): codec.encode(signed)}
