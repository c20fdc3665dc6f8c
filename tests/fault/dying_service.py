"""`muster up` that kills itself at a step: python -m tests.fault.dying_service STEP:NTH … up

The service's own code runs; only what stands around one step is wrapped. SIGKILL leaves it no time
for anything, as a power cut would.
"""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from paho.mqtt.client import Client

from broker.adapters.brokers.crl_file import WatchedCrlFile
from broker.adapters.brokers.embedded import EmbeddedBroker
from broker.adapters.brokers.mosquitto import MosquittoControl
from broker.adapters.registry import batch
from broker.adapters.registry.transaction import SqlTransaction
from broker.entry.cli import main
from broker.entry.mqtt.link import BrokerLink
from broker.services.confirm import ConfirmService
from broker.services.enroll import EnrollService
from broker.services.lapse import LapseService

WORKS: Final = {
    "claim": (EnrollService, "_claim"),
    "confirm": (ConfirmService, "_confirm"),
    "lapse": (LapseService, "_lapse"),
    "outbox": (SqlTransaction, "remove_replies"),
}
"""What may be in a batch, by the method that is called inside its transaction."""
COMMIT_STEPS: Final = tuple(
    f"{work}-{when}" for work in WORKS for when in ("begun", "uncommitted", "committed")
)
LINK_STEPS: Final = tuple(
    f"{zone}-{what}-{when}"
    for zone in ("claim", "fleet")
    for what in ("publish", "acknowledge")
    for when in ("before", "after")
)
CRL_STEPS: Final = (
    "crl-swap-before",
    "crl-drafted",
    "crl-swap-after",
    "crl-apply-before",
    "crl-apply-after",
    "lock-out-before",
    "lock-out-after",
)
"""What follows a lapse; the CRLs that are put in force at a start don't count."""


class Death:
    """Counts the steps, and kills at the one that was named."""

    def __init__(self, named: str) -> None:
        self._step, _, nth = named.partition(":")
        self._nth = int(nth)
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def step(self, name: str) -> None:
        """This step has been reached."""
        with self._lock:
            if name in CRL_STEPS and not self._seen["lapse-committed"]:
                return
            self._seen[name] += 1
            if (name, self._seen[name]) == (self._step, self._nth):
                os.kill(os.getpid(), signal.SIGKILL)


def before_and_after(death: Death, owner: type, method: str, name: str) -> None:
    """Wraps a coroutine method."""
    real = getattr(owner, method)

    async def wrapped(self: Any, *args: Any, **options: Any) -> Any:
        death.step(f"{name}-before")
        result = await real(self, *args, **options)
        death.step(f"{name}-after")
        return result

    setattr(owner, method, wrapped)


def wrap_commits(death: Death) -> None:
    """Steps around the commits, once for each work in it: how many share one is chance."""
    in_batch: Counter[str] = Counter()
    for work, (owner, method) in WORKS.items():
        setattr(owner, method, _noted(death, getattr(owner, method), work, in_batch))

    def on_commit(_: sa.Connection) -> None:
        if threading.current_thread().name == "registry-writer":
            for work in in_batch.elements():
                death.step(f"{work}-uncommitted")

    sa.event.listen(sa.Engine, "commit", on_commit)
    real = batch.open_transaction

    @contextmanager
    def transaction(*args: Any) -> Iterator[Any]:
        in_batch.clear()
        with real(*args) as opened:
            yield opened
        for work in in_batch.elements():
            death.step(f"{work}-committed")

    batch.open_transaction = transaction  # type: ignore[assignment]


def _noted(
    death: Death, real: Callable[..., Any], work: str, in_batch: Counter[str]
) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        in_batch[work] += 1
        death.step(f"{work}-begun")
        return real(*args, **options)

    return wrapped


def wrap_links(death: Death) -> None:
    """Steps around publishing and acknowledging a request, in each zone."""
    for method in ("publish", "retain"):
        setattr(BrokerLink, method, _published(death, getattr(BrokerLink, method)))
    acknowledge = Client.ack

    def acknowledged(self: Client, mid: int, qos: int) -> Any:
        zone = "claim" if b"service-claim" in self._client_id else "fleet"
        death.step(f"{zone}-acknowledge-before")
        result = acknowledge(self, mid, qos)
        death.step(f"{zone}-acknowledge-after")
        return result

    Client.ack = acknowledged  # type: ignore[method-assign]


def _published(death: Death, real: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(self: BrokerLink, *args: Any, **options: Any) -> None:
        zone = self._settings.zone
        death.step(f"{zone}-publish-before")
        await real(self, *args, **options)
        death.step(f"{zone}-publish-after")

    return wrapped


def wrap_crls(death: Death) -> None:
    """Steps around a CRL's way into force."""
    before_and_after(death, WatchedCrlFile, "swap", "crl-swap")
    replace = os.replace

    def replaced(source: Any, target: Any, **options: Any) -> None:
        is_crl = Path(target).name == "fleet.pem"
        if is_crl:
            death.step("crl-drafted")
        replace(source, target, **options)

    os.replace = replaced  # type: ignore[assignment]
    for control in (MosquittoControl, EmbeddedBroker):
        before_and_after(death, control, "apply_crl", "crl-apply")
        before_and_after(death, control, "disconnect", "lock-out")


def run() -> int:
    """Wraps, then does what `muster` does."""
    death = Death(sys.argv.pop(1))
    wrap_commits(death)
    wrap_links(death)
    wrap_crls(death)
    return main.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
