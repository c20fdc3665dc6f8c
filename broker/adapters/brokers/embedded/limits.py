"""How much one embedded broker takes on. Every buffer a client can fill is bounded here."""

from dataclasses import dataclass

from broker.protocol.zones import Zone

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class BrokerLimits:
    """Bounds; names ending in `_s` are seconds, sizes are bytes of a whole MQTT packet."""

    max_connections: int = 4096
    max_connecting: int = 128
    """Connections that haven't sent their CONNECT yet. Few, so that in a rush each is fast."""
    max_per_claim: int = 2048
    """Connections of one claim certificate, which many devices share."""
    max_per_device: int = 4
    """Connections of one device certificate: the live one, and those about to take over."""
    max_per_service: int = 32

    max_connect_packet: int = 8 * KIB
    max_packet_claim: int = 16 * KIB
    max_packet_fleet: int = 256 * KIB
    max_packet_service: int = MIB
    max_filters: int = 32
    """Subscriptions of one client."""
    max_filters_in_packet: int = 32
    """Filters of one SUBSCRIBE or UNSUBSCRIBE, each of which takes its time to be judged."""
    packets_per_second: float = 100.0
    """Of one connection, sustained; who sends more is slowed. A filter counts as a packet. A device
    that fetches an image in blocks sends two for each, eight times a second."""
    packets_burst: int = 400
    packets_per_name_second: float = 1000.0
    """Of all connections of one certificate: a batch's claims are five packets each."""
    packets_per_name_burst: int = 4000
    max_slowed: int = 3000
    """Packets in a row that came faster than `packets_per_second`, half a minute of them, before a
    client is taken for a flooder and disconnected."""
    max_outgoing: int = MIB
    """Bytes waiting for one device that reads too slowly; with more it is disconnected."""
    max_outgoing_service: int = 32 * MIB
    """The same for a service. At half of it, devices are read no further until it has caught up."""

    handshake_s: float = 10.0
    connect_s: float = 10.0
    """From the end of the TLS handshake to a whole CONNECT."""
    patience_s: float = 5.0
    """When `max_connecting` are, the oldest makes room for a newcomer after this long."""
    idle_max_s: float = 300.0
    """The longest silence of a client that asked for no keepalive."""
    write_s: float = 15.0
    """How long a client may leave what it was sent unread."""

    def max_packet(self, zone: Zone, is_service: bool) -> int:
        """The largest packet that a client may send after its CONNECT."""
        if is_service:
            return self.max_packet_service
        return self.max_packet_claim if zone is Zone.CLAIM else self.max_packet_fleet

    def max_per_name(self, zone: Zone, is_service: bool) -> int:
        """How many connections one certificate name may have at once."""
        if is_service:
            return self.max_per_service
        return self.max_per_claim if zone is Zone.CLAIM else self.max_per_device
