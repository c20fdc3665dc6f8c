"""Refusals: each leaves an audit event with its exact reason, and a flood of them only a few."""

from collections import deque
from dataclasses import dataclass

from broker.core.rate_limit import TokenBuckets
from broker.core.records import Event, EventKind
from broker.core.repeats import Repeats
from broker.ports.clock import Clock
from broker.ports.registry import Registry
from broker.protocol.codes import Code, Refused
from broker.protocol.topics import ClaimOrigin, DeviceOrigin, Origin

_WINDOW_S = 60.0
_DISTINCT = 100
"""Refusals of one certificate that are told apart in a window; who makes up serial numbers and
client ids without end gets one line for the rest."""
# What a flood is made of is told apart by certificate only: a flooder invents client ids.
_COARSE = {Code.RATE_LIMITED, Code.BUSY, Code.ORIGIN_INVALID}


@dataclass(frozen=True)
class _Kind:
    code: Code | None
    device_id: str | None = None
    claim_name: str | None = None
    client_id: str | None = None
    serial_number: str | None = None


class RefusalLog:
    """Records refusals, folding repetitions within a minute into one event with a count."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._repeats: Repeats[_Kind] = Repeats(_WINDOW_S)
        self._distinct = TokenBuckets(_DISTINCT / _WINDOW_S, _DISTINCT)
        self._unwritten: deque[Event] = deque()

    async def record(self, refused: Refused, origin: Origin | None, serial: str | None) -> bool:
        """Leaves an event, unless the same was refused a moment ago; whether it left one.

        Raises:
            RegistryError: the event couldn't be written.
        """
        now = self._clock.monotonic()
        kind = _kind(refused, origin, serial)
        if kind not in self._repeats and self._distinct.take(_certificate(origin), now):
            kind = _coarse_kind(refused.code, origin)
        if not self._repeats.is_first(kind, now):
            return False
        try:
            await self._write(self._event(kind, refused.detail or None, 1))
        except BaseException:
            self._repeats.forget(kind)
            raise
        return True

    async def flush(self) -> None:
        """Writes how often each refusal was repeated in the windows that are over.

        Raises:
            RegistryError: an event couldn't be written; the next flush tries again.
        """
        for kind, count in self._repeats.closed(self._clock.monotonic()):
            self._unwritten.append(self._event(kind, "the same again", count))
        if overflowed := self._repeats.take_overflowed():
            self._unwritten.append(self._event(_Kind(None), "more than are told apart", overflowed))
        while self._unwritten:
            await self._write(self._unwritten[0])
            self._unwritten.popleft()

    async def _write(self, event: Event) -> None:
        await self._registry.write(lambda tx: tx.add_event(event))

    def _event(self, kind: _Kind, detail: str | None, repeated: int) -> Event:
        return Event(
            at=self._clock.now(),
            kind=EventKind.CLAIM_REFUSED if kind.claim_name else EventKind.REQUEST_REFUSED,
            device_id=kind.device_id,
            serial_number=kind.serial_number,
            claim_name=kind.claim_name,
            client_id=kind.client_id,
            code=kind.code,
            detail=detail,
            repeated=repeated,
        )


def _kind(refused: Refused, origin: Origin | None, serial: str | None) -> _Kind:
    code = refused.code
    if isinstance(origin, ClaimOrigin) and code not in _COARSE:
        return _Kind(code, refused.device_id, origin.claim_name, origin.client_id, serial)
    return _coarse_kind(code, origin)


def _coarse_kind(code: Code, origin: Origin | None) -> _Kind:
    match origin:
        case ClaimOrigin(claim_name):
            return _Kind(code, claim_name=claim_name)
        case DeviceOrigin(device_id):
            return _Kind(code, device_id=device_id)
        case None:
            return _Kind(code)


def _certificate(origin: Origin | None) -> str:
    match origin:
        case ClaimOrigin(claim_name):
            return f"c/{claim_name}"
        case DeviceOrigin(device_id):
            return f"d/{device_id}"
        case None:
            return ""
