"""Telling the service what became of an assignment, until it says that it knows."""

import asyncio
import logging

from broker.protocol.codes import Code
from broker.protocol.statements import report_statement
from broker.protocol.topics import DeviceOrigin, Operation, device_topic
from broker.protocol.updates import ReportAccepted, ReportRequest
from device_client import exchange, keys, signatures
from device_client.backoff import Backoff
from device_client.disk import on_disk
from device_client.errors import ConnectionLost, DeviceError, RequestRejected, StateUnusable
from device_client.exchange import Question
from device_client.identity import Identity, SlotCorrupt, read_key
from device_client.online import Online
from device_client.update import steps
from device_client.update.journal import Entry
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
        while True:
            state = self._updater.state
            if not state.outbox:
                await self._updater.until_changed(state)
                continue
            try:
                await self._deliver(online, state.outbox[0])
                self._again.reset()
            except ConnectionLost:
                raise
            except DeviceError as error:
                log.warning("a report waits: %s: %s", error.stable_code, error)
                await asyncio.sleep(self._again.next())

    async def _deliver(self, online: Online, entry: Entry) -> None:
        request = await on_disk(_request, online.identity, entry)
        topic = device_topic(DeviceOrigin(online.identity.device_id), Operation.REPORT)
        question = Question(topic, request.request_id, request, ReportAccepted)
        try:
            await exchange.ask(online.connection, question, self._answers_s)
        except RequestRejected as error:
            if error.rejected.known_code not in _HOPELESS:
                raise
            log.warning("the service won't take a report: %s", error)
        await self._updater.change(lambda state: steps.acknowledged(state, entry.report_id))


def _request(identity: Identity, entry: Entry) -> ReportRequest:
    try:
        key = keys.from_pem(read_key(identity.directory))
    except SlotCorrupt as error:
        raise StateUnusable(
            f"The key to sign reports with can't be read: {error}",
            "Nothing is to be done while the certificate is being replaced.",
        ) from error
    return ReportRequest(
        request_id=exchange.new_request_id(),
        report=entry.text,
        signature=signatures.sign(key, report_statement(entry.text)),
    )
