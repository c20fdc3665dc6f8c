"""What a sender can make the service remember is bounded."""

import aiomqtt
import pytest

from broker.entry.mqtt.link import _Inbox
from broker.protocol import codec, limits
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import ConfirmRequest


def message(payload: bytes, qos: int) -> aiomqtt.Message:
    return aiomqtt.Message("t", payload, qos, retain=False, mid=1, properties=None)


async def test_qos_0_is_not_kept() -> None:
    inbox = _Inbox()
    inbox.put_nowait(message(b"x", qos=0))
    assert inbox.empty()


async def test_a_payload_over_the_limit_is_cut_and_still_too_large() -> None:
    inbox = _Inbox()
    inbox.put_nowait(message(b"x" * 250_000, qos=1))
    kept = inbox.get_nowait().payload
    assert len(kept) == limits.MAX_REQUEST + 1
    with pytest.raises(Refused) as refused:
        codec.decode(kept, ConfirmRequest)
    assert refused.value.code is Code.PAYLOAD_TOO_LARGE


async def test_the_largest_request_is_kept_whole() -> None:
    inbox = _Inbox()
    inbox.put_nowait(message(b"x" * limits.MAX_REQUEST, qos=1))
    assert len(inbox.get_nowait().payload) == limits.MAX_REQUEST
