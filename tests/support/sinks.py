"""A sink in memory, and limits that a test has no time to wait for."""

import hashlib
from dataclasses import replace
from typing import Any

from broker.protocol.updates import AssignedTarget
from device_client.fetch.limits import FetchLimits

QUICK = FetchLimits(
    hosts=("127.0.0.1", "127.0.0.2", "localhost", "::1"),
    timeout_s=60.0,
    slow_window_s=5.0,
    least_rate=0.0,
    backoff_base_s=0.001,
    backoff_cap_s=0.002,
)


class MemorySink:
    """Meets `device_client.fetch.sink.Sink`, and remembers what happened."""

    def __init__(self, held: bytes = b"") -> None:
        self.data = bytearray(held)
        self.restarts = 0

    @property
    def position(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    async def write(self, data: bytes) -> None:
        """Keeps them."""
        self.data += data

    async def restart(self) -> None:
        """Forgets all."""
        self.data.clear()
        self.restarts += 1


def target_of(image: bytes, *sources: str) -> AssignedTarget:
    """The image as an assignment names it."""
    sha256 = hashlib.sha256(image).hexdigest()
    return AssignedTarget(path="image.bin", sha256=sha256, length=len(image), sources=sources)


def quick(**changes: Any) -> FetchLimits:
    """`QUICK`, changed."""
    return replace(QUICK, **changes)
