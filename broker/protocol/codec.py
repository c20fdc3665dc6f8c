"""Bytes to messages and back. Sizes are checked first; what decodes is complete and typed."""

from typing import TypeVar

import msgspec

from broker.protocol import limits
from broker.protocol.codes import EXPLANATIONS, Code, Refused, public
from broker.protocol.messages import Rejected

MessageT = TypeVar("MessageT")


class _OnlyRequestId(msgspec.Struct):
    request_id: str | None = None


def encode(message: object) -> bytes:
    """The message as compact JSON in UTF-8."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[MessageT], limit: int = limits.MAX_REQUEST) -> MessageT:
    """A complete message of `kind` from at most `limit` bytes.

    Raises:
        Refused: PAYLOAD_TOO_LARGE, PAYLOAD_MALFORMED or FIELD_INVALID.
    """
    if len(payload) > limit:
        raise Refused(Code.PAYLOAD_TOO_LARGE, f"{len(payload)} bytes where {limit} are allowed.")
    try:
        return _parse(payload, kind)
    except msgspec.ValidationError as error:
        raise Refused(Code.FIELD_INVALID, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Code.PAYLOAD_MALFORMED) from error


def request_id_of(payload: bytes) -> str | None:
    """The request id of a request that may be faulty otherwise; none where there is none."""
    if len(payload) > limits.MAX_REQUEST:
        return None
    try:
        found = _parse(payload, _OnlyRequestId).request_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found is None or not 1 <= len(found) <= limits.MAX_REQUEST_ID:
        return None
    return found


def rejection(refused: Refused, request_id: str | None) -> Rejected:
    """The refusal as the device may see it: public code, and no detail of a masked one."""
    code = public(refused.code)
    explanation = EXPLANATIONS[code]
    masked = code is not refused.code
    return Rejected(
        request_id=request_id,
        code=code,
        message=explanation.message if masked else refused.detail or explanation.message,
        remedy=explanation.remedy,
        retry_after_s=refused.retry_after_s,
    )


def _parse(payload: bytes, kind: type[MessageT]) -> MessageT:
    # Made text first: the library passes over unknown fields without looking at their bytes.
    return msgspec.json.decode(payload.decode("utf-8"), type=kind)
