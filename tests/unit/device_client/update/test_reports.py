"""Reports are repeated, word for word, until the service has them; final ones are never dropped."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.protocol import codec
from broker.protocol.codes import EXPLANATIONS, Code
from broker.protocol.messages import Rejected
from broker.protocol.statements import report_statement, software_statement
from broker.protocol.updates import (
    Phase,
    ReportAccepted,
    ReportKind,
    ReportRequest,
    SoftwareReport,
)
from device_client import exchange, keys, signatures
from device_client.errors import DeviceError, NoAnswer, RequestRejected
from device_client.exchange import Question
from device_client.keys import KeyType
from device_client.online import Online
from device_client.update import steps
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.images import Running
from device_client.update.journal import State
from device_client.update.reports import Reporting
from tests.support.update_repository import NOW, MadeRepository, assignment
from tests.support.updating import DEVICE, UpdatingDevice, flashed, no_waiting
from tests.support.waiting import eventually

KEY = keys.generate(KeyType.P256)


class Service:
    """What `exchange.ask` reaches: answers with what it was told to, and then with yes."""

    def __init__(self, *answers: DeviceError) -> None:
        self.answers = list(answers)
        self.heard: list[ReportRequest] = []
        """About assignments."""
        self.told: list[ReportRequest] = []
        """What runs."""
        self.takes_software = True

    async def ask(self, _connection: object, question: Question[Any], _waits: object) -> Any:
        """In the place of `exchange.ask`."""
        request = cast(ReportRequest, question.request)
        await asyncio.sleep(0)
        if request.kind is ReportKind.SOFTWARE:
            self.told.append(request)
            if not self.takes_software:
                raise rejected(Code.FIELD_INVALID)
            return ReportAccepted(request_id=request.request_id, report_id="x")
        self.heard.append(request)
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


def online(tmp_path: Path, certificate: str) -> Online:
    (tmp_path / "key.pem").write_text(keys.to_pem(KEY))
    identity = SimpleNamespace(
        directory=tmp_path, device_id="meter-1", certificate_sha256=certificate
    )
    return Online(cast(Any, identity), cast(Any, None))


async def deliver(
    device: UpdatingDevice, service: Service, tmp_path: Path, certificate: str = "a" * 64
) -> None:
    """Until the outbox is empty, and there is nothing more to say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "ask", service.ask)
        reporting = Reporting(device.updater, (1.0,), no_waiting())
        sending = asyncio.create_task(reporting.send(online(tmp_path, certificate)))
        waits = asyncio.Event()
        until_changed = device.updater.until_changed

        async def idle(state: State) -> None:
            waits.set()
            await until_changed(state)

        patch.setattr(device.updater, "until_changed", idle)
        try:
            await eventually(lambda: waits.is_set() or sending.done())
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


class TestWhatRuns:
    async def test_the_factory_s_version_is_said_at_first(self, tmp_path: Path) -> None:
        device = UpdatingDevice(tmp_path / "update", MadeRepository())
        service = Service()
        await deliver(device, service, tmp_path)
        (request,) = service.told
        statement = software_statement(request.report)
        signatures.verify(KEY.public_key(), request.signature, statement)
        said = codec.decode(request.report.encode(), SoftwareReport)
        assert said.running == {"main": "1.0.0"}
        assert (said.device_id, said.security_counter) == ("meter-1", 1)

    async def test_it_is_said_once_for_each_certificate(self, tmp_path: Path) -> None:
        device = UpdatingDevice(tmp_path / "update", MadeRepository())
        service = Service()
        for certificate in ("a" * 64, "a" * 64, "b" * 64):
            await deliver(device, service, tmp_path, certificate)
            device.start()
        first, second = (codec.decode(x.report.encode(), SoftwareReport) for x in service.told)
        assert first.report_id != second.report_id

    async def test_an_update_s_final_report_says_it_too(
        self, device: UpdatingDevice, tmp_path: Path
    ) -> None:
        service = Service()
        await deliver(device, service, tmp_path)
        assert len(service.heard) == 2
        assert service.told == []

    async def test_what_the_service_wouldn_t_hear_of_an_update_is_said_without_it(
        self, device: UpdatingDevice, tmp_path: Path
    ) -> None:
        """Its registry was restored, and knows nothing of the assignment."""
        service = Service(rejected(Code.ASSIGNMENT_UNKNOWN), rejected(Code.ASSIGNMENT_UNKNOWN))
        await deliver(device, service, tmp_path)
        (request,) = service.told
        assert codec.decode(request.report.encode(), SoftwareReport).running == {"image": "2.0.0"}

    async def test_a_service_that_can_t_read_it_isn_t_asked_again_on_this_connection(
        self, tmp_path: Path
    ) -> None:
        device = UpdatingDevice(tmp_path / "update", MadeRepository())
        service = Service()
        service.takes_software = False
        await deliver(device, service, tmp_path)
        assert len(service.told) == 1
        await deliver(device, service, tmp_path)
        assert len(service.told) == 2

    def test_a_component_that_was_never_a_path_spoils_no_report(self) -> None:
        running = {"-x": Running(version="1.0"), "main": Running(version="2.0")}
        said = steps.software(State(running=running), DEVICE, "a" * 64, NOW)
        assert codec.decode(codec.encode(said), SoftwareReport).running == {"main": "2.0"}


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
