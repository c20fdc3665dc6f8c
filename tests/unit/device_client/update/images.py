"""Images that need no repository."""

import hashlib

from broker.protocol.updates import AssignedTarget, ImageFacts
from device_client.update.images import Image


def image(content: bytes, path: str = "meter/2.0.0/image", counter: int = 2) -> Image:
    """As it was assigned and signed."""
    target = AssignedTarget(
        path=path, sha256=hashlib.sha256(content).hexdigest(), length=len(content)
    )
    facts = ImageFacts(model="meter", version="2.0.0", security_counter=counter)
    return Image(target=target, facts=facts)
