"""What the service counts, for Prometheus."""

import errno
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from broker.protocol.zones import Zone

_HOST: Final = "127.0.0.1"


class MetricsListenError(Exception):
    """The port for metrics can't be used."""

    code = "metrics_port_unusable"

    def __init__(self, port: int, error: OSError) -> None:
        is_taken = error.errno == errno.EADDRINUSE
        cause = "is taken" if is_taken else f"can't be bound: {error.strerror or error}"
        super().__init__(f"{_HOST}:{port} for metrics {cause}")
        self.remedy = "set another metrics_port in muster.toml"


class PrometheusTelemetry:
    """Counts requests by zone, operation and outcome; all three come from closed sets."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "muster_requests",
            "Requests by devices; the outcome is 'accepted' or the refusal's code.",
            ["zone", "operation", "outcome"],
            registry=self.registry,
        )

        self._alarms = Counter(
            "muster_claim_alarms",
            "Alarms about claim certificates: one may have leaked.",
            ["alarm", "claim_certificate"],
            registry=self.registry,
        )

        self._unsupported = Gauge(
            "muster_devices_unsupported",
            "Devices that run an image whose support has ended.",
            registry=self.registry,
        )

    def unsupported(self, devices: int) -> None:
        """So many devices run what is no longer supported."""
        self._unsupported.set(devices)

    def alarm(self, alarm: str, claim_name: str) -> None:
        """One more alarm; claim certificates are the operator's, and few."""
        self._alarms.labels(alarm, claim_name).inc()

    def count(self, zone: Zone, operation: str, outcome: str) -> None:
        """One more request."""
        self._requests.labels(zone, operation, outcome).inc()

    def serve(self, port: int) -> None:
        """Answers scrapes on loopback, in a thread of its own that ends with the process.

        Raises:
            MetricsListenError: the port can't be bound.
        """
        try:
            start_http_server(port, addr=_HOST, registry=self.registry)
        except OSError as error:
            raise MetricsListenError(port, error) from error
