"""Blocks of an image over MQTT, for a device that has no other way to it.

A device gets blocks of what is assigned to it and of nothing else. Nothing is written down: an
answer that gets lost is asked for again.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.core.putting_off import PutOff
from broker.core.rate_limit import TokenBuckets
from broker.core.records import Retained
from broker.ports.clock import Clock
from broker.ports.registry import Registry
from broker.ports.updates import UpdateCode, UpdateError, UpdateRepository
from broker.protocol import codec, limits, topics
from broker.protocol.codes import Code, Refused
from broker.protocol.topics import Desired, DeviceOrigin, Operation, Outcome
from broker.protocol.updates import (
    AssignedTarget,
    Assignment,
    BlockAccepted,
    BlockRequest,
    SignedAssignment,
)
from broker.protocol.zones import Zone

_READING_AT_ONCE: Final = 4
_WAITING: Final = 64
"""Requests in hand before others are refused; each may hold one block in memory."""
_RETRY_WHEN_BUSY_S: Final = 2
_TOLD_PER_SECOND: Final = 4.0
_TOLD_AT_ONCE: Final = 16
"""How often a device is told that it asks too often: it has several requests on their way, and
waits for an answer to each."""
_MAX_RETAINED: Final = 2 * limits.MAX_ASSIGNMENT + 16_384
"""A signed assignment as it's retained: the text with its quotes escaped, and the signatures."""


@dataclass(frozen=True)
class PassingReply:
    """An answer that isn't kept: when it gets lost, the device asks again."""

    zone: Zone
    topic: str
    payload: bytes


class BlockService:
    """Answers `block` requests of the fleet zone."""

    def __init__(
        self,
        registry: Registry,
        repository: UpdateRepository,
        clock: Clock,
        per_device: TokenBuckets,
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._clock = clock
        self._per_device = per_device
        self._told = TokenBuckets(_TOLD_PER_SECOND, _TOLD_AT_ONCE)
        self._reading = asyncio.Semaphore(_READING_AT_ONCE)
        self._in_hand = 0

    def admit(self, origin: DeviceOrigin) -> None:
        """Counts one request, before anything of it is read.

        Raises:
            PutOff: with the time to wait.
        """
        now = self._clock.monotonic()
        wait = self._per_device.take(origin.device_id, now)
        if wait:
            raise PutOff(wait, is_told=not self._told.take(origin.device_id, now))

    async def block(self, origin: DeviceOrigin, request: BlockRequest) -> PassingReply:
        """The bytes that were asked for, fewer at the image's end only.

        Raises:
            Refused: IMAGE_NOT_ASSIGNED, FIELD_INVALID for an offset beyond the end, BUSY.
            RegistryError: the registry failed.
        """
        if self._in_hand >= _WAITING:
            raise Refused(Code.BUSY, retry_after_s=_RETRY_WHEN_BUSY_S)
        self._in_hand += 1
        try:
            return await self._block(origin, request)
        finally:
            self._in_hand -= 1

    async def _block(self, origin: DeviceOrigin, request: BlockRequest) -> PassingReply:
        await self._check_assigned(origin, request)
        async with self._reading:
            data = await asyncio.to_thread(self._read, request)
        accepted = BlockAccepted(request_id=request.request_id, offset=request.offset, data=data)
        topic = topics.device_topic(origin, Operation.BLOCK)
        answer = topics.answer_topic(topic, Outcome.ACCEPTED)
        return PassingReply(Zone.FLEET, answer, codec.encode(accepted))

    async def _check_assigned(self, origin: DeviceOrigin, request: BlockRequest) -> None:
        topic = topics.desired_topic(origin.device_id, Desired.UPDATE)
        desired = await self._registry.read(lambda tx: tx.retained(topic))
        for target in _targets(desired, origin):
            if (target.path, target.sha256) == (request.path, request.sha256):
                if request.offset >= target.length:
                    raise Refused(Code.FIELD_INVALID, f"The image has {target.length} bytes.")
                return
        raise Refused(Code.IMAGE_NOT_ASSIGNED)

    def _read(self, request: BlockRequest) -> bytes:
        """In a thread."""
        try:
            file = self._repository.image(request.path, request.sha256)
        except UpdateError as error:
            if error.code is UpdateCode.IMAGE_UNKNOWN:
                raise Refused(Code.IMAGE_NOT_ASSIGNED, "It isn't published any more.") from error
            raise
        return _read_at(file, request.offset, request.length)


def _targets(desired: Retained | None, origin: DeviceOrigin) -> tuple[AssignedTarget, ...]:
    """What the newest assignment has the device run; the service signed it, so it can be read."""
    if desired is None or not desired.payload:
        return ()
    signed = codec.decode(desired.payload, SignedAssignment, _MAX_RETAINED)
    assignment = codec.decode(signed.assignment.encode(), Assignment, 4 * limits.MAX_ASSIGNMENT)
    return assignment.targets if assignment.device_id == origin.device_id else ()


def _read_at(file: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
