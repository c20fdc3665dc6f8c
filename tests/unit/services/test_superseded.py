"""How late a superseded certificate is revoked, whatever the pace at which they come."""

from datetime import datetime, timedelta

import pytest

from broker.core.lifecycle import CertificateState
from broker.ports.registry import ReadTransaction, WriteTransaction
from tests.support.desk import Desk
from tests.support.registries import add_batch, certificate_number, device_number


@pytest.mark.parametrize("a_minute", [6_000, 30_000])
async def test_no_grace_is_overrun_by_more_than_about_a_minute_at_any_pace(
    desk: Desk, a_minute: int
) -> None:
    """As if as many devices had proven their new certificates, each minute, an hour before."""
    await desk.registry.write(add_batch)
    some, begin = 60, desk.clock.at
    number = 0

    def prove(tx: WriteTransaction) -> None:
        nonlocal number
        for _ in range(a_minute // 60):
            number += 1
            tx.save_device(device_number(number))
            tx.save_certificate(
                certificate_number(
                    number,
                    state=CertificateState.SUPERSEDED,
                    grace_until=desk.clock.at,
                    not_after=begin + timedelta(days=90),
                )
            )

    def oldest(tx: ReadTransaction) -> datetime:
        found = tx.superseded_before(desk.clock.at, 1)
        return found[0].grace_until or begin if found else desk.clock.at

    late = timedelta()
    for second in range(some + 90):
        if second < some:
            await desk.registry.write(prove)
        desk.clock.at += timedelta(seconds=1)
        late = max(late, desk.clock.at - await desk.registry.read(oldest))
        await desk.superseding.revoke_superseded()
    assert await desk.registry.read(oldest) == desk.clock.at
    assert late <= timedelta(seconds=75)
