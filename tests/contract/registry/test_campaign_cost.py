"""A step of a campaign costs the same in a fleet of a thousand and of a million."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.migrate import migrate
from broker.core.campaign import CampaignInput, Selection, SelectionKind
from broker.core.lifecycle import DeviceState
from broker.ports.registry import Registry, WriteTransaction
from broker.services import campaigns
from broker.services.campaign_runner import CampaignRunner
from broker.services.campaigns import Wanted
from tests.support.operating import SetClock
from tests.support.registries import add_batch, certificate_number, device_number
from tests.support.statements import Statements

ONE_ROW_EACH = {"SCAN campaign"}
"""Tables that hold a row for each campaign, and not for each device."""
SELECTIONS = [
    Selection(SelectionKind.ALL),
    Selection(SelectionKind.GROUP, "lamps"),
    Selection(SelectionKind.CLAIM, "batch-7"),
]


@pytest.fixture
def statements() -> Iterator[Statements]:
    statements = Statements()
    sa.event.listen(sa.Engine, "connect", statements.listen)
    yield statements
    sa.event.remove(sa.Engine, "connect", statements.listen)


async def add_fleet(registry: Registry) -> None:
    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        for number in range(1, 4):
            tx.save_device(device_number(number, state=DeviceState.ACTIVE))
            tx.save_certificate(certificate_number(number))

    await registry.write(work)


async def put_one_out(registry: Registry) -> None:
    device = replace(device_number(1), state=DeviceState.REVOKED)
    await registry.write(lambda tx: tx.save_device(device))


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
async def test_no_step_reads_a_whole_table(
    tmp_path: Path, statements: Statements, selection: Selection
) -> None:
    path, clock = tmp_path / "registry.db", SetClock()
    migrate(f"sqlite:///{path}")
    async with SqlRegistry(f"sqlite:///{path}") as registry:
        await add_fleet(registry)
        campaign = await campaigns.start(registry, clock, Wanted(selection, per_minute=6000))
        statements.seen.clear()
        runner = CampaignRunner(registry, clock)
        for _ in range(3):  # lists, orders, and looks
            await runner.advance()
            clock.at += timedelta(seconds=1)
        assert (await campaigns.find(registry, campaign.id)).ordered == 3
        await put_one_out(registry)
        await runner.advance()
        assert (await campaigns.find(registry, campaign.id)).dropped == 1
        await campaigns.change(registry, clock, campaign.id, CampaignInput.CANCEL)
        await runner.advance()
        assert (await campaigns.find(registry, campaign.id)).withdrawn == 2
    assert len(statements.seen) > 20
    scans = {" ".join(plan.split()[:2]) for plan in statements.scans(path)}
    assert scans <= ONE_ROW_EACH
