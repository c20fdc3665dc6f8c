"""Telling the service what became of an assignment, and what runs, until it says that it knows."""

import asyncio
import logging
from dataclasses import replace
from typing import Final

from broker.protocol import codec, limits
from broker.protocol.codes import Code
from broker.protocol.statements import report_statement, software_statement
from broker.protocol.topics import DeviceOrigin, Operation, device_topic
from broker.protocol.updates import ReportAccepted, ReportKind, ReportRequest, SoftwareReport
from device_client import exchange, signatures
from device_client.backoff import Backoff
from device_client.disk import on_disk
from device_client.errors import ConnectionLost, DeviceError, RequestRejected
from device_client.exchange import Question
from device_client.identity import Identity, signing_key
from device_client.online import Online
from device_client.update import steps
from device_client.update.journal import Entry, State
from device_client.update.updater import Updater

log = logging.getLogger(__name__)

_HOPELESS = frozenset(
    {
        Code.REPORT_CONFLICT,
        Code.ASSIGNMENT_UNKNOWN,
        Code.REPORT_DEVICE_MISMATCH,
        Code.FIELD_INVALID,
        Code.PAYLOAD_TOO_LARGE,
        Code.PAYLOAD_MALFORMED,
    }
)
"""The service will never take this report: it knows another one, or nothing of the assignment, or
can't read it. The next ones mustn't wait for it."""
_STATEMENTS: Final = {
    ReportKind.UPDATE: report_statement,
    ReportKind.SOFTWARE: software_statement,
}


class Reporting:
    """Empties the outbox while the device is connected, the oldest report first."""

    def __init__(self, updater: Updater, answers_s: tuple[float, ...], again: Backoff) -> None:
        self._updater = updater
        self._answers_s = answers_s
        self._again = again

    async def send(self, online: Online) -> None:
        """Until the connection ends.

        Raises:
            ConnectionLost: it has ended.
        """
        refused = ""
        while True:
            state = self._updater.state
            software = self._software(state, online.identity)
            if not state.outbox and software.report_id in (state.told, refused):
                await self._updater.until_changed(state)
                continue
            try:
                if state.outbox:
                    await self._deliver(online, state.outbox[0])
                elif not await self._tell(online, software):
                    refused = software.report_id
                self._again.reset()
            except ConnectionLost:
                raise
            except DeviceError as error:
                log.warning("a report waits: %s: %s", error.stable_code, error)
                await asyncio.sleep(self._again.next())

    async def _deliver(self, online: Online, entry: Entry) -> None:
        is_taken = await self._ask(online, entry.text, ReportKind.UPDATE)

        def step(state: State) -> State:
            is_last = entry.is_final and [each.report_id for each in state.outbox] == [
                entry.report_id
            ]
            if not is_taken or not is_last:
                return steps.acknowledged(state, entry.report_id)
            said = self._software(state, online.identity).report_id
            return steps.acknowledged(state, entry.report_id, said)

        await self._updater.change(step)

    async def _tell(self, online: Online, software: SoftwareReport) -> bool:
        """Says what runs; whether the service takes it. One of an earlier version doesn't."""
        text = codec.encode(software).decode()
        if not software.running or len(text) > limits.MAX_STATEMENT:
            return False
        if not await self._ask(online, text, ReportKind.SOFTWARE):
            return False
        await self._updater.change(lambda state: replace(state, told=software.report_id))
        return True

    async def _ask(self, online: Online, text: str, kind: ReportKind) -> bool:
        """Whether the service takes the report; if not, it never will."""
        request = await on_disk(_request, online.identity, text, kind)
        topic = device_topic(DeviceOrigin(online.identity.device_id), Operation.REPORT)
        question = Question(topic, request.request_id, request, ReportAccepted)
        try:
            await exchange.ask(online.connection, question, self._answers_s)
        except RequestRejected as error:
            if error.rejected.known_code not in _HOPELESS:
                raise
            log.warning("the service won't take a report: %s", error)
            return False
        return True

    def _software(self, state: State, identity: Identity) -> SoftwareReport:
        now = self._updater.means.clock()
        return steps.software(state, identity.device_id, identity.certificate_sha256, now)


def _request(identity: Identity, text: str, kind: ReportKind) -> ReportRequest:
    return ReportRequest(
        request_id=exchange.new_request_id(),
        report=text,
        signature=signatures.sign(signing_key(identity), _STATEMENTS[kind](text)),
        kind=kind,
    )
