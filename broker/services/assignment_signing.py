"""What a device is told, signed by the director's key, and retained once it's committed."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from broker.core.assigning import Sources, message
from broker.core.rollout import Rollout
from broker.core.update_records import GivenAssignment
from broker.ports.registry import WriteTransaction
from broker.ports.updates import UpdateRepository
from broker.protocol import codec
from broker.protocol.topics import Desired, desired_topic


@dataclass(frozen=True)
class Signed:
    """An assignment and what is to be retained of it."""

    given: GivenAssignment
    payload: bytes


class AssignmentSigner:
    """Signs with the director's key; names `sources` as where images come from."""

    def __init__(self, repository: UpdateRepository, sources: Sources = ()) -> None:
        self._repository = repository
        self._sources = sources

    def directors(self) -> frozenset[str]:
        """The ids of the keys that root names for it now. Blocks."""
        return self._repository.directors()

    def signed_as(self) -> str:
        """With which keys and sources, as a text to compare. Blocks."""
        made_of = "\n".join((*sorted(self.directors()), "", *self._sources))
        return hashlib.sha256(made_of.encode()).hexdigest()

    def sign(self, assignment: GivenAssignment, rollout: Rollout) -> bytes:
        """What is to be retained for the device. Blocks.

        Raises:
            UpdateError: the director's key can't be used.
        """
        text = codec.encode(message(assignment, rollout, self._sources)).decode()
        return codec.encode(self._repository.sign_assignment(text))

    async def sign_all(self, wanted: Sequence[tuple[GivenAssignment, Rollout]]) -> list[Signed]:
        """As `sign`, each of them."""
        if not wanted:
            return []
        return await asyncio.to_thread(
            lambda: [Signed(each, self.sign(each, rollout)) for each, rollout in wanted]
        )


def retain(tx: WriteTransaction, told: Sequence[Signed]) -> None:
    """Has the fleet's broker retain each for its device."""
    if told:
        tx.retain(
            {desired_topic(each.given.device_id, Desired.UPDATE): each.payload for each in told}
        )
