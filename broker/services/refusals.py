"""Refusals: each leaves an audit event with its exact reason, and a flood of them only a few."""

from collections import deque
from dataclasses import dataclass

from broker.core.records import Event, EventKind
from broker.core.repeats import Repeats
from broker.ports import Clock, Registry
from broker.protocol.codes import Code, Refused
from broker.protocol.topics import ClaimOrigin, DeviceOrigin, Origin

_WINDOW_S = 60.0
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
        self._unwritten: deque[Event] = deque()

    async def record(self, refused: Refused, origin: Origin | None, serial: str | None) -> bool:
        """Leaves an event, unless the same was refused a moment ago; whether it left one.

        Raises:
            RegistryError: the event couldn't be written.
        """
        kind = _kind(refused.code, origin, serial)
        if not self._repeats.is_first(kind, self._clock.monotonic()):
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


def _kind(code: Code, origin: Origin | None, serial: str | None) -> _Kind:
    match origin:
        case ClaimOrigin(claim_name, client_id):
            if code in _COARSE:
                return _Kind(code, claim_name=claim_name)
            return _Kind(code, None, claim_name, client_id, serial)
        case DeviceOrigin(device_id):
            return _Kind(code, device_id=device_id)
        case None:
            return _Kind(code)
