"""Whatever goes wrong with a request, one answer comes of it, and none that says too much."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.core.rate_limit import TokenBuckets
from broker.entry.mqtt import router as module
from broker.entry.mqtt.router import Router, Services
from broker.ports.brokers import PublishError
from broker.ports.registry import RegistryError
from broker.protocol import codec
from broker.protocol.messages import EnrollRequest
from broker.protocol.updates import BlockRequest
from broker.protocol.zones import Zone
from broker.services.admission import Admission
from broker.services.blocks import BlockService
from broker.services.outbox import Outbox
from broker.services.refusals import RefusalLog
from tests.support.csrs import csr_pem, fresh_key
from tests.support.desk import Desk, open_desk
from tests.support.images import PublishedImages, assignment
from tests.support.operating import NOW
from tests.support.records import a_claim_certificate, a_group
from tests.support.waiting import eventually

TOPIC = "muster/v1/claim/batch-7/client-1/enroll"
SECRET = "postgresql://user:password@host"


class Counted:
    """Telemetry that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[Zone, str, str]] = []

    def count(self, zone: Zone, operation: str, outcome: str) -> None:
        self.seen.append((zone, operation, str(outcome)))


class Wired:
    """A router on a real desk, with a broker that can be away."""

    def __init__(self, desk: Desk, images: PublishedImages, client_burst: int = 100) -> None:
        self.desk = desk
        self.images = images
        self.telemetry = Counted()
        self.is_away = False
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.refusals = RefusalLog(desk.registry, desk.clock)
        self.services = Services(
            desk.enrolling,
            desk.recovering,
            desk.confirming,
            desk.renewing,
            Admission(desk.clock, TokenBuckets(100.0, 100), TokenBuckets(0.1, client_burst)),
            self.refusals,
            Outbox(desk.registry, self),
            BlockService(desk.registry, images, desk.clock, TokenBuckets(1.0, 2)),
            desk.reporting,
        )
        self.router = Router(self.services, self, self.telemetry)

    async def publish(self, zone: Zone, topic: str, payload: bytes) -> None:
        if self.is_away:
            raise PublishError("the broker is away")
        self.published.append((topic, json.loads(payload)))

    async def send(self, payload: bytes | None = None, topic: str = TOPIC) -> None:
        await self.router.handle(Zone.CLAIM, topic, request() if payload is None else payload)

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, _, outcome in self.telemetry.seen]


def request(serial: str = "A1") -> bytes:
    csr = csr_pem(fresh_key())
    return codec.encode(EnrollRequest(request_id="r1", serial=serial, csr=csr))


def fails(error: Exception) -> Callable[..., Awaitable[Any]]:
    """A use case, or the record of a refusal, that fails with this."""

    async def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.fixture
async def wired(tmp_path: Path) -> AsyncIterator[Wired]:
    async with open_desk(tmp_path) as desk:
        await desk.open_group(a_group(), a_claim_certificate(not_before=NOW), "A1", "A2")
        yield Wired(desk, PublishedImages(tmp_path))


async def test_an_accepted_request_is_answered_and_counted(wired: Wired) -> None:
    await wired.send()
    ((topic, answer),) = wired.published
    assert topic == f"{TOPIC}/accepted"
    assert answer["device_id"] == "lamp-A1"
    assert wired.telemetry.seen == [(Zone.CLAIM, "enroll", "accepted")]


async def test_an_answer_that_the_broker_doesn_t_take_waits_and_is_no_refusal(wired: Wired) -> None:
    wired.is_away = True
    await wired.send()
    assert len(await wired.desk.replies()) == 1
    wired.is_away = False
    assert await wired.services.outbox.resend(Zone.CLAIM) == 1
    ((topic, _),) = wired.published
    assert topic == f"{TOPIC}/accepted"


async def test_a_refusal_that_the_broker_doesn_t_take_is_recorded_all_the_same(
    wired: Wired,
) -> None:
    wired.is_away = True
    await wired.send(request("Z9"))
    assert wired.published == []
    assert [event.code for event in await wired.desk.events()] == ["serial_unknown"]


@pytest.mark.parametrize(
    ("error", "code", "retry_after_s"),
    [
        (RegistryError("registry_busy", SECRET), "busy", 5),
        (RegistryError("registry_unavailable", SECRET), "internal", 30),
        (RuntimeError(SECRET), "internal", 30),
        (OSError(SECRET), "internal", 30),
        (TimeoutError(), "internal", 30),
    ],
)
async def test_our_own_failures_are_answered_without_their_cause(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, retry_after_s: int
) -> None:
    monkeypatch.setattr(wired.services.enroll, "enroll", fails(error))
    await wired.send()
    ((topic, answer),) = wired.published
    assert topic == f"{TOPIC}/rejected"
    assert (answer["code"], answer["retry_after_s"]) == (code, retry_after_s)
    assert answer["request_id"] == "r1"
    assert "password" not in json.dumps(answer)
    assert wired.outcomes == [code]


async def test_a_request_that_takes_for_ever_is_given_up(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "_HANDLING_TIMEOUT_S", 0.01)
    monkeypatch.setattr(wired.services.enroll, "enroll", never)
    await wired.send()
    assert wired.outcomes == ["internal"]


async def test_cancellation_is_passed_on_and_answers_nothing(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wired.services.enroll, "enroll", fails(asyncio.CancelledError()))  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await wired.send()
    assert wired.published == []


async def test_a_refusal_that_can_t_be_recorded_is_answered_all_the_same(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wired.refusals, "record", fails(RegistryError("registry_busy", SECRET)))
    await wired.send(request("Z9"))
    ((_, answer),) = wired.published
    assert answer["code"] == "serial_refused"


