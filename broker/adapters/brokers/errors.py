"""How steering a broker that isn't ours fails."""

from enum import StrEnum


class BrokerControlCode(StrEnum):
    """Stable names of the failures."""

    BROKER_DOWN = "broker_down"
    BROKER_MISMATCH = "broker_mismatch"
    BROKER_REFUSED = "broker_refused"
    BROKER_SILENT = "broker_silent"
    CLIENT_ID_INVALID = "client_id_invalid"
    CRL_INVALID = "crl_invalid"
    CRL_UNREADABLE = "crl_unreadable"
    CRL_UNWRITABLE = "crl_unwritable"
    NOT_PERMITTED = "not_permitted"


class BrokerControlError(Exception):
    """A broker wasn't brought to do what was asked; whether it did a part of it is unknown.

    `remedy` tells the operator what to do next.
    """

    def __init__(self, code: BrokerControlCode, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
