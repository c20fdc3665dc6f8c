"""What tests of the operator's acts need: a registry of their own, and a clock that they set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.adapters.registry import SqlRegistry
from broker.core.records import ClaimCertificate
from broker.ports.registry import Registry, WriteTransaction
from broker.protocol.names import CertificateSerial, ClaimName
from tests.support.templates import with_schema

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class SetClock:
    """Meets `broker.ports.clock.Clock`; stands still until it is set."""

    at: datetime = NOW

    def now(self) -> datetime:
        """The time that was set."""
        return self.at

    def monotonic(self) -> float:
        """Seconds since the time at which it began."""
        return (self.at - NOW).total_seconds()


@asynccontextmanager
async def fresh_registry(folder: Path) -> AsyncIterator[Registry]:
    """An empty registry in SQLite, of the newest schema."""
    async with SqlRegistry(with_schema(folder / "registry.db")) as registry:
        yield registry


async def add_claims(registry: Registry, *names: str) -> None:
    """Claim certificates for 100 claims each, good for 30 days."""

    def work(view: WriteTransaction) -> None:
        for name in names:
            view.save_claim_certificate(_claim(name))

    await registry.write(work)


def _claim(name: str) -> ClaimCertificate:
    serial = CertificateSerial(name.encode().hex())
    return ClaimCertificate(ClaimName(name), serial, NOW, NOW + timedelta(days=30), 100)
