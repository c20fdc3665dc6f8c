"""The settings of one installation: `muster.toml` in its home, overruled by the environment.

A variable is named `MUSTER_` and the path of the setting, as `MUSTER_CLAIM__PORT`. Relative paths
are relative to the home. A setting that isn't known is an error, so that a typing mistake can't
silently leave a default in force.
"""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from broker.core.durations import parse_duration
from broker.protocol.zones import Zone

SETTINGS_FILE = "muster.toml"
STOCK_SERVICE_PORTS = {Zone.CLAIM: 8894, Zone.FLEET: 8893}
"""Where Mosquitto listens for the service, with Muster's configuration."""


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _keeping(value: Any) -> Any:
    return timedelta() if value == "0" else _duration(value)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BrokerKind(StrEnum):
    """Which broker serves a zone."""

    EMBEDDED = "embedded"
    MOSQUITTO = "mosquitto"


class ZoneSettings(_Section):
    """One zone's broker: where devices find it, and how the service steers it."""

    broker: BrokerKind = BrokerKind.EMBEDDED
    host: str = "localhost"
    """The name by which devices connect; the broker's certificate must carry it."""
    port: Port
    """The port by which devices connect; 0 lets the embedded broker choose (for tests)."""
    listen: str = "127.0.0.1"
    """The address that the embedded broker binds."""
    service_host: str | None = None
    """Where the service connects when that isn't `host` (a container's name, say)."""
    service_port: Port | None = None
    """The port by which the service connects: Mosquitto's listener for it alone. An embedded broker
    has one port for all."""
    pid_file: Path | None = None
    """Mosquitto only: its pid file, for the reload of a CRL."""
    admin_socket: Path | None = None
    """Mosquitto only: its admin listener, for ending a live connection."""
    reload_socket: Path | None = None
    """Mosquitto in a container: what is used instead of the pid file (mosquitto/supervise.py)."""

    @model_validator(mode="after")
    def _mosquitto_is_reachable(self) -> Self:
        if self.broker is BrokerKind.MOSQUITTO:
            if not (self.pid_file and self.admin_socket):
                raise ValueError("a Mosquitto zone needs pid_file and admin_socket")
            if not self.service_port or self.for_service == (self.host, self.port):
                raise ValueError(
                    "a Mosquitto zone needs service_port, the port of its listener for the service "
                    f"alone; in Muster's configuration {STOCK_SERVICE_PORTS[Zone.CLAIM]} of the "
                    f"claim broker and {STOCK_SERVICE_PORTS[Zone.FLEET]} of the fleet's, with "
                    'service_host = "127.0.0.1"'
                )
        # Else one zone's broker might be reloaded for the other's CRL.
        sockets = [path.parent for path in (self.reload_socket, self.admin_socket) if path]
        if len(set(sockets)) > 1:
            raise ValueError("reload_socket and admin_socket are in one folder, their broker's")
        return self

    @property
    def for_service(self) -> tuple[str, int]:
        """Host and port by which the service connects."""
        return self.service_host or self.host, self.service_port or self.port


class RegistrySettings(_Section):
    """Where the truth is kept."""

    url: SecretStr = SecretStr("sqlite:///registry.db")
    """`sqlite:///PATH` (relative to the home) or `postgresql://USER:PASSWORD@HOST/DATABASE`."""


class LimitSettings(_Section):
    """How much the service takes on."""

    confirm_within: Duration = timedelta(minutes=15)
    """How long a new certificate may stay unproven before it's revoked."""
    claims_per_second: Annotated[float, Field(gt=0)] = 50.0
    """Per claim certificate, sustained."""
    claims_burst: Annotated[int, Field(ge=1)] = 200
    client_claims_per_minute: Annotated[float, Field(gt=0)] = 12.0
    """Per client id, sustained."""
    client_claims_burst: Annotated[int, Field(ge=1)] = 10
    blocks_per_second: Annotated[float, Field(gt=0)] = 8.0
    """Blocks of an image over MQTT (at most 32 KiB each) per device, sustained."""
    blocks_burst: Annotated[int, Field(ge=1)] = 16
    concurrent_requests: Annotated[int, Field(ge=1, le=10_000)] = 512
    """Requests of one zone in hand at once; more wait in the broker."""


class HttpSettings(_Section):
    """CRLs, certificates' status and update files over plain HTTP: all of it is signed by itself,
    and none of it is secret."""

    listen: str = "127.0.0.1"
    """The address to bind; put a reverse proxy before it where strangers come."""
    port: Port | None = None
    """Serves HTTP at this port when set; 0 lets the system choose (for tests)."""
    connections_per_address: Annotated[int, Field(ge=1)] = 64
    """Of 256 for all; behind a reverse proxy everybody has its address."""
    requests_per_second: Annotated[float, Field(gt=0)] = 200.0
    """Of all clients together; more wait for their turn, so that no flood holds the service up."""


class UpdateSettings(_Section):
    """How images reach devices."""

    sources: tuple[Annotated[str, Field(pattern=r"^https?://[!-~]{1,500}$")], ...] = ()
    """URLs of folders that hold what `updates/repository/targets` holds (this service's own
    `/updates/targets`, an object store, a CDN), the best first. They are named in assignments; a
    device that gets nowhere with them, or is told none, asks for blocks over MQTT."""


class AuditSettings(_Section):
    """The audit log."""

    keep: Annotated[timedelta, BeforeValidator(_keeping)] = timedelta(days=400)
    """How long events stay: at least a week; "0" is for ever."""

    @model_validator(mode="after")
    def _keeps_a_week(self) -> Self:
        if timedelta() < self.keep < timedelta(days=7):
            raise ValueError("audit.keep is at least 7d, or 0 for ever")
        return self


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="MUSTER_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    claim: ZoneSettings = ZoneSettings(port=8884)
    fleet: ZoneSettings = ZoneSettings(port=8883)
    registry: RegistrySettings = RegistrySettings()
    limits: LimitSettings = LimitSettings()
    http: HttpSettings = HttpSettings()
    updates: UpdateSettings = UpdateSettings()
    audit: AuditSettings = AuditSettings()
    metrics_port: Port | None = None
    """Serves Prometheus metrics on 127.0.0.1 at this port when set."""

    @model_validator(mode="after")
    def _zones_are_apart(self) -> Self:
        claim, fleet = self.claim, self.fleet
        if claim.port and (claim.host, claim.port) == (fleet.host, fleet.port):
            raise ValueError(
                f"claim.port and fleet.port are both {claim.port}; each has its broker"
            )
        if claim.service_port and claim.for_service == fleet.for_service:
            raise ValueError(
                f"claim.service_port and fleet.service_port are both {claim.service_port}; each "
                "has its broker"
            )
        return self

    def zone(self, zone: Zone) -> ZoneSettings:
        """The settings of one zone."""
        return self.claim if zone is Zone.CLAIM else self.fleet

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which comes in as init values."""
        return (env_settings, init_settings)


def load_settings(home: Path) -> Settings:
    """The settings of the installation in `home`, whose file may be missing.

    Raises:
        pydantic.ValidationError: a setting is unknown or wrong.
        tomllib.TOMLDecodeError: the file isn't TOML.
    """
    from_file = TomlConfigSettingsSource(Settings, home / SETTINGS_FILE)()
    return Settings(**from_file)
