"""A damaged CRL of the infrastructure authority keeps nobody from being put out."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.core.lifecycle import DeviceInput
from broker.core.records import EventKind
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.acting import act, is_admitted, joined, run_muster
from tests.support.peers import peer
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually

PLANS = [
    Plan(BrokerKind.EMBEDDED),
    Plan(BrokerKind.MOSQUITTO),
    Plan(BrokerKind.MOSQUITTO, supervised=True),
]


@pytest.fixture(params=PLANS, ids=["embedded", "mosquitto", "supervised"])
async def stack(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, request.param) as running:
        await running.installation.standard([])
        yield running


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN X509 CRL-----"])
async def test_it_is_put_back_and_the_revocation_carried_out(
    stack: Stack, tmp_path: Path, content: bytes | None
) -> None:
    (lamp,) = await joined(stack, tmp_path, "A1")
    file = stack.home.infrastructure_crl
    good = file.read_bytes()
    async with peer(stack.ports[Zone.FLEET], lamp) as connection:
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        await act(stack, DeviceInput.REVOKE, lamp.name)
        await connection.ended()
    assert not await is_admitted(stack, lamp)
    await eventually(lambda: file.exists() and file.read_bytes() == good)
    details = [event.detail or "" for event in await stack.events_of(EventKind.CRL_REPAIRED)]
    assert any("infrastructure" in each for each in details)


@pytest.mark.parametrize("plan", PLANS[1:], ids=["mosquitto", "supervised"])
async def test_a_service_that_starts_puts_it_back(tmp_path: Path, plan: Plan) -> None:
    async with running_stack(tmp_path, plan) as stack:
        await stack.installation.standard([])
        (lamp,) = await joined(stack, tmp_path, "A1")
        await stack.stop_service()
        stack.home.infrastructure_crl.unlink()
        await stack.start_service()
        await act(stack, DeviceInput.REVOKE, lamp.name)
        assert not await is_admitted(stack, lamp)


async def test_where_there_is_no_copy_the_connection_ends_and_the_command_names_the_file(
    tmp_path: Path,
) -> None:
    async with running_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as stack:
        await stack.installation.standard([])
        (lamp,) = await joined(stack, tmp_path, "A1")
        await stack.stop_service()
        file = stack.home.infrastructure_crl
        good = file.read_bytes()
        file.unlink()
        (stack.home.run / "infrastructure-crl.pem").unlink()
        await stack.start_service()
        async with peer(stack.ports[Zone.FLEET], lamp) as connection:
            status, _, err = await run_muster(
                stack, "devices", "revoke", lamp.name, "--timeout", "2"
            )
            assert status == 1
            assert "In the way, crl/infrastructure.pem" in err
            await connection.ended()
        file.write_bytes(good)
        status, _, _ = await run_muster(stack, "devices", "revoke", lamp.name)
        assert status == 0
        assert not await is_admitted(stack, lamp)
