"""The sizes fit into each other."""

from broker.protocol import limits

CLAIM_BROKER_PACKET = 16_384


def test_a_request_with_its_topic_fits_the_claim_broker_s_packet() -> None:
    header = 5 + 2 + 2  # fixed header, topic length, packet id (MQTT 3.1.1, 3.3)
    assert limits.MAX_REQUEST + limits.MAX_TOPIC + header <= CLAIM_BROKER_PACKET


def test_the_largest_csr_with_all_parameters_fits_a_request() -> None:
    parameters = limits.MAX_PARAMETERS * (32 + limits.MAX_PARAMETER_VALUE + 6)
    rest = limits.MAX_REQUEST_ID + 64 + 100
    assert limits.MAX_CSR + parameters + rest <= limits.MAX_REQUEST
