"""From a message to the use case that answers it, and from whatever goes wrong to a refusal.

A request is acknowledged to the broker when `handle` returns: its decision is durable by then, and
its answer is published or waits in the outbox. A `block` decides nothing: its answer is published,
or lost and asked for again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from broker.core.putting_off import PutOff
from broker.core.records import Reply
from broker.core.repeats import Repeats
from broker.ports.brokers import Publisher, PublishError
from broker.ports.registry import RegistryError
from broker.ports.telemetry import Telemetry
from broker.protocol import codec
from broker.protocol.codes import Code, Refused, operators_remedy
from broker.protocol.messages import ConfirmRequest, EnrollRequest, RecoverRequest, RenewRequest
from broker.protocol.topics import (
    ClaimOrigin,
    DeviceOrigin,
    Operation,
    Origin,
    Outcome,
    Request,
    answer_topic,
    parse_request,
)
from broker.protocol.updates import BlockRequest, ReportRequest
from broker.protocol.zones import Zone
from broker.services.admission import Admission
from broker.services.blocks import BlockService, PassingReply
from broker.services.confirm import ConfirmService
from broker.services.enroll import EnrollService
from broker.services.outbox import Outbox
from broker.services.recover import RecoverService
from broker.services.refusals import RefusalLog
from broker.services.renew import RenewService
from broker.services.reports import ReportService

_log = structlog.get_logger(__name__)

_HANDLING_TIMEOUT_S = 30.0
_RETRY_WHEN_BUSY_S = 5
_RETRY_AFTER_FAILURE_S = 30
_PUTTING_OFF = 32
"""Answers to those that ask too often on their way at once: they take few of the places in hand."""
_WINDOW_S = 60.0


@dataclass(frozen=True)
class Services:
    """The use cases that devices reach over MQTT, and what all of them pass through."""

    enroll: EnrollService
    recover: RecoverService
    confirm: ConfirmService
    renew: RenewService
    admission: Admission
    refusals: RefusalLog
    outbox: Outbox
    blocks: BlockService
    reports: ReportService


@dataclass
class _Attempt:
    """What is known so far of a request, for the record of its refusal."""

    origin: Origin | None = None
    operation: str = "unknown"
    serial: str | None = None


class Router:
    """Answers the requests of both zones."""

    def __init__(self, services: Services, publisher: Publisher, telemetry: Telemetry) -> None:
        self._services = services
        self._publisher = publisher
        self._telemetry = telemetry
        self._putting_off = 0
        self._unpublished: Repeats[tuple[str, Zone]] = Repeats(_WINDOW_S)

    async def handle(self, zone: Zone, topic: str, payload: bytes) -> None:
        """Decides and answers one request. Raises nothing but cancellation."""
        attempt = _Attempt()
        try:
            async with asyncio.timeout(_HANDLING_TIMEOUT_S):
                reply = await self._answer(zone, topic, payload, attempt)
                await self._send(reply)
        except PublishError:
            self._say_unpublished("reply_not_published", zone, topic)
        except PutOff as put_off:
            await self._put_off(zone, topic, payload, attempt, put_off)
        except Exception as error:
            await self._refuse(zone, topic, payload, attempt, _as_refusal(error))
        else:
            self._telemetry.count(zone, attempt.operation, Outcome.ACCEPTED)

    async def _send(self, reply: Reply | PassingReply) -> None:
        if isinstance(reply, Reply):
            await self._services.outbox.send(reply)
        else:
            await self._publisher.publish(reply.zone, reply.topic, reply.payload)

    async def _answer(
        self, zone: Zone, topic: str, payload: bytes, attempt: _Attempt
    ) -> Reply | PassingReply:
        request = parse_request(topic)
        attempt.origin = request.origin
        self._admit(request)
        use_case = self._use_case(zone, request, attempt)
        attempt.operation = request.operation
        return await use_case(payload)

    def _admit(self, request: Request) -> None:
        """Blocks come in hundreds and are counted apart, so that they keep nothing else out."""
        if isinstance(request.origin, DeviceOrigin) and request.operation == Operation.BLOCK:
            self._services.blocks.admit(request.origin)
        else:
            self._services.admission.admit(request.origin)

    def _use_case(
        self, zone: Zone, request: Request, attempt: _Attempt
    ) -> Callable[[bytes], Awaitable[Reply | PassingReply]]:
        match zone, request.operation, request.origin:
            case Zone.CLAIM, Operation.ENROLL, ClaimOrigin() as claimant:
                return lambda payload: self._enroll(claimant, payload, attempt)
            case Zone.CLAIM, Operation.RECOVER, ClaimOrigin() as claimant:
                return lambda payload: self._recover(claimant, payload)
            case Zone.FLEET, Operation.RENEW, DeviceOrigin() as device:
                return lambda payload: self._renew(device, payload)
            case Zone.FLEET, Operation.CONFIRM, DeviceOrigin() as device:
                return lambda payload: self._confirm(device, payload)
            case Zone.FLEET, Operation.REPORT, DeviceOrigin() as device:
                return lambda payload: self._report(device, payload)
            case Zone.FLEET, Operation.BLOCK, DeviceOrigin() as device:
                return lambda payload: self._block(device, payload)
            case _:
                raise Refused(Code.OPERATION_UNKNOWN)

    async def _enroll(self, origin: ClaimOrigin, payload: bytes, attempt: _Attempt) -> Reply:
        request = codec.decode(payload, EnrollRequest)
        attempt.serial = request.serial
        return await self._services.enroll.enroll(origin, request)

    async def _recover(self, origin: ClaimOrigin, payload: bytes) -> Reply:
        return await self._services.recover.recover(origin, codec.decode(payload, RecoverRequest))

    async def _renew(self, origin: DeviceOrigin, payload: bytes) -> Reply:
        return await self._services.renew.renew(origin, codec.decode(payload, RenewRequest))

    async def _confirm(self, origin: DeviceOrigin, payload: bytes) -> Reply:
        return await self._services.confirm.confirm(origin, codec.decode(payload, ConfirmRequest))

    async def _report(self, origin: DeviceOrigin, payload: bytes) -> Reply:
        return await self._services.reports.report(origin, codec.decode(payload, ReportRequest))

    async def _block(self, origin: DeviceOrigin, payload: bytes) -> PassingReply:
        return await self._services.blocks.block(origin, codec.decode(payload, BlockRequest))

    async def _refuse(
        self, zone: Zone, topic: str, payload: bytes, attempt: _Attempt, refused: Refused
    ) -> None:
        self._telemetry.count(zone, attempt.operation, refused.code)
        await self._record(zone, topic, attempt, refused)
        if refused.code is not Code.ORIGIN_INVALID:  # else there is no safe topic for an answer
            await self._reject(zone, topic, payload, refused)

    async def _put_off(
        self, zone: Zone, topic: str, payload: bytes, attempt: _Attempt, put_off: PutOff
    ) -> None:
        """Whoever was told a moment ago gets no answer: what it sends is done with at once, and
        keeps nothing from its neighbours."""
        self._telemetry.count(zone, attempt.operation, put_off.code)
        await self._record(zone, topic, attempt, put_off)
        if not put_off.is_told or self._putting_off >= _PUTTING_OFF:
            return
        self._putting_off += 1
        try:
            await self._reject(zone, topic, payload, put_off)
        finally:
            self._putting_off -= 1

    async def _reject(self, zone: Zone, topic: str, payload: bytes, refused: Refused) -> None:
        answer = codec.encode(codec.rejection(refused, codec.request_id_of(payload)))
        try:
            await self._publisher.publish(zone, answer_topic(topic, Outcome.REJECTED), answer)
        except PublishError:
            self._say_unpublished("rejection_not_published", zone, topic)

    def _say_unpublished(self, event: str, zone: Zone, topic: str) -> None:
        """The first of a minute has a line; the others are counted in one when the next comes."""
        now = asyncio.get_running_loop().time()
        for (what, where), count in self._unpublished.closed(now):
            _log.warning(what, zone=where, repeated=count)
        if self._unpublished.is_first((event, zone), now):
            _log.warning(event, zone=zone, topic=topic[:256])

    async def _record(self, zone: Zone, topic: str, attempt: _Attempt, refused: Refused) -> None:
        try:
            serial = attempt.serial or refused.serial
            is_first = await self._services.refusals.record(refused, attempt.origin, serial)
        except Exception as error:
            remedy = getattr(error, "remedy", None)
            _log.error("refusal_not_recorded", error=str(error), remedy=remedy)
            is_first = True
        if is_first:
            _log.info(
                "request_refused",
                zone=zone,
                topic=topic[:256],
                code=refused.code,
                detail=refused.detail or None,
                serial=attempt.serial or refused.serial,
                device=refused.device_id,
                remedy=operators_remedy(refused.code, refused.device_id),
            )


def _as_refusal(error: Exception) -> Refused:
    """What the device is told; only the log learns what really failed."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, RegistryError) and error.code == "registry_busy":
        return Refused(Code.BUSY, retry_after_s=_RETRY_WHEN_BUSY_S)
    if isinstance(error, RegistryError):
        _log.error("registry_failed", code=error.code, error=str(error), remedy=error.remedy)
    else:
        _log.error("request_failed", exc_info=error)
    return Refused(Code.INTERNAL, retry_after_s=_RETRY_AFTER_FAILURE_S)
