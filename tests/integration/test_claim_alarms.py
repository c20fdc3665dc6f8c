"""The running service tells of a claim certificate that may have leaked."""

from pathlib import Path

from broker.core.records import EventKind
from tests.support.acting import joined
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually


async def test_one_that_is_nearly_used_up_is_an_event_once(tmp_path: Path) -> None:
    async with running_stack(tmp_path, Plan()) as stack:
        await stack.installation.add_claim_certificate(max_claims=5)
        await stack.installation.save_group()
        await joined(stack, tmp_path, "A1", "A2", "A3", "A4")
        await eventually(lambda: is_told(stack))
        (event,) = await stack.events_of(EventKind.CLAIM_CERTIFICATE_ALARM)
        assert (event.code, event.detail) == ("claims_nearly_used", "4 of 5 claims used")


async def is_told(stack: Stack) -> bool:
    return bool(await stack.events_of(EventKind.CLAIM_CERTIFICATE_ALARM))
