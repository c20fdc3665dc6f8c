"""What must be refused, by the real service behind real brokers.

Each with its own code, one audit event, one log line and one count; and a good device that claims
meanwhile notices nothing.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiomqtt
import pytest
import pytest_asyncio

from broker.core.records import Event, EventKind
from broker.protocol import codec
from broker.protocol.codes import Code
from broker.protocol.messages import EnrollAccepted, Rejected
from broker.protocol.names import ClaimName
from broker.protocol.topics import Operation, Outcome, answer_topic
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.bad_requests import EVERYTHING_BAD, SERIAL, Bad
from tests.support.claimant import claimant, enroll_request, member
from tests.support.csrs import csr_pem, fresh_key
from tests.support.peers import peer
from tests.support.ports import free_port
from tests.support.scraping import requests_counted
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=BrokerKind, ids=str, scope="module", loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """One service for all tests of a broker: none of them may harm it."""
    plan = Plan(request.param, in_process=False, metrics_port=free_port())
    async with running_stack(tmp_path_factory.mktemp("stack"), plan) as running:
        serials = [SERIAL, "victim", *(f"good-{bad.name}" for bad in EVERYTHING_BAD)]
        await running.installation.standard(serials)
        yield running


async def refusals_of(stack: Stack, client_id: str) -> list[Event]:
    return [e for e in await stack.events_of(EventKind.CLAIM_REFUSED) if e.client_id == client_id]


async def counted(stack: Stack) -> Counter[tuple[str, str, str]]:
    assert stack.plan.metrics_port is not None
    return Counter(await requests_counted(stack.plan.metrics_port))


def logged(stack: Stack, client_id: str) -> list[str]:
    """The codes in the log lines about this client."""
    lines = stack.process.lines("request_refused")
    return [line["code"] for line in lines if f"/{client_id}/" in line["topic"]]


@pytest.mark.parametrize("bad", EVERYTHING_BAD, ids=lambda bad: bad.name)
async def test_a_bad_request(stack: Stack, bad: Bad, tmp_path: Path) -> None:
    payload, client_id = bad.payload(), f"client-{bad.name}"
    before = await counted(stack)
    async with claimant(stack, client_id) as asking, asyncio.TaskGroup() as tasks:
        good = tasks.create_task(stack.claim_device(f"good-{bad.name}", tmp_path / "good"))
        answer = await asking.ask(payload)
    assert isinstance(answer, Rejected)
    assert answer.code == (bad.wire or bad.code)
    assert answer.request_id in (bad.request_id, None)
    assert answer.message
    assert answer.remedy
    assert good.result().device_id == f"lamp-good-{bad.name}"
    (event,) = await refusals_of(stack, client_id)
    assert (event.code, event.claim_name, event.repeated) == (bad.code, "batch-7", 1)
    assert await counted(stack) - before == Counter(
        {
            ("claim", "enroll", bad.code.value): 1,
            ("claim", "enroll", "accepted"): 1,
            ("fleet", "confirm", "accepted"): 1,
        }
    )
    assert logged(stack, client_id) == [bad.code]


async def test_a_request_id_comes_back_even_when_the_rest_is_faulty(stack: Stack) -> None:
    async with claimant(stack, "with-id") as asking:
        answer = await asking.ask(b'{"request_id":"mine","serial":7}')
    assert isinstance(answer, Rejected)
    assert answer.request_id == "mine"


async def test_fields_that_nobody_knows_are_ignored(stack: Stack) -> None:
    request = {"request_id": "r", "serial": SERIAL, "csr": csr_pem(fresh_key()), "future": [1]}
    async with claimant(stack, "from-the-future") as asking:
        answer = await asking.ask(json.dumps(request).encode())
    assert isinstance(answer, EnrollAccepted)


async def test_the_same_over_and_over_leaves_one_event(stack: Stack) -> None:
    """Otherwise whoever may ask could fill the disk."""
    async with claimant(stack, "parrot") as asking:
        for _ in range(5):
            assert isinstance(await asking.ask(b"{}"), Rejected)
    assert len(await refusals_of(stack, "parrot")) == 1
    assert logged(stack, "parrot") == [Code.FIELD_INVALID]


async def test_an_unknown_operation(stack: Stack) -> None:
    """Mosquitto's access list names the operations, so there it doesn't even arrive."""
    async with claimant(stack, "inventor") as asking:
        topic = asking.topic.replace(f"/{Operation.ENROLL}", "/promote")
        await asking.peer.hear(answer_topic(topic, Outcome.REJECTED))
        await asking.peer.attempt(topic, b"{}")
        if stack.plan.brokers is BrokerKind.EMBEDDED:
            answer = await asking.answer()
            assert isinstance(answer, Rejected)
            assert answer.code == Code.OPERATION_UNKNOWN
    async with claimant(stack, "inventor") as asking:
        await asking.ask(b"{}")
    codes = [e.code for e in await refusals_of(stack, "inventor")]
    expected = [Code.OPERATION_UNKNOWN] if stack.plan.brokers is BrokerKind.EMBEDDED else []
    assert codes == [*expected, Code.FIELD_INVALID]


async def test_an_operation_of_the_other_zone(stack: Stack, tmp_path: Path) -> None:
    """A member can't enroll through the fleet broker."""
    await stack.installation.enroll(["other-zone"])
    identity = await stack.claim_device("other-zone", tmp_path / "device")
    async with member(stack, identity) as asking:
        topic = asking.topic.replace(f"/{Operation.CONFIRM}", f"/{Operation.ENROLL}")
        await asking.peer.attempt(topic, codec.encode(enroll_request("victim")))
    async with member(stack, identity) as asking:
        await asking.confirm(identity.certificate_sha256)
    assert "victim" not in {d.serial for d in await stack.devices()}


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="fields"),
        pytest.param(b'{"request_id":"r","certificate_sha256":"XY","signature":"A"}', id="sha256"),
        pytest.param(b'{"request_id":"r","certificate_sha256":"%s"}' % (b"a" * 64), id="unsigned"),
        pytest.param(b"x" * 20_000, id="large"),
    ],
)
async def test_a_bad_confirmation(stack: Stack, payload: bytes, tmp_path: Path) -> None:
    serial = f"confirm-{hashlib.sha256(payload).hexdigest()[:8]}"
    await stack.installation.enroll([serial])
    identity = await stack.claim_device(serial, tmp_path / "device")
    async with member(stack, identity) as asking:
        answer = await asking.ask(payload)
    assert isinstance(answer, Rejected)
    events = await stack.events_of(EventKind.REQUEST_REFUSED)
    (event,) = [e for e in events if e.device_id == identity.device_id]
    assert answer.code == event.code
    assert answer.code in (Code.PAYLOAD_MALFORMED, Code.FIELD_INVALID, Code.PAYLOAD_TOO_LARGE)
    assert await stack.is_active(serial)


