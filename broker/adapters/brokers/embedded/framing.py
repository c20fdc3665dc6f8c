"""Cuts a byte stream into MQTT packets, and refuses one that is too large by its header alone."""

from broker.adapters.brokers.embedded.errors import Ended, Ending

MAX_REMAINING = 268_435_455
"""The largest remaining length that the protocol can express (MQTT 3.1.1, section 2.2.3)."""
_LENGTH_BYTES = 4


class FrameSplitter:
    """Holds at most one incomplete packet, and never one larger than `limit`.

    `limit` counts the whole packet and may be changed between packets.
    """

    def __init__(self, limit: int = MAX_REMAINING) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Takes in what the stream brought."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """The next whole packet, or none until more is fed.

        Raises:
            Ended: TOO_LARGE or MALFORMED, as soon as the header says so.
        """
        size = self._frame_size()
        if size is None or size > len(self._buffer):
            return None
        frame = bytes(self._buffer[:size])
        del self._buffer[:size]
        return frame

    def _frame_size(self) -> int | None:
        remaining = 0
        for index, byte in enumerate(self._buffer[1 : 1 + _LENGTH_BYTES]):
            remaining |= (byte & 0x7F) << (7 * index)
            if not byte & 0x80:
                return self._bounded(2 + index + remaining)
        if len(self._buffer) > _LENGTH_BYTES:
            raise Ended(Ending.MALFORMED, "remaining length of more than four bytes")
        return None

    def _bounded(self, size: int) -> int:
        if size > self.limit:
            raise Ended(Ending.TOO_LARGE, f"{size} bytes where {self.limit} are allowed")
        return size
