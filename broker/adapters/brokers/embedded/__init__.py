"""The embedded MQTT broker: amqtt behind a guarded TLS listener of our own."""

from broker.adapters.brokers.embedded.errors import BrokerError, BrokerErrorCode
from broker.adapters.brokers.embedded.limits import BrokerLimits
from broker.adapters.brokers.embedded.server import EmbeddedBroker
from broker.adapters.brokers.embedded.trust import BrokerTls
from broker.protocol.zones import Zone

__all__ = ["BrokerError", "BrokerErrorCode", "BrokerLimits", "BrokerTls", "EmbeddedBroker", "Zone"]