@pytest.mark.parametrize("spoofed", ["batch-7/victim", "batch-8/victim", "batch-8/spoofer"])
async def test_a_spoofed_topic(stack: Stack, spoofed: str) -> None:
    """The broker drops it: it never reaches the service, and no answer anybody."""
    before = len(await stack.events())
    async with claimant(stack, "victim") as victim, claimant(stack, "spoofer") as spoofer:
        topic = spoofer.topic.replace("batch-7/spoofer", spoofed)
        await spoofer.peer.attempt(topic, codec.encode(enroll_request("victim")))
        async with claimant(stack, f"after-{spoofed.replace('/', '-')}") as later:
            assert isinstance(await later.ask(b"{}"), Rejected)
        with pytest.raises(TimeoutError):
            await victim.answer(within=0.2)
    assert "victim" not in {d.serial for d in await stack.devices()}
    assert len(await stack.events()) == before + 1


@pytest.mark.parametrize(
    "client_id", ["a.b", "ümlaut", "x y", "x" * 65, "victim/enroll", "a/b", "$SYS", "+", "#", "a+"]
)
async def test_an_odd_client_id(stack: Stack, client_id: str) -> None:
    """Either the broker turns it away, or the service does; nobody is granted anything."""
    before = await stack.events_of(EventKind.REQUEST_REFUSED)
    with suppress(aiomqtt.MqttError):
        async with peer(stack.ports[Zone.CLAIM], stack.claim_client(), client_id) as asking:
            topic = f"muster/v1/claim/batch-7/{client_id}/enroll"
            if "+" not in topic and "#" not in topic:  # no client lets such a topic out
                await asking.attempt(topic, codec.encode(enroll_request("victim")))
    async with claimant(stack, f"after-{client_id.encode().hex()[:50]}") as later:
        assert isinstance(await later.ask(b"{}"), Rejected)
    refused = await stack.events_of(EventKind.REQUEST_REFUSED)
    assert {e.code for e in refused[len(before) :]} <= {Code.ORIGIN_INVALID}
    assert "victim" not in {d.serial for d in await stack.devices()}


