"""As `dying_service`, with the steps of renewals and recoveries among those to die at."""

import sys
from typing import Any, Final

from broker.services.recover import RecoverService
from broker.services.renew import RenewService
from broker.services.superseded import SupersededService
from tests.fault import dying_service

_WHEN: Final = ("begun", "uncommitted", "committed")
RENEWING: Final = (
    *(f"{work}-{when}" for work in ("renew", "confirm", "superseded") for when in _WHEN),
    *(
        f"fleet-{what}-{when}"
        for what in ("publish", "acknowledge")
        for when in ("before", "after")
    ),
)
RECOVERING: Final = tuple(f"recover-{when}" for when in _WHEN)

if __name__ == "__main__":
    works: dict[str, Any] = dying_service.WORKS
    works["renew"] = (RenewService, "_renew")
    works["recover"] = (RecoverService, "_recover")
    works["superseded"] = (SupersededService, "_revoke_batch")
    sys.exit(dying_service.run())
