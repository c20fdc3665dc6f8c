"""What fetching needs of its surroundings: where the bytes go, and who asks for blocks."""

from typing import Protocol

from broker.protocol.updates import BlockAccepted, BlockRequest


class Sink(Protocol):
    """Takes an image from its first byte to its last; only it knows whether they're the right ones.

    It survives the fetch: the next one goes on at `position`.
    """

    @property
    def position(self) -> int:
        """How many bytes it has, counted from the image's beginning."""

    async def write(self, data: bytes) -> None:
        """Keeps the next bytes."""

    async def restart(self) -> None:
        """Forgets all bytes: they may belong to another content than those that follow."""


class BlockAsker(Protocol):
    """Asks the service for one block over MQTT; several may be asked for at once."""

    async def __call__(self, request: BlockRequest) -> BlockAccepted:
        """The service's answer.

        Raises:
            DeviceError: it refused, didn't answer, or the connection ended.
        """