async def test_a_flood_is_slowed_and_a_neighbour_is_not(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.enroll(["flooded"])
    before = await counted(stack)
    async with claimant(stack, "flooder") as asking, asyncio.TaskGroup() as tasks:
        good = tasks.create_task(stack.claim_device("flooded", tmp_path / "good"))
        for _ in range(150):
            await asking.send(b"{}")
        answers = [await asking.answer()]
        while not _is_slowed(answers[-1]):
            answers.append(await asking.answer())
    assert good.result().device_id == "lamp-flooded"
    assert 10 <= len(answers) <= 20, "most are done with unanswered"
    assert isinstance(answers[-1], Rejected)
    assert answers[-1].retry_after_s
    events = [
        e for e in await stack.events_of(EventKind.CLAIM_REFUSED) if e.code == Code.RATE_LIMITED
    ]
    assert len(events) == 1
    assert logged(stack, "flooder").count(Code.RATE_LIMITED) == 1

    async def are_counted() -> bool:
        difference = await counted(stack) - before
        of = Counter({code: n for (_, _, code), n in difference.items() if code != "accepted"})
        return of[Code.RATE_LIMITED] >= 130 and of.total() == 150

    await eventually(are_counted)


def _is_slowed(answer: EnrollAccepted | Rejected) -> bool:
    return isinstance(answer, Rejected) and answer.code == Code.RATE_LIMITED


@pytest.mark.parametrize("brokers", BrokerKind)
async def test_a_flood_by_a_whole_batch_stays_its_own_affair(
    brokers: BrokerKind, tmp_path: Path
) -> None:
    """Whoever has a claim certificate can invent client ids, so the certificate is limited too."""
    # So slow that no machine is slower; each client alone stays within its own.
    plan = Plan(brokers, limits={"claims_per_second": 0.1, "claims_burst": 50})
    async with running_stack(tmp_path / "stack", plan) as stack:
        await stack.installation.standard(["beside-the-batch"])
        stolen = ClaimName("stolen")
        await stack.installation.add_claim_certificate(stolen)
        async with AsyncExitStack() as ending, asyncio.TaskGroup() as tasks:
            clients = [
                await ending.enter_async_context(claimant(stack, f"stolen-{number}", stolen))
                for number in range(10)
            ]
            good = tasks.create_task(stack.claim_device("beside-the-batch", tmp_path / "good"))
            for client in clients:
                for _ in range(10):
                    await client.send(b"{}")
            first = [await client.answer() for client in clients[:4] for _ in range(10)]
            last = [await client.answer() for client in clients[-4:]]
        assert good.result().device_id == "lamp-beside-the-batch"
        assert not any(_is_slowed(answer) for answer in first)
        assert all(_is_slowed(answer) for answer in last), "each is told, and once"
        slowed = [
            e
            for e in await stack.events_of(EventKind.CLAIM_REFUSED)
            if (e.code, e.claim_name) == (Code.RATE_LIMITED, stolen)
        ]
        assert len(slowed) == 1


async def test_more_than_the_broker_takes(stack: Stack, tmp_path: Path) -> None:
    """A packet beyond 16 KiB ends the sender's connection and nobody else's."""
    await stack.installation.enroll(["beside-the-giant"])
    async with claimant(stack, "giant") as asking, claimant(stack, "small") as other:
        # No acknowledgement will come, which the client would wait for.
        attempt = asyncio.create_task(asking.peer.attempt(asking.topic, b"x" * 200_000))
        await asking.peer.ended()
        attempt.cancel()
        assert isinstance(await other.ask(b"{}"), Rejected)
    await stack.claim_device("beside-the-giant", tmp_path / "good")


async def test_a_retained_request_is_nobody_s(stack: Stack) -> None:
    """Retaining a request would have it answered at every start of the service.

    Mosquitto ends the connection, the embedded broker takes it as though it weren't retained.
    """
    async with claimant(stack, "retainer") as asking:
        request = codec.encode(enroll_request("nobody"))
        async with asyncio.TaskGroup() as tasks:
            attempt = tasks.create_task(asking.peer.attempt(asking.topic, request, retain=True))
            ending = tasks.create_task(asking.peer.ended())
            await asyncio.wait({attempt, ending}, return_when=asyncio.FIRST_COMPLETED)
            attempt.cancel()
            ending.cancel()
    async with claimant(stack, "after-retained") as later:
        await later.ask(b"{}")
    await stack.stop_service()
    await stack.start_service()
    async with claimant(stack, "retainer") as asking:
        assert isinstance(await asking.ask(b"{}"), Rejected)
        with pytest.raises(TimeoutError):
            await asking.answer(within=0.2)


async def test_the_service_has_survived_it_all(stack: Stack) -> None:
    """No failure was logged: each refusal was one that the service meant."""
    assert stack.process.is_running
    levels = Counter(line.get("level") for line in stack.process.lines())
    faults = [line for line in stack.process.lines() if line.get("level") == "error"]
    assert faults == [], levels

    async def is_empty() -> bool:
        return await stack.installation.replies() == []

    await eventually(is_empty)
