"""What can go wrong: for the operator as `BrokerError`, for one connection as `Ended`."""

from enum import StrEnum


class BrokerErrorCode(StrEnum):
    """Why the broker can't start, or can't take a new CRL into force."""

    ALREADY_STARTED = "broker_already_started"
    NOT_RUNNING = "broker_not_running"
    PORT_TAKEN = "broker_port_taken"
    ADDRESS_UNUSABLE = "broker_address_unusable"
    FILE_MISSING = "broker_file_missing"
    FILE_UNREADABLE = "broker_file_unreadable"
    CERTIFICATE_INVALID = "broker_certificate_invalid"
    KEY_INVALID = "broker_key_invalid"
    CRL_CORRUPT = "broker_crl_corrupt"
    CRL_UNTRUSTED = "broker_crl_untrusted"
    CRL_EXPIRED = "broker_crl_expired"
    CRL_NOT_YET_VALID = "broker_crl_not_yet_valid"
    CRL_INCOMPLETE = "broker_crl_incomplete"


class BrokerError(Exception):
    """The broker refused to start, or to change; what was in force stays in force.

    `remedy` tells the operator what to do next.
    """

    def __init__(self, code: BrokerErrorCode, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


class Ending(StrEnum):
    """Why a connection ended."""

    CLIENT_LEFT = "client_left"
    CONNECTION_LOST = "connection_lost"
    TAKEN_OVER = "taken_over"
    LOCKED_OUT = "locked_out"
    BROKER_STOPPED = "broker_stopped"
    CROWDED_OUT = "crowded_out"
    TOO_MANY = "too_many_connections"
    TLS_FAILED = "tls_failed"
    CERTIFICATE_REFUSED = "certificate_refused"
    CONNECT_LATE = "connect_late"
    CONNECT_REFUSED = "connect_refused"
    MALFORMED = "packet_malformed"
    TOO_LARGE = "packet_too_large"
    PROTOCOL = "protocol_violated"
    SILENT = "keepalive_missed"
    STALLED = "not_reading"
    FLOODING = "packets_without_end"
    INTERNAL = "internal_error"


class Ended(Exception):
    """This connection is over. `detail` is for the log and holds nothing that a client chose
    unless it is quoted and shortened; `farewell` is the last packet that the client gets."""

    def __init__(self, ending: Ending, detail: str = "", farewell: bytes = b"") -> None:
        super().__init__(f"{ending}: {detail}" if detail else str(ending))
        self.ending = ending
        self.detail = detail
        self.farewell = farewell
