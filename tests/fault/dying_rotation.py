"""As `dying_service`, with the steps of renewals and recoveries among those to die at."""

import sys
from typing import Any, Final

from broker.services.recover import RecoverService
from broker.services.renew import RenewService
from broker.services.superseded import SupersededService
from tests.fault import dying_service

_WHEN: Final = ("begun", "uncommitted", "committed")
_TALK: Final = ("publish-before", "publish-after", "acknowledge-before", "acknowledge-after")
RENEWAL: Final = (
    *(f"renew-{when}:1" for when in _WHEN),
    *(f"confirm-{when}:{nth}" for when in _WHEN for nth in (1, 2)),
    *(f"fleet-{what}:{nth}" for what in _TALK for nth in (1, 2, 3)),
)
"""The device proves its certificate, renews, and proves the new one."""
RECOVERY: Final = (
    *(f"recover-{when}:1" for when in _WHEN),
    *(f"confirm-{when}:1" for when in _WHEN),
    *(f"{zone}-{what}:1" for zone in ("claim", "fleet") for what in _TALK),
)
SWEEP: Final = tuple(f"superseded-{when}:1" for when in _WHEN)
"""The old certificate's grace is over."""

if __name__ == "__main__":
    works: dict[str, Any] = dying_service.WORKS
    works["renew"] = (RenewService, "_renew")
    works["recover"] = (RecoverService, "_recover")
    works["superseded"] = (SupersededService, "_revoke_batch")
    sys.exit(dying_service.run())