async def test_what_is_too_much_is_refused_before_it_is_read(wired: Wired) -> None:
    limited = Wired(wired.desk, wired.images, client_burst=1)
    await limited.send(b"\xff")
    await limited.send(b"\xff")
    assert limited.outcomes == ["payload_malformed", "rate_limited"]
    assert limited.published[1][1]["retry_after_s"] == 10


async def test_who_was_told_that_it_is_too_much_is_not_told_again_at_once(wired: Wired) -> None:
    limited = Wired(wired.desk, wired.images, client_burst=1)
    for _ in range(100):
        await limited.send(b"\xff")
    assert [answer["code"] for _, answer in limited.published] == [
        "payload_malformed",
        "rate_limited",
    ]
    assert limited.outcomes == ["payload_malformed"] + ["rate_limited"] * 99
    codes = [event.code for event in await wired.desk.events()]
    assert codes == ["payload_malformed", "rate_limited"]


async def test_those_that_are_put_off_take_few_of_the_places(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the broker is slow to take answers, hundreds of clients ask too often."""
    limited = Wired(wired.desk, wired.images, client_burst=1)
    waiting = 0

    async def wait_for_the_broker(*_: object, **__: object) -> None:
        nonlocal waiting
        waiting += 1
        await asyncio.Event().wait()

    topics = [f"muster/v1/claim/batch-7/client-{number}/enroll" for number in range(100)]
    for topic in topics:
        await limited.send(b"\xff", topic)
    monkeypatch.setattr(limited, "publish", wait_for_the_broker)
    async with asyncio.TaskGroup() as tasks:
        sending = [tasks.create_task(limited.send(b"\xff", topic)) for topic in topics]
        await eventually(lambda: limited.outcomes.count("rate_limited") == 100)
        await eventually(lambda: sum(each.done() for each in sending) == 100 - waiting)
        assert waiting == 32
        for each in sending:
            each.cancel()


async def test_answers_that_the_broker_doesn_t_take_leave_one_line(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WINDOW_S", 0.05)
    limited = Wired(wired.desk, wired.images)
    limited.is_away = True
    with capture_logs() as lines:
        for _ in range(50):
            await limited.send(b"")

        async def is_counted() -> bool:
            await limited.send(b"")
            return any("repeated" in line for line in lines)

        await eventually(is_counted)
    told = [line for line in lines if line["event"] == "rejection_not_published"]
    windows = [line for line in told if "topic" in line]
    assert len(told) == 2 * len(windows) - 1, "one line for the first, one for how many more"
    repeated = sum(line.get("repeated", 0) for line in told)
    assert repeated >= 1


async def test_a_flood_of_refusals_leaves_few_events(wired: Wired) -> None:
    for _ in range(50):
        await wired.send(b"")
    assert len(wired.published) == 50
    assert len(await wired.desk.events()) == 1
    assert wired.outcomes == ["payload_malformed"] * 50


async def test_the_event_has_the_serial_number_that_was_asked_for(wired: Wired) -> None:
    await wired.send(request("Z9"))
    (event,) = await wired.desk.events()
    assert (event.serial_number, event.client_id) == ("Z9", "client-1")


@pytest.mark.parametrize("topic", ["", "x" * 70_000, "muster/v1/claim/+/#/enroll"])
async def test_a_topic_that_isn_t_well_formed_is_recorded_and_not_answered(
    wired: Wired, topic: str
) -> None:
    await wired.send(topic=topic)
    assert wired.published == []
    assert [event.code for event in await wired.desk.events()] == ["origin_invalid"]
    assert wired.telemetry.seen == [(Zone.CLAIM, "unknown", "origin_invalid")]


BLOCK = "muster/v1/device/lamp-A1/block"


def block_request(request_id: str = "b1") -> bytes:
    sha256 = hashlib.sha256(b"image").hexdigest()
    return codec.encode(
        BlockRequest(request_id=request_id, path="a.bin", sha256=sha256, offset=1, length=3)
    )


async def test_a_block_is_published_and_not_written_down(wired: Wired) -> None:
    target = wired.images.add("a.bin", b"image")
    await wired.desk.write(("retain", assignment("lamp-A1", target)))
    await wired.router.handle(Zone.FLEET, BLOCK, block_request())
    ((topic, answer),) = wired.published
    assert topic == f"{BLOCK}/accepted"
    assert answer == {"request_id": "b1", "offset": 1, "data": "bWFn"}
    assert await wired.desk.replies() == []
    wired.is_away = True
    await wired.router.handle(Zone.FLEET, BLOCK, block_request())
    assert await wired.desk.replies() == []


async def test_blocks_have_a_bucket_of_their_own(wired: Wired) -> None:
    for _ in range(3):
        await wired.router.handle(Zone.FLEET, BLOCK, block_request())
    assert wired.outcomes == ["image_not_assigned", "image_not_assigned", "rate_limited"]
    await wired.router.handle(Zone.FLEET, "muster/v1/device/lamp-A1/confirm", b"")
    assert wired.outcomes[-1] == "payload_malformed"


async def test_a_report_reaches_its_service_and_no_other_zone(wired: Wired) -> None:
    await wired.router.handle(Zone.FLEET, "muster/v1/device/lamp-A1/report", b"{}")
    await wired.router.handle(Zone.CLAIM, "muster/v1/device/lamp-A1/report", b"{}")
    assert wired.outcomes == ["field_invalid", "operation_unknown"]
