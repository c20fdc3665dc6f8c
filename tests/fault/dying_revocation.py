"""As `dying_service`, with the steps of a lock-out's own transaction among those to die at."""

import sys
from typing import Any, Final

from broker.services import lock_out
from tests.fault import dying_service

KEPT: Final = tuple(f"kept-{when}" for when in ("begun", "uncommitted", "committed"))

if __name__ == "__main__":
    works: dict[str, Any] = dying_service.WORKS
    works["kept"] = (lock_out, "_keep")
    # Here the CRL that is put in force at the start is the one that counts.
    dying_service.CRL_STEPS = ()  # type: ignore[misc, assignment]
    sys.exit(dying_service.run())
