"""As `dying_service`, with the transactions of a rollout among the steps to die at."""

import sys
from typing import Any, Final

from broker.adapters.registry.transaction import SqlTransaction
from broker.services import assigning, rollout_queue, update_metadata
from broker.services.reports import ReportService
from tests.fault import dying_service

_WHEN: Final = ("begun", "uncommitted", "committed")
PREPARING: Final = tuple(f"prepared-{when}" for when in _WHEN)
RELEASING: Final = tuple(f"given-{when}" for when in _WHEN)
TELLING: Final = tuple(f"{work}-{when}" for work in ("enlisted", "given") for when in _WHEN)
REPORTING: Final = tuple(f"reported-{when}" for when in _WHEN)
CALLING_BACK: Final = tuple(f"called-back-{when}" for when in _WHEN)
PUBLISHING: Final = tuple(f"metadata-{when}" for when in _WHEN)

if __name__ == "__main__":
    works: dict[str, Any] = dying_service.WORKS
    works["enlisted"] = (rollout_queue, "_enlist")
    works["given"] = (assigning, "_give")
    works["prepared"] = (SqlTransaction, "save_prepared")
    works["called-back"] = (assigning, "_call_back")
    works["reported"] = (ReportService, "_report")
    works["metadata"] = (update_metadata, "_retain")
    sys.exit(dying_service.run())
