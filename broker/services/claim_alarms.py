"""Alarms about claim certificates: an audit event and a count each, and a line in the log."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from broker.core.claim_alarm import AGAIN_AFTER, ClaimAlarm, is_nearly_used
from broker.core.records import ClaimCertificate, Event, EventKind
from broker.ports.clock import Clock
from broker.ports.registry import EventFilter, ReadTransaction, Registry, WriteTransaction
from broker.ports.telemetry import AlarmTelemetry
from broker.protocol.names import ClaimName
from broker.services.admission import Admission

_EVENTS = 1000


@dataclass(frozen=True)
class Raised:
    """An alarm that was given just now."""

    alarm: ClaimAlarm
    claim_name: ClaimName
    detail: str


class ClaimAlarms:
    """Looks at the claim certificates every so often."""

    def __init__(
        self, registry: Registry, clock: Clock, admission: Admission, telemetry: AlarmTelemetry
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._admission = admission
        self._telemetry = telemetry

    async def look(self) -> list[Raised]:
        """Gives the alarms that are due; the same one is given once, or, of rates, once an hour.

        Raises:
            RegistryError: the registry failed; calling again tries again.
        """
        limited = self._admission.take_limited()
        try:
            due = await self._registry.read(lambda tx: self._due(tx, limited))
            if due:
                await self._registry.write(lambda tx: self._record(tx, due))
        except BaseException:
            self._admission.give_back(limited)
            raise
        for each in due:
            self._telemetry.alarm(each.alarm, each.claim_name)
        return due

    def _due(self, tx: ReadTransaction, limited: Iterable[ClaimName]) -> list[Raised]:
        now = self._clock.now()
        due = [
            Raised(ClaimAlarm.NEARLY_USED, claim.name, _used(claim))
            for claim in tx.claim_certificates()
            if is_nearly_used(claim, now) and not _last(tx, claim.name, ClaimAlarm.NEARLY_USED)
        ]
        for name in limited:
            last = _last(tx, name, ClaimAlarm.RATE_LIMITED)
            if last is None or now - last >= AGAIN_AFTER:
                detail = "claims come faster than limits.claims_per_second allows"
                due.append(Raised(ClaimAlarm.RATE_LIMITED, name, detail))
        return due

    def _record(self, tx: WriteTransaction, due: Iterable[Raised]) -> None:
        for each in due:
            tx.add_event(
                Event(
                    self._clock.now(),
                    EventKind.CLAIM_CERTIFICATE_ALARM,
                    claim_name=each.claim_name,
                    group=tx.group_of_claim(each.claim_name),
                    code=each.alarm,
                    detail=each.detail,
                )
            )


def _used(claim: ClaimCertificate) -> str:
    return f"{claim.claims} of {claim.max_claims} claims used"


def _last(tx: ReadTransaction, name: ClaimName, alarm: ClaimAlarm) -> datetime | None:
    wanted = EventFilter(claim_name=name, kind=EventKind.CLAIM_CERTIFICATE_ALARM, limit=_EVENTS)
    given = [event.at for event in tx.events(wanted) if event.code == alarm]
    return given[0] if given else None
