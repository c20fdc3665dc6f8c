"""Assignments that are signed before their devices' turn comes, and given by the hundred.

To give them is a handful of statements, whatever their number: the rows go from table to table in
the database, beside which the service publishes what was given before. They are written as text,
which both databases read alike.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.counters import Counters
from broker.adapters.registry.devices import device_from
from broker.adapters.registry.moments import stored
from broker.adapters.registry.retained import COUNTER
from broker.adapters.registry.rollout_parts import RolloutParts, part_from
from broker.adapters.registry.schema import DEVICE
from broker.adapters.registry.schema_updates import DEVICE_UPDATE, PREPARED, ROLLOUT_PART
from broker.adapters.registry.session import Row, Upsert
from broker.adapters.registry.updates import update_from
from broker.core.prepared import Candidate, Prepared
from broker.core.rollout import IN_FORCE, Progress, Rollout, Step, next_progress
from broker.core.rollout_offer import SUPERSEDED
from broker.core.update_records import DeviceUpdate, Part
from broker.ports.rollouts import Usable
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic

# All that decides on what a device is told. Both sides of the comparison are made here, so what is
# unchanged is always the same text.
_AS_OF: Final = """
    d.state || ' ' || d.parameters || ' ' || COALESCE(p.code, '')
    || ' ' || CAST(COALESCE(u.sequence, 0) AS TEXT)
    || ' ' || COALESCE(u.running, '') || ' ' || COALESCE(u.rolled_back, '')"""
_QUEUE: Final = f"""
    FROM rollout_part p
    JOIN device d ON d.id = p.device_id
    LEFT JOIN device_update u ON u.device_id = p.device_id
    LEFT JOIN prepared_assignment s ON s.rollout = p.rollout AND s.device_id = p.device_id
    WHERE p.rollout = :rollout AND p.progress = 'queued' AND p.wave = :wave AND p.draw >= :after
    AND (s.as_of = {_AS_OF} AND s.signed_as = :signed_as AND s.issued_at >= :since)"""
_IN_FORCE: Final = ", ".join(f"'{each.value}'" for each in sorted(IN_FORCE))


def _columns(table: sa.Table, letter: str) -> str:
    return ", ".join(f"{letter}.{column.name}" for column in table.columns)


_CANDIDATES: Final = sa.text(
    f"""SELECT {_columns(ROLLOUT_PART, "p")}, {_columns(DEVICE, "d")},
    {_columns(DEVICE_UPDATE, "u")}, {_AS_OF}
    {_QUEUE} IS NOT TRUE ORDER BY p.draw LIMIT :at_most"""
)
_REACH: Final = sa.text(
    """SELECT max(draw) FROM (SELECT draw FROM rollout_part
    WHERE rollout = :rollout AND progress = 'queued' AND wave = :wave
    ORDER BY draw LIMIT :at_most) AS first_ones"""
)
_ANY: Final = sa.text("SELECT 1 FROM prepared_assignment WHERE rollout = :rollout LIMIT 1")
_COUNT: Final = sa.text("SELECT count(*) FROM prepared_assignment WHERE rollout = :rollout")
_ASSIGN: Final = sa.text(
    f"""UPDATE rollout_part
    SET progress = 'assigned', changed_at = :now, wave = :told_in, code = NULL, detail = NULL,
    sequence = (SELECT s.sequence FROM prepared_assignment s
        WHERE s.rollout = rollout_part.rollout AND s.device_id = rollout_part.device_id)
    WHERE rollout = :rollout AND device_id IN
        (SELECT p.device_id {_QUEUE} ORDER BY p.draw LIMIT :at_most)"""  # noqa: S608
)


def _of_given(*joined: str) -> str:
    """The parts that were assigned just now and are still among the prepared, and what is joined to
    them: in this order, which SQLite keeps for a CROSS JOIN."""
    tables = " CROSS JOIN ".join(("rollout_part p", "prepared_assignment s", *joined))
    return f"""FROM {tables}
    WHERE p.rollout = :rollout AND p.progress = 'assigned' AND p.changed_at = :now
    AND s.rollout = p.rollout AND s.device_id = p.device_id AND s.sequence = p.sequence"""


_GIVEN: Final = _of_given()
_LOSING: Final = f"""{_of_given("device_update u", "assignment a", "rollout_part o")}
    AND u.device_id = s.device_id
    AND a.device_id = u.device_id AND a.sequence = u.sequence
    AND a.settled_at IS NULL AND a.rollout <> :rollout
    AND o.rollout = a.rollout AND o.device_id = a.device_id AND o.progress IN ({_IN_FORCE})"""
_COUNT_LOSING: Final = sa.text(
    f"SELECT o.rollout, o.wave, o.progress, count(*) {_LOSING} "
    "GROUP BY o.rollout, o.wave, o.progress"
)
_SUPERSEDE: Final = sa.text(
    f"""UPDATE rollout_part SET progress = :superseded, code = :its_code, changed_at = :now
    WHERE (rollout, device_id) IN (SELECT o.rollout, o.device_id {_LOSING})"""  # noqa: S608
)
_SETTLE: Final = sa.text(
    f"""UPDATE assignment SET settled_at = :now
    WHERE settled_at IS NULL AND (device_id, sequence) IN
        (SELECT u.device_id, u.sequence {_of_given("device_update u")}
        AND u.device_id = s.device_id)"""  # noqa: S608 - of constants
)
_HOLD: Final = sa.text(
    f"""INSERT INTO assignment
    (device_id, sequence, rollout, nonce, issued_at, expires, targets)
    SELECT s.device_id, s.sequence, s.rollout, s.nonce, s.issued_at, s.expires, s.targets
    {_GIVEN}"""
)
_RETAIN: Final = sa.text(
    f"""INSERT INTO retained (topic, payload, stamp)
    SELECT :before_id || s.device_id || :after_id, s.payload, CAST(:stamp AS BIGINT) {_GIVEN}
    ON CONFLICT (topic) DO UPDATE SET payload = excluded.payload, stamp = excluded.stamp"""
)
_LAST: Final = sa.text(
    f"""INSERT INTO device_update
    (device_id, sequence, rollout, rollout_number, running, rolled_back)
    SELECT s.device_id, s.sequence, s.rollout, CAST(:number AS BIGINT), '{{}}', '' {_GIVEN}
    ON CONFLICT (device_id) DO UPDATE SET
    sequence = excluded.sequence, rollout = excluded.rollout,
    rollout_number = CASE WHEN device_update.rollout_number > excluded.rollout_number
        THEN device_update.rollout_number ELSE excluded.rollout_number END"""
)
_FORGET: Final = sa.text(
    f"""DELETE FROM prepared_assignment
    WHERE rollout = :rollout AND device_id IN (SELECT s.device_id {_GIVEN})"""  # noqa: S608
)
_DROP: Final = sa.text(
    """DELETE FROM prepared_assignment WHERE rollout = :rollout AND device_id IN
    (SELECT device_id FROM prepared_assignment WHERE rollout = :rollout LIMIT :at_most)"""
)
_BEFORE_ID, _AFTER_ID = desired_topic(DeviceId("?"), Desired.UPDATE).split("?")

SAVE: Final = Upsert(PREPARED, key=("rollout", "device_id"))


class PreparedAssignments(RolloutParts, Counters):
    """The port's methods about them, on one transaction."""

    def candidates(
        self, rollout: str, wave: int, usable: Usable, after: int, limit: int
    ) -> list[Candidate]:
        self._session.flush()
        wanted = {**_queue(rollout, wave, usable, limit), "after": after}
        return [_candidate(row) for row in self._session.rows(_CANDIDATES, wanted)]

    def reach(self, rollout: str, wave: int, limit: int) -> int | None:
        self._session.flush()
        wanted = {"rollout": rollout, "wave": wave, "at_most": limit}
        found = self._session.rows(_REACH, wanted)[0][0]
        return None if found is None else int(found)

    def has_prepared(self, rollout: str) -> bool:
        self._session.flush()
        return bool(self._session.rows(_ANY, {"rollout": rollout}))

    def count_prepared(self, rollout: str) -> int:
        self._session.flush()
        return int(self._session.rows(_COUNT, {"rollout": rollout})[0][0])

    def save_prepared(self, rollout: str, prepared: Sequence[Prepared]) -> None:
        for each in prepared:
            self._session.later(SAVE, (rollout, each.given.device_id), _row(each))

    def give_prepared(
        self, rollout: Rollout, wave: int, usable: Usable, limit: int, now: datetime
    ) -> int:
        told_in = max(wave, rollout.wave)
        of_queue = {**_queue(rollout.name, wave, usable, limit), "after": 0}
        told = self._session.write(_ASSIGN, [{**of_queue, "told_in": told_in, "now": stored(now)}])
        if not told:
            return 0
        self._parts.clear()
        sample = Part(rollout.name, DeviceId(""), Progress.QUEUED, now, wave)
        self._count(sample, -told)
        self._count(
            replace(sample, wave=told_in, progress=next_progress(sample.progress, Step.ASSIGN)),
            told,
        )
        given = {"rollout": rollout.name, "now": stored(now)}
        self._end_earlier(given, now)
        self._session.write(_HOLD, [given])
        topic = {"before_id": _BEFORE_ID, "after_id": _AFTER_ID}
        self._session.write(_RETAIN, [{**given, **topic, "stamp": self.raise_counter(COUNTER)}])
        self._session.write(_LAST, [{**given, "number": rollout.number}])
        self._session.write(_FORGET, [given])
        return told

    def _end_earlier(self, given: dict[str, object], now: datetime) -> None:
        """Ends what held until now; other rollouts learn that they have lost the devices."""
        losing = self._session.rows(_COUNT_LOSING, given)
        for name, wave, at, number in losing:
            part = Part(name, DeviceId(""), Progress(at), now, int(wave))
            self._count(part, -int(number))
            progress = next_progress(part.progress, Step.SUPERSEDE)
            self._count(replace(part, progress=progress, code=SUPERSEDED), int(number))
        if losing:
            became = {"superseded": Progress.CANCELLED.value, "its_code": SUPERSEDED}
            self._session.write(_SUPERSEDE, [{**given, **became}])
        self._session.write(_SETTLE, [given])

    def drop_prepared(self, rollout: str, limit: int) -> int:
        return self._session.write(_DROP, [{"rollout": rollout, "at_most": limit}])


def _queue(rollout: str, wave: int, usable: Usable, limit: int) -> dict[str, object]:
    return {
        "rollout": rollout,
        "wave": wave,
        "signed_as": usable.signed_as,
        "since": stored(usable.since),
        "at_most": limit,
    }


def _row(prepared: Prepared) -> dict[str, object]:
    given = prepared.given
    return {
        "rollout": given.rollout,
        "device_id": given.device_id,
        "sequence": given.sequence,
        "nonce": given.nonce,
        "issued_at": stored(given.issued_at),
        "expires": stored(given.expires),
        "targets": json.dumps(given.targets),
        "payload": prepared.payload,
        "as_of": prepared.as_of,
        "signed_as": prepared.signed_as,
    }


def _candidate(row: Row) -> Candidate:
    of_part, of_device = len(ROLLOUT_PART.columns), len(DEVICE.columns)
    part = part_from(row[:of_part])
    software = row[of_part + of_device : -1]
    return Candidate(
        part=part,
        device=device_from(row[of_part : of_part + of_device]),
        known=DeviceUpdate(part.device_id) if software[0] is None else update_from(software),
        as_of=row[-1],
    )
