"""Device agents in the test's own process, with short waits."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from broker.protocol.bundle import ClaimBundle
from device_client import keystore
from device_client.agent import Agent
from device_client.enrollment import Enrollment
from device_client.keys import KeyType
from device_client.keystore import Keystore
from device_client.online import Duty
from device_client.settings import Timing
from device_client.status_note import StatusFile

QUICK = Timing(
    connect_s=20.0,
    keepalive_s=10,
    answers_s=(30.0,),
    backoff_base_s=0.02,
    backoff_cap_s=0.2,
    slow_base_s=0.02,
    slow_cap_s=0.2,
    stable_s=60.0,
)


def utc_now() -> datetime:
    """The right time."""
    return datetime.now(UTC)


@contextmanager
def device(
    state: Path,
    bundle: ClaimBundle,
    serial: str = "A1",
    key_type: KeyType = KeyType.P256,
    timing: Timing = QUICK,
    clock: Callable[[], datetime] = utc_now,
    duties: Sequence[Duty] = (),
) -> Iterator[tuple[Agent, Keystore]]:
    """An agent with its keystore, as the command makes them."""
    with keystore.opened(state) as store:
        store.remember(Enrollment(bundle=bundle, serial=serial, key_type=key_type))
        yield Agent(store, StatusFile(state), timing, clock, duties=duties), store
