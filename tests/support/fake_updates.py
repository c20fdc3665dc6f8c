"""An update repository in memory; it meets `broker.ports.updates.UpdateRepository`."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.ports.updates import Lapse, PublishedTarget, UpdateError
from broker.protocol.statements import assignment_statement
from broker.protocol.updates import ImageFacts, KeySignature, SignedAssignment
from tests.support.records import a_fingerprint

KEY_ID = a_fingerprint("director")


def a_target(path: str = "lamp/2.0.bin", **facts: Any) -> PublishedTarget:
    """An image for the model `lamp`."""
    fields: dict[str, Any] = {"model": "lamp", "version": "2.0", "security_counter": 1, **facts}
    return PublishedTarget(path, a_fingerprint(path), 1000, ImageFacts(**fields))


@dataclass
class FakeRepository:
    """What was published is what a test says."""

    published: list[PublishedTarget] = field(default_factory=lambda: [a_target()])
    metadata: dict[str, bytes] = field(default_factory=dict)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    keyid: str = KEY_ID
    refreshed: list[datetime] = field(default_factory=list)

    def files(self) -> Mapping[str, bytes]:
        """As they are."""
        return self.metadata

    def targets(self) -> list[PublishedTarget]:
        """As they are."""
        return self.published

    def image(self, path: str, sha256: str) -> Path:
        """There is none."""
        raise NotImplementedError

    def refresh(self, now: datetime) -> bool:
        """Remembers that it was called."""
        self.refreshed.append(now)
        return False

    def sign_assignment(self, text: str) -> SignedAssignment:
        """With a key that nobody needs to trust."""
        signature = base64.b64encode(self.key.sign(assignment_statement(text))).decode()
        return SignedAssignment(
            assignment=text, signatures=(KeySignature(keyid=self.keyid, signature=signature),)
        )

    def directors(self) -> frozenset[str]:
        """The one that signs."""
        return frozenset({self.keyid})

    def unusable_keys(self) -> list[UpdateError]:
        return []

    def lapsing(self, now: datetime) -> list[Lapse]:
        """Nothing does."""
        return []
