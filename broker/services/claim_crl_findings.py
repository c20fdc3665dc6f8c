"""What `muster doctor` finds when the claim broker's CRL lacks somebody who was revoked."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from broker.core.findings import Finding, Level
from broker.ports.clock import Clock
from broker.ports.registry import Registry
from broker.protocol.names import CertificateSerial

_NAMED: Final = 5

Missing = Callable[[Sequence[CertificateSerial]], Collection[CertificateSerial]]
"""Which of these certificates the file of the CRL doesn't list. It blocks."""


async def examine_claim_crl(
    registry: Registry, clock: Clock, missing: Missing, file: str
) -> list[Finding]:
    """The revoked claim certificates that the claim broker lets connect all the same.

    Args:
        file: how the file is called where doctor's reader looks for it.

    Raises:
        RegistryError: the registry failed.
    """
    now = clock.now()
    claims = await registry.read(lambda view: view.claim_certificates())
    revoked = {c.serial: c.name for c in claims if c.revoked_at is not None and now < c.not_after}
    names = sorted(revoked[serial] for serial in await asyncio.to_thread(missing, list(revoked)))
    if not names:
        return []
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" * (len(names) > _NAMED))
    message = f"It lacks {shown}: revoked, but the claim broker still lets whoever has the key in."
    remedy = f"Run 'muster claim-cert revoke {names[0]}' again where the claim authority's key "
    remedy += "(ca/claim.key, and its passphrase) is: it signs the CRL with all of them."
    return [Finding(Level.ERROR, "claim_crl", file, message, remedy)]
