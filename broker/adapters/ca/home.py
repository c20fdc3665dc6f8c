"""Where everything lies in a Muster home (docs/adr/0005-certificate-profiles.md)."""

from dataclasses import dataclass
from pathlib import Path

from broker.core.ca_rollover import FIRST_GENERATION
from broker.protocol.zones import Zone


@dataclass(frozen=True)
class PairPaths:
    """A certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class MusterHome:
    """The paths of a home: `ca/` is secret, `tls/`, `trust/` and `crl/` are what brokers read."""

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / "muster.toml"

    @property
    def registry(self) -> Path:
        """The registry, when it is SQLite."""
        return self.path / "registry.db"

    @property
    def run(self) -> Path:
        """Sockets and process ids of what runs now."""
        return self.path / "run"

    @property
    def doorbell(self) -> Path:
        """Where commands tell the service that they have changed the registry."""
        return self.run / "doorbell"

    @property
    def service_lock(self) -> Path:
        """Held by the service while it runs; see `adapters/run_lock.py`."""
        return self.run / "service.lock"

    @property
    def updates(self) -> Path:
        """The update repository: `adapters/updates/layout.py` says what lies there."""
        return self.path / "updates"

    @property
    def ca(self) -> Path:
        return self.path / "ca"

    @property
    def tls(self) -> Path:
        return self.path / "tls"

    @property
    def trust(self) -> Path:
        return self.path / "trust"

    @property
    def crl(self) -> Path:
        return self.path / "crl"

    @property
    def root(self) -> PairPaths:
        """The anchor of devices; its key may be kept elsewhere."""
        return _pair(self.ca, "root")

    @property
    def operational(self) -> PairPaths:
        """Issues to devices; the service needs its key. The first; its successors have numbers."""
        return self.operational_of(FIRST_GENERATION)

    def operational_of(self, generation: int) -> PairPaths:
        """One of them. No file is ever renamed: a kill can't leave two that are half exchanged."""
        number = "" if generation == FIRST_GENERATION else f"-{generation}"
        return _pair(self.ca, f"operational{number}")

    @property
    def claim(self) -> PairPaths:
        """Issues claim certificates; its key may be kept elsewhere."""
        return _pair(self.ca, "claim")

    @property
    def infrastructure(self) -> PairPaths:
        """Issues to brokers and to the service; its key may be kept elsewhere. The first."""
        return self.infrastructure_of(FIRST_GENERATION)

    def infrastructure_of(self, generation: int) -> PairPaths:
        """One of them, as with `operational_of`."""
        number = "" if generation == FIRST_GENERATION else f"-{generation}"
        return _pair(self.ca, f"infrastructure{number}")

    @property
    def infrastructure_crl(self) -> Path:
        """The infrastructure authorities' CRLs: for the service's own certificates."""
        return self.crl / "infrastructure.pem"

    def broker(self, zone: Zone) -> PairPaths:
        """What the zone's broker serves with."""
        return _pair(self.tls, f"{zone}-broker")

    def service(self, zone: Zone) -> PairPaths:
        """What the service connects with to the zone's broker."""
        return _pair(self.tls, f"service-{zone}")

    def client_anchors(self, zone: Zone) -> Path:
        """By what the zone's broker authenticates devices; the service it knows by
        `server_anchors`."""
        return self.trust / f"{zone}-clients.pem"

    @property
    def server_anchors(self) -> Path:
        """By what clients authenticate brokers."""
        return self.trust / "servers.pem"

    @property
    def server_trust(self) -> Path:
        """The signed trust bundle, once there is one; see `server_trust.py`."""
        return self.trust / "servers.json"

    def crl_file(self, zone: Zone) -> Path:
        """The CRLs of those who issue to the zone's devices, in one file."""
        return self.crl / f"{zone}.pem"


def _pair(folder: Path, name: str) -> PairPaths:
    return PairPaths(folder / f"{name}.crt", folder / f"{name}.key")
