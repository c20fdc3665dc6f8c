"""`muster …` that kills itself at a step of an authority's replacement:
python -m tests.fault.dying_rollover STEP:NTH ARGUMENT …

For the service, a step's name begins with whom the broker is to trust at that moment, so that what
is done at every start doesn't count; for the operator's command it doesn't.
"""

import os
import sys
from pathlib import Path
from typing import Any, Final

from broker.adapters.brokers.crl_file import WatchedCrlFile
from broker.adapters.brokers.embedded import EmbeddedBroker
from broker.adapters.brokers.mosquitto import MosquittoControl
from broker.adapters.ca import successor
from broker.adapters.ca.fleet_authorities import FleetAuthorities
from broker.core.ca_rollover import InForce
from broker.entry.cli import main
from broker.services import ca_rollover
from broker.services.ca_rollover_steps import CaRolloverSteps
from tests.fault import dying_service
from tests.fault.dying_service import Death

PUTTING: Final = (
    "adopt-before",
    "anchors-drafted",
    "adopt-after",
    "crl-swap-before",
    "crl-drafted",
    "crl-swap-after",
    "crl-apply-before",
    "crl-apply-after",
)
COMMIT: Final = ("begun", "uncommitted", "committed")
SERVICE_STEPS: Final = (
    *(f"introducing-{step}" for step in PUTTING),
    *(f"switching-{step}" for step in PUTTING if step != "anchors-drafted"),
    *(f"stepped-{when}:{nth}" for nth in (1, 2) for when in COMMIT),
)
LEAVING_STEPS: Final = (
    *(f"leaving-{step}" for step in PUTTING),
    *(f"stepped-{when}" for when in COMMIT),
)
MAKING: Final = tuple(
    f"{what}-{when}" for what in ("key", "certificate") for when in ("before", "after")
)
COMMAND_STEPS: Final = (*MAKING, *(f"acted-{when}" for when in COMMIT))


class Staged(Death):
    """Counts the steps of the service by whom the broker is to trust."""

    stage = ""

    def step(self, name: str) -> None:
        """This step has been reached."""
        super().step(f"{self.stage}-{name}" if name in PUTTING else name)


def _stage(wanted: InForce) -> str:
    if len(wanted.trusted) == 1:
        return "leaving"
    return "switching" if wanted.issuing == max(wanted.trusted) else "introducing"


def wrap_adopting(death: Staged) -> None:
    """Steps around keys and anchors."""
    real = FleetAuthorities._adopt

    def adopted(self: FleetAuthorities, wanted: InForce) -> None:
        death.stage = _stage(wanted)
        death.step("adopt-before")
        real(self, wanted)
        death.step("adopt-after")

    FleetAuthorities._adopt = adopted  # type: ignore[method-assign]
    for name, step in (("fleet-clients.pem", "anchors-drafted"), ("fleet.pem", "crl-drafted")):
        _before_renaming_to(death, name, step)
    dying_service.before_and_after(death, WatchedCrlFile, "swap", "crl-swap")
    for control in (MosquittoControl, EmbeddedBroker):
        dying_service.before_and_after(death, control, "apply_crl", "crl-apply")


def _before_renaming_to(death: Death, name: str, step: str) -> None:
    replace = os.replace

    def replaced(source: Any, target: Any, **options: Any) -> None:
        if Path(target).name == name:
            death.step(step)
        replace(source, target, **options)

    os.replace = replaced  # type: ignore[assignment]


def wrap_making(death: Death) -> None:
    """Steps around the files of the new authority."""
    for method, name in (("write_key", "key"), ("write_public", "certificate")):
        real = getattr(successor, method)

        def written(*args: Any, _real: Any = real, _name: str = name) -> None:
            death.step(f"{_name}-before")
            _real(*args)
            death.step(f"{_name}-after")

        setattr(successor, method, written)


def run() -> int:
    """Wraps, then does what `muster` does."""
    named = sys.argv.pop(1)
    death = Staged(named if ":" in named else f"{named}:1")
    works: dict[str, Any] = dying_service.WORKS
    works["stepped"] = (CaRolloverSteps, "_step")
    works["acted"] = (ca_rollover, "_save")
    # Here every CRL counts that the named stage puts in force.
    dying_service.CRL_STEPS = ()  # type: ignore[misc, assignment]
    dying_service.wrap_commits(death)
    wrap_adopting(death)
    wrap_making(death)
    return main.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
