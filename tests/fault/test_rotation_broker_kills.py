"""Kill -9 of Mosquitto at every step of a rotation that was ordered.

It forgets the order with everything else. The device follows all the same, and once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from broker.core.campaign import CampaignId, CampaignState, Selection, SelectionKind
from broker.entry.mqtt.link import BrokerLink
from broker.entry.mqtt.publishing import Messages
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, DeviceOrigin, Operation, desired_topic, device_topic
from broker.protocol.zones import Zone
from broker.services import superseded
from broker.settings import BrokerKind
from device_client.transport import Connection
from device_client.watching import Watch
from tests.support.campaigning import campaign, start_campaign
from tests.support.device_agents import device
from tests.support.mosquitto import RunningMosquitto
from tests.support.rotating import assert_ended, assert_settled, kept_client, key_of, member
from tests.support.stack import STUBBORN, Plan, Stack, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS: Final = (
    "order-before",
    "order-published",
    "order-read",
    "request-before",
    "request-sent",
    "answer-before",
    "answer-published",
    "answer-read",
    "proof-before",
    "proof-sent",
    "proven-before",
    "proven-published",
    "proven-read",
)
GRACE: Final = timedelta(seconds=2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One installation for all steps; an old certificate ends soon after its grace."""
    plan = Plan(BrokerKind.MOSQUITTO, limits={"client_claims_burst": 1000})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(superseded, "_REST_S", 1.0)
        async with running_stack(tmp_path_factory.mktemp("stack"), plan) as running:
            await running.installation.standard([])
            yield running


class Killer:
    """Kills the fleet's broker the first time that its step is reached, and starts it again."""

    def __init__(self, broker: RunningMosquitto, device_id: DeviceId, step: str) -> None:
        self.has_killed = False
        self._restart: asyncio.Task[None] | None = None
        self._broker = broker
        self._step = step
        origin = DeviceOrigin(device_id)
        renew, confirm = (
            device_topic(origin, each) for each in (Operation.RENEW, Operation.CONFIRM)
        )
        self._said = {renew: "request", confirm: "proof"}
        self._heard = {
            desired_topic(origin.device_id, Desired.ROTATION): "order",
            f"{renew}/accepted": "answer",
            f"{confirm}/accepted": "proven",
        }
        self._has_renewed = False

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Wraps what the device and the service do at each step."""
        self._wrap_publish(patch, Connection, self._said, "sent")
        self._wrap_publish(patch, BrokerLink, self._heard, "published")
        retain, next_ = BrokerLink.retain, Watch.next

        async def retained(this: BrokerLink, messages: Messages) -> None:
            what = next((self._heard[topic] for topic, _ in messages if topic in self._heard), None)
            await self._at(what, "before")
            await retain(this, messages)
            await self._at(what, "published")

        async def read(this: Watch) -> Any:
            message = await next_(this)
            await self._at(self._heard.get(message.topic), "read")
            return message

        patch.setattr(BrokerLink, "retain", retained)
        patch.setattr(Watch, "next", read)

    def _wrap_publish(
        self, patch: pytest.MonkeyPatch, owner: Any, topics: dict[str, str], done: str
    ) -> None:
        real: Callable[..., Awaitable[None]] = owner.publish

        async def published(this: Any, topic: str, payload: bytes, **options: Any) -> None:
            await self._at(topics.get(topic), "before")
            await real(this, topic, payload, **options)
            await self._at(topics.get(topic), done)

        patch.setattr(owner, "publish", published)

    async def _at(self, what: str | None, when: str) -> None:
        self._has_renewed = self._has_renewed or what == "answer"
        is_first_proof = what in ("proof", "proven") and not self._has_renewed
        if f"{what}-{when}" == self._step and not self.has_killed and not is_first_proof:
            self.has_killed = True
            self._restart = asyncio.create_task(self._broker.restart())
            # Who waits here may be called off by the very kill.
            await asyncio.shield(self._restart)


@pytest.mark.parametrize("step", STEPS)
async def test_kill_at(
    stack: Stack, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    serial = await member(stack, state, grace=GRACE)
    old_key, old = key_of(state), kept_client(stack, state, tmp_path / "old")
    device_id = (await stack.device(serial)).id
    killer = Killer(stack.brokers[Zone.FLEET], device_id, step)
    killer.watch(monkeypatch)
    number = await start_campaign(stack, Selection(SelectionKind.DEVICES, ids=(device_id,)))
    with device(state, stack.bundle(), serial, timing=STUBBORN) as (agent, _):
        running = asyncio.create_task(agent.run())
        try:
            await eventually(lambda: is_done(stack, number))
            await eventually(lambda: key_of(state) != old_key)
        finally:
            running.cancel()
            await asyncio.wait([running])
    assert killer.has_killed
    assert (await campaign(stack, number)).done == 1
    assert len(await stack.certificates_of(serial)) == 2
    await assert_settled(stack, serial, state)
    await assert_ended(stack, old, old_key)


async def is_done(stack: Stack, number: CampaignId) -> bool:
    return (await campaign(stack, number)).state is CampaignState.DONE
