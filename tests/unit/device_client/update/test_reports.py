"""Reports are repeated, word for word, until the service has them; final ones are never dropped."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.protocol.codes import EXPLANATIONS, Code
from broker.protocol.messages import Rejected
from broker.protocol.statements import report_statement
from broker.protocol.updates import Phase, ReportAccepted, ReportRequest
from device_client import exchange, keys, signatures
from device_client.errors import DeviceError, NoAnswer, RequestRejected
from device_client.exchange import Question
from device_client.keys import KeyType
from device_client.online import Online
from device_client.update import steps
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.reports import Reporting
from tests.support.update_repository import NOW, MadeRepository, assignment
from tests.support.updating import UpdatingDevice, flashed, no_waiting
from tests.support.waiting import eventually

KEY = keys.generate(KeyType.P256)


class Service:
    """What `exchange.ask` reaches: answers with what it was told to, and then with yes."""

    def __init__(self, *answers: DeviceError) -> None:
        self.answers = list(answers)
        self.heard: list[ReportRequest] = []

    async def ask(self, _connection: object, question: Question[Any], _waits: object) -> Any:
        """In the place of `exchange.ask`."""
        request = cast(ReportRequest, question.request)
        self.heard.append(request)
        await asyncio.sleep(0)
        if self.answers:
            raise self.answers.pop(0)
        return ReportAccepted(request_id=request.request_id, report_id="x")


@pytest.fixture
async def device(tmp_path: Path) -> UpdatingDevice:
    flashed(tmp_path / "update")
    made = MadeRepository()
    device = UpdatingDevice(tmp_path / "update", made)
    made.add("image", b"image")
    made.publish()
    await device.follow(made.assign(made.add("image", b"image")))
    await device.follow(made.assign(sequence=2))
    assert [each[1] for each in device.finals()] == [Phase.INSTALLED, Phase.CANCELLED]
    return device


def online(tmp_path: Path) -> Online:
    (tmp_path / "key.pem").write_text(keys.to_pem(KEY))
    identity = SimpleNamespace(directory=tmp_path, device_id="meter-1")
    return Online(cast(Any, identity), cast(Any, None))


async def deliver(device: UpdatingDevice, service: Service, tmp_path: Path) -> None:
    """Until the outbox is empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "ask", service.ask)
        reporting = Reporting(device.updater, (1.0,), no_waiting())
        sending = asyncio.create_task(reporting.send(online(tmp_path)))
        try:
            await eventually(lambda: not device.updater.state.outbox or sending.done())
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending


def rejected(code: Code) -> RequestRejected:
    told = EXPLANATIONS[code]
    return RequestRejected(
        Rejected(request_id="x", code=code, message=told.message, remedy=told.remedy)
    )


async def test_in_their_order_signed_and_once(device: UpdatingDevice, tmp_path: Path) -> None:
    texts = [entry.text for entry in device.updater.state.outbox]
    service = Service()
    await deliver(device, service, tmp_path)
    assert [request.report for request in service.heard] == texts
    for request in service.heard:
        signatures.verify(KEY.public_key(), request.signature, report_statement(request.report))
    device.start()
    assert not device.updater.state.outbox, "acknowledged for good"


async def test_repeated_word_for_word(device: UpdatingDevice, tmp_path: Path) -> None:
    again = Service(NoAnswer("silence"), rejected(Code.REPORT_SIGNATURE_INVALID))
    await deliver(device, again, tmp_path)
    first, second, third, _ = again.heard
    assert first.report == second.report == third.report


@pytest.mark.parametrize(
    "code", [Code.REPORT_CONFLICT, Code.ASSIGNMENT_UNKNOWN, Code.FIELD_INVALID]
)
async def test_what_will_never_be_taken_is_not_in_the_way(
    device: UpdatingDevice, tmp_path: Path, code: Code
) -> None:
    service = Service(rejected(code))
    await deliver(device, service, tmp_path)
    assert len(service.heard) == 2


async def test_progress_gives_way_and_final_reports_stay(tmp_path: Path) -> None:
    device = UpdatingDevice(tmp_path / "update", MadeRepository())
    state = device.updater.state
    for sequence in range(1, 40):
        state = steps.taken_up(state, assignment(sequence=sequence), NOW)
        found = assignment(
            device.made.add("x", b"x"), sequence=sequence + 100, rollout=f"r{sequence}"
        )
        state = steps.taken_up(state, found, NOW)
        for _ in range(3):
            state = steps.progressed(state, Phase.DOWNLOADING, NOW + timedelta(1))
        refusal = UpdateRefused(UpdateCode.MODEL_WRONG, "no")
        state = steps.given_up(state, refusal, NOW)
    assert all(entry.is_final for entry in state.outbox)
    assert len(state.outbox) == 2 * 39
    assert len({entry.report_id for entry in state.outbox}) == len(state.outbox)
