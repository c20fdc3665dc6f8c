"""The native namespace: which topic carries what, in both directions.

    muster/v1/claim/{claim name}/{client id}/{operation}
    muster/v1/device/{device id}/{operation}

An answer comes on the request's topic plus `/accepted` or `/rejected`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker.protocol import limits
from broker.protocol.codes import Code, Refused
from broker.protocol.names import ClaimName, ClientId, DeviceId, is_name

PREFIX: Final = "muster/v1"
CLAIM_REQUESTS: Final = f"{PREFIX}/claim/+/+/+"
DEVICE_REQUESTS: Final = f"{PREFIX}/device/+/+"


class Operation(StrEnum):
    """What a device may ask for."""

    ENROLL = "enroll"
    CONFIRM = "confirm"


class Outcome(StrEnum):
    """How a request ended; the last level of its answer's topic."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True)
class ClaimOrigin:
    """Who published in the claim zone, as the broker vouches for by the topic."""

    claim_name: ClaimName
    client_id: ClientId


@dataclass(frozen=True)
class DeviceOrigin:
    """Who published in the fleet zone, as the broker vouches for by the topic."""

    device_id: DeviceId


Origin = ClaimOrigin | DeviceOrigin


@dataclass(frozen=True)
class Request:
    """Who asks, and for which operation by its name (which may not exist)."""

    origin: Origin
    operation: str


def claim_topic(origin: ClaimOrigin, operation: Operation) -> str:
    """Where a claimant asks for `operation`."""
    return f"{PREFIX}/claim/{origin.claim_name}/{origin.client_id}/{operation}"


def device_topic(origin: DeviceOrigin, operation: Operation) -> str:
    """Where a device asks for `operation`."""
    return f"{PREFIX}/device/{origin.device_id}/{operation}"


def answer_topic(request_topic: str, outcome: Outcome) -> str:
    """Where the answer to a request goes; only the asker may read it."""
    return f"{request_topic}/{outcome}"


def parse_request(topic: str) -> Request:
    """Who asks for what, from a request's topic.

    Raises:
        Refused: ORIGIN_INVALID when it isn't a request's topic or a name in it isn't a name.
    """
    if len(topic) > limits.MAX_TOPIC:
        raise Refused(Code.ORIGIN_INVALID)
    levels = topic.split("/")
    if not all(is_name(level) for level in levels[2:]):
        raise Refused(Code.ORIGIN_INVALID)
    match levels:
        case ["muster", "v1", "claim", claim, client, operation]:
            return Request(ClaimOrigin(ClaimName(claim), ClientId(client)), operation)
        case ["muster", "v1", "device", device, operation]:
            return Request(DeviceOrigin(DeviceId(device)), operation)
        case _:
            raise Refused(Code.ORIGIN_INVALID)
