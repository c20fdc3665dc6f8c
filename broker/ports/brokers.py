"""The brokers: publishing, what they retain, throwing somebody off, and the CRL beside them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from broker.protocol.zones import Zone


class BrokerControl(Protocol):
    """What the service asks of one broker besides MQTT."""

    async def apply_crl(self) -> None:
        """Puts the zone's CRL file in force: on return, a connection of a revoked certificate is
        refused."""

    async def disconnect(self, name: str) -> int:
        """Ends the live connections of the certificate name `name`; returns how many it ended."""


class Publisher(Protocol):
    """Sends what the service says on one zone's broker."""

    async def publish(self, zone: Zone, topic: str, payload: bytes) -> None:
        """Returns when the broker has it (PUBACK).

        Raises:
            PublishError: it isn't certain that the broker has it.
        """


class FleetMemory(Protocol):
    """What the fleet's broker remembers of its retained messages."""

    @property
    def session(self) -> int | None:
        """Another number after each new connection: the broker may have forgotten meanwhile. None
        while there is no connection."""

    async def mark(self) -> int:
        """The mark that this connection found retained; 0 when there was none.

        Raises:
            PublishError: there is no connection.
        """

    async def retain(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Has it retain payloads under topics, in this order; returns when it has all. For some
        hundreds at once.

        Raises:
            PublishError: it isn't certain that the broker has them all.
        """


class PublishError(Exception):
    """The broker didn't take a message; it stays in the outbox."""

    code = "publish_failed"
    remedy = "See that the broker runs; what waits is sent again by itself."


class CrlFile(Protocol):
    """The file from which a zone's broker reads its CRL."""

    async def swap(self, pem: bytes, now: datetime) -> None:
        """Puts `pem` in place whole, after checking it; the old file stays when it is faulty."""


class WatchedCrlFile(CrlFile, Protocol):
    """A CRL file that is looked after, whoever may change it."""

    async def is_intact(self) -> bool:
        """Whether the file is, byte for byte, what `swap` put there last."""


class LastingCrlFile(Protocol):
    """A CRL file that a broker reads and the service doesn't sign."""

    async def restore(self, now: datetime) -> bool:
        """Puts it back as it was last good, if it isn't good and there is such a copy; whether it
        did."""
