"""The native namespace: which topic carries what, in both directions.

    muster/v1/claim/{claim name}/{client id}/{operation}
    muster/v1/device/{device id}/{operation}

An answer comes on the request's topic plus `/accepted` or `/rejected`. What holds until it is
replaced is retained, and comes to whoever subscribes:

    muster/v1/device/{device id}/desired/{what}     for one device
    muster/v1/fleet/{what}                          for every device of the fleet
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker.protocol import limits
from broker.protocol.codes import Code, Refused
from broker.protocol.names import ClaimName, ClientId, DeviceId, is_name
from broker.protocol.zones import Zone

PREFIX: Final = "muster/v1"
CLAIM_REQUESTS: Final = f"{PREFIX}/claim/+/+/+"
DEVICE_REQUESTS: Final = f"{PREFIX}/device/+/+"
TRUST_BUNDLE: Final = f"{PREFIX}/fleet/trust-bundle"
"""The newest anchors, signed by the root; retained for every device of the fleet."""
UPDATE_METADATA: Final = f"{PREFIX}/fleet/update"
"""The branch of TUF's metadata; the level below is the file's name (`3.root.json`)."""
RETAINED_MARK: Final = f"{PREFIX}/service/retained"
"""How far the fleet broker's memory of retained messages goes; the service's own."""


class Operation(StrEnum):
    """What a device may ask for."""

    ENROLL = "enroll"
    RECOVER = "recover"
    CONFIRM = "confirm"
    RENEW = "renew"
    REPORT = "report"
    BLOCK = "block"


ZONE_OF: Final[dict[Operation, Zone]] = {
    Operation.ENROLL: Zone.CLAIM,
    Operation.RECOVER: Zone.CLAIM,
    Operation.CONFIRM: Zone.FLEET,
    Operation.RENEW: Zone.FLEET,
    Operation.REPORT: Zone.FLEET,
    Operation.BLOCK: Zone.FLEET,
}
"""Where each is asked for; there is no other place."""


class Desired(StrEnum):
    """What the service wants of one device, retained for it alone."""

    ROTATION = "rotation"
    UPDATE = "update"


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


def desired_topic(device_id: DeviceId, what: Desired) -> str:
    """Where the service retains what it wants of a device; only that device may read it."""
    return f"{PREFIX}/device/{device_id}/desired/{what}"


def metadata_topic(file_name: str) -> str:
    """Where a file of TUF's metadata is retained, such as `timestamp.json` or `3.root.json`."""
    return f"{UPDATE_METADATA}/{file_name}"


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
