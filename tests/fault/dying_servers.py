"""`muster up` that kills itself while it takes up another infrastructure authority:
python -m tests.fault.dying_servers STEP:NTH … up
"""

import sys
from typing import Any, Final

from broker.adapters.brokers.embedded import EmbeddedBroker
from broker.adapters.brokers.mosquitto import MosquittoControl
from broker.entry.cli import main
from broker.entry.mqtt.link import BrokerLink
from broker.entry.mqtt.publishing import Messages
from broker.protocol.topics import TRUST_BUNDLE
from broker.services.trust_bundles import TrustBundles
from tests.fault import dying_service
from tests.fault.dying_service import Death

READING: Final = ("apply-before:1", "apply-after:1", "apply-before:2", "apply-after:2")
"""The brokers read their files, one after the other; at every start anew."""
TELLING: Final = (
    "bundle-begun",
    "bundle-uncommitted",
    "bundle-committed",
    "told-before",
    "told-after",
)
"""A new trust bundle is taken up, and retained by the fleet's broker."""


def wrap_telling(death: Death) -> None:
    """Steps around the message that all devices are told by."""
    retain = BrokerLink.retain

    async def retained(self: BrokerLink, messages: Messages) -> None:
        if not any(topic == TRUST_BUNDLE for topic, _ in messages):
            return await retain(self, messages)
        death.step("told-before")
        await retain(self, messages)
        return death.step("told-after")

    BrokerLink.retain = retained  # type: ignore[method-assign]


def run() -> int:
    """Wraps, then does what `muster` does."""
    named = sys.argv.pop(1)
    death = Death(named if ":" in named else f"{named}:1")
    works: dict[str, Any] = dying_service.WORKS
    works.clear()
    works["bundle"] = (TrustBundles, "_publish")
    dying_service.wrap_commits(death)
    wrap_telling(death)
    for control in (MosquittoControl, EmbeddedBroker):
        dying_service.before_and_after(death, control, "apply_crl", "apply")
    return main.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
