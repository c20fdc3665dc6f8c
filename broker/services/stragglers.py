"""Looking for devices that are out and got in all the same, until their certificates have ended.

Mosquitto looks at a CRL in handshakes only, and gives a connection that doesn't say CONNECT up
after some 95 s; but not while it waits for a large CONNECT that comes byte by byte: then never. Who
had finished a handshake before the CRL may get in whenever he likes. So who is out is thrown off
again, ever after, at a pace that costs nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from broker.core.lifecycle import DeviceState
from broker.ports.clock import Clock
from broker.ports.registry import DeviceFilter, ReadTransaction, Registry
from broker.protocol.names import DeviceId

_OUT: Final = (DeviceState.SUSPENDED, DeviceState.REVOKED, DeviceState.RETIRED)
_PAGE: Final = 200
EVERY_S: Final = 10.0
"""Between two pages: of up to 200 devices that are out each is looked at six times a minute, of
20,000 each once in a quarter of an hour."""


class Stragglers:
    """Goes round all devices that are out, a page at a time; to be called every `EVERY_S`."""

    def __init__(
        self, registry: Registry, clock: Clock, suspect: Callable[[Iterable[DeviceId]], None]
    ) -> None:
        """`suspect` has the live connections ended of those that hold no live certificate."""
        self._registry = registry
        self._clock = clock
        self._suspect = suspect
        self._state = _OUT[0]
        self._after: DeviceId | None = None

    async def look(self) -> None:
        """Suspects the next ones who may still hold a handshake.

        Raises:
            RegistryError: the registry can't be read; the next call goes on where this one was.
        """
        for _ in _OUT:
            names = await self._registry.read(self._page)
            if len(names) == _PAGE:
                self._after = names[-1]
            else:
                self._state = _OUT[(_OUT.index(self._state) + 1) % len(_OUT)]
                self._after = None
            self._suspect(await self._registry.read(lambda view: self._unexpired(view, names)))  # noqa: B023 - read at once
            if len(names) == _PAGE:
                return

    def _page(self, view: ReadTransaction) -> list[DeviceId]:
        wanted = DeviceFilter(state=self._state, after=self._after, limit=_PAGE)
        return [device.id for device in view.devices(wanted)]

    def _unexpired(self, view: ReadTransaction, names: Sequence[DeviceId]) -> list[DeviceId]:
        """Those of whom a certificate hasn't ended: no broker lets in by another."""
        now = self._clock.now()
        found = view.certificates_of(names) if names else []
        return sorted({each.device_id for each in found if now < each.not_after})
