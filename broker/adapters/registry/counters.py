"""Counters that only rise, such as a CRL's number."""

from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.schema import COUNTER
from broker.adapters.registry.session import Part

_T: Final = COUNTER
_VALUE: Final = sa.select(_T.c.value).where(_T.c.name == sa.bindparam("wanted"))
_START: Final = sa.insert(_T).values(name=sa.bindparam("wanted"), value=1).inline()
_RAISE: Final = (
    sa.update(_T).where(_T.c.name == sa.bindparam("wanted")).values(value=_T.c.value + 1)
)


class Counters(Part):
    """The port's methods about counters, on one transaction."""

    def counter(self, name: str) -> int:
        found = self._session.rows(_VALUE, {"wanted": name})
        return int(found[0][0]) if found else 0

    def raise_counter(self, name: str) -> int:
        if not self._session.write(_RAISE, [{"wanted": name}]):
            self._session.write(_START, [{"wanted": name}])
        return self.counter(name)
