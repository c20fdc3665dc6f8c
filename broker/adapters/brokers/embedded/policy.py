"""Who may publish and read what, in either zone. Pure: an identity and a topic decide.

The rights are those of `mosquitto/`'s access lists. One thing is stricter: a filter outside of what
a client may read is refused at SUBSCRIBE, where Mosquitto grants it and then delivers nothing.
"""

from dataclasses import dataclass
from typing import Final

from broker.adapters.brokers.embedded.topics import covers, is_filter, matches
from broker.protocol.limits import MAX_TOPIC
from broker.protocol.names import is_name
from broker.protocol.topics import PREFIX
from broker.protocol.zones import Zone

DESIRED: Final = "desired"
ANSWERS: Final = ("+/accepted", "+/rejected")
PUBLIC: Final = f"{PREFIX}/fleet/#"
"""Retained data that every device of the fleet reads and only the service writes."""
EVERYTHING: Final = f"{PREFIX}/#"


@dataclass(frozen=True)
class Identity:
    """A client as its certificate and its CONNECT prove it; both names are well formed."""

    zone: Zone
    name: str
    client_id: str
    is_service: bool = False


@dataclass(frozen=True)
class Rights:
    """What one identity may do; what isn't granted is denied."""

    own: str | None
    """The branch where it publishes operations; none for the service, which writes everywhere."""
    reads: tuple[str, ...]
    may_retain: bool

    def may_publish(self, topic: str) -> bool:
        """Whether a message on `topic` is passed on. Wildcards and `$` topics never are."""
        if len(topic) > MAX_TOPIC or not is_filter(topic) or "+" in topic or "#" in topic:
            return False
        if self.own is None:
            return matches(EVERYTHING, topic)
        branch, _, operation = topic.rpartition("/")
        return branch == self.own and is_name(operation) and operation != DESIRED

    def may_read(self, topic: str) -> bool:
        """Whether a message on `topic` is delivered."""
        return any(matches(granted, topic) for granted in self.reads)

    def may_subscribe(self, filter_: str) -> bool:
        """Whether `filter_` is granted.

        It must lie inside what may be read. The whole of a client's own branch is granted too, for
        convenience: delivery decides by `may_read` for every message.
        """
        if len(filter_) > MAX_TOPIC or not is_filter(filter_):
            return False
        if self.own is not None and filter_ == f"{self.own}/#":
            return True
        return any(covers(granted, filter_) for granted in self.reads)


def rights_of(identity: Identity) -> Rights:
    """The rights of `identity` in its zone."""
    if identity.is_service:
        return Rights(own=None, reads=(EVERYTHING,), may_retain=True)
    if identity.zone is Zone.CLAIM:
        own = f"{PREFIX}/claim/{identity.name}/{identity.client_id}"
        extra: tuple[str, ...] = ()
    else:
        own = f"{PREFIX}/device/{identity.name}"
        extra = (f"{own}/{DESIRED}/#", PUBLIC)
    reads = (*(f"{own}/{answer}" for answer in ANSWERS), *extra)
    return Rights(own=own, reads=reads, may_retain=False)
