"""Asking the service and waiting for its answer: repeat until answered."""

import asyncio
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from broker.protocol import codec, limits
from broker.protocol.codes import Refused
from broker.protocol.messages import Rejected
from broker.protocol.topics import Outcome, answer_topic
from device_client.errors import AnswerInvalid, NoAnswer, RequestRejected
from device_client.packets import Publication
from device_client.transport import Connection
from device_client.watching import Watch

log = logging.getLogger(__name__)


class Answer(Protocol):
    """Any acceptance: it names the request that it answers."""

    @property
    def request_id(self) -> str:
        """The request's id."""


AnswerT = TypeVar("AnswerT", bound=Answer)


@dataclass(frozen=True)
class Question(Generic[AnswerT]):
    """A request, where it goes, and what an acceptance of it looks like."""

    topic: str
    request_id: str
    request: object
    answer: type[AnswerT]


def new_request_id() -> str:
    """An id that no other request of this device has, nor of another."""
    return secrets.token_hex(16)


async def ask(
    connection: Connection, question: Question[AnswerT], waits_s: Iterable[float]
) -> AnswerT:
    """The service's acceptance. The request is sent once for each of the `waits_s` (seconds).

    It listens before it asks, and every repetition carries the same request id, so an answer to an
    earlier one counts. Several questions may be open at once on one connection.

    Raises:
        RequestRejected: the service said no.
        NoAnswer: it said nothing in all that time.
        AnswerInvalid: it said what this program can't read.
        ConnectionLost: the connection ended.
    """
    answers = [answer_topic(question.topic, outcome) for outcome in Outcome]
    async with connection.watch(*answers, retained=False) as watch:
        for wait_s in waits_s:
            await connection.publish(question.topic, codec.encode(question.request))
            try:
                async with asyncio.timeout(wait_s):
                    return await _answer(watch, question)
            except TimeoutError:
                log.warning("no answer on %s within %.0f s", question.topic, wait_s)
    raise NoAnswer(
        "The broker took the request, but the service didn't answer.",
        "Check that 'muster up' is running and connected to this broker.",
    )


async def _answer(watch: Watch, question: Question[AnswerT]) -> AnswerT:
    while True:
        answer = _read(await watch.next(), question)
        if answer is not None:
            return answer


def _read(message: Publication, question: Question[AnswerT]) -> AnswerT | None:
    """The acceptance in `message`, or none when it's about something else."""
    try:
        if message.topic == answer_topic(question.topic, Outcome.REJECTED):
            rejected = codec.decode(message.payload, Rejected, limits.MAX_ANSWER)
            if rejected.request_id in (question.request_id, None):
                raise RequestRejected(rejected)
        if message.topic == answer_topic(question.topic, Outcome.ACCEPTED):
            accepted = codec.decode(message.payload, question.answer, limits.MAX_ANSWER)
            if accepted.request_id == question.request_id:
                return accepted
    except Refused as refused:
        raise AnswerInvalid(
            f"The service's answer can't be read: {refused}",
            "Use versions of muster and muster-device that belong together.",
        ) from refused
    return None
