"""The audit log in the registry: appended to, never changed."""

from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.errors import unreadable
from broker.adapters.registry.moments import loaded, stored
from broker.adapters.registry.schema import EVENT
from broker.adapters.registry.session import Part, Row, Session
from broker.core.records import Event, EventKind
from broker.ports.registry import EventFilter

_T: Final = EVENT
_ALL: Final = sa.select(_T)

ADD: Final = (
    sa.insert(_T)
    .values({c.name: sa.bindparam(c.name) for c in _T.columns if c.name != "id"})
    .inline()
)


class Events(Part):
    """The port's methods about audit events, on one transaction."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._events_added = 0

    def events(self, wanted: EventFilter) -> list[Event]:
        query = _ALL.order_by(_T.c.id.desc()).limit(wanted.limit)
        if wanted.device_id is not None:
            query = query.where(_T.c.device_id == wanted.device_id)
        if wanted.serial_number is not None:
            query = query.where(_T.c.serial_number == wanted.serial_number)
        if wanted.claim_name is not None:
            query = query.where(_T.c.claim_name == wanted.claim_name)
        if wanted.kind is not None:
            query = query.where(_T.c.kind == wanted.kind.value)
        if wanted.before_id is not None:
            query = query.where(_T.c.id < wanted.before_id)
        return [event_of(row) for row in self._session.select(query)]

    def add_event(self, event: Event) -> None:
        self._events_added += 1
        self._session.later(ADD, self._events_added, _row(event))


def _row(event: Event) -> dict[str, object]:
    return {
        "at": stored(event.at),
        "kind": event.kind.value,
        "device_id": event.device_id,
        "serial_number": event.serial_number,
        "claim_name": event.claim_name,
        "client_id": event.client_id,
        "group_name": event.group,
        # A code may come in as a member of an enumeration, which a driver would store by name.
        "code": None if event.code is None else str(event.code),
        "detail": event.detail,
        "repeated": event.repeated,
    }


def event_of(row: Row) -> Event:
    """The event of a row that has all columns.

    Raises:
        RegistryError: it's none.
    """
    try:
        return _event_of(row)
    except (OverflowError, TypeError, ValueError) as error:
        raise unreadable(f"The audit log's event {row[0]}", error) from error


def _event_of(row: Row) -> Event:
    (
        event_id,
        at,
        kind,
        device_id,
        serial_number,
        claim_name,
        client_id,
        group,
        code,
        detail,
        repeated,
    ) = row
    return Event(
        at=loaded(at),
        kind=EventKind(kind),
        device_id=device_id,
        serial_number=serial_number,
        claim_name=claim_name,
        client_id=client_id,
        group=group,
        code=code,
        detail=detail,
        repeated=repeated,
        id=event_id,
    )
