"""An image in blocks over MQTT, for a device that has no other way to it."""

import asyncio
import random
from collections import deque
from secrets import token_hex
from typing import Final

from broker.protocol import limits as sizes
from broker.protocol.codes import Code
from broker.protocol.updates import AssignedTarget, BlockRequest
from device_client.backoff import no_sooner_than
from device_client.errors import AnswerInvalid, NoAnswer, RequestRejected
from device_client.fetch.errors import ImageUnavailable, SourceUnfit
from device_client.fetch.intake import Intake, Pace
from device_client.fetch.limits import LONGEST_PAUSE_S, FetchLimits
from device_client.fetch.sink import BlockAsker

_PATIENCE: Final = 10
"""How many times in a row the service may put a block off."""
_SOON: Final = frozenset({Code.RATE_LIMITED, Code.BUSY, Code.INTERNAL})


class BlockSource:
    """The service, asked block by block; a few are on their way at once."""

    name = "blocks"

    def __init__(self, ask: BlockAsker, target: AssignedTarget, limits: FetchLimits) -> None:
        self._ask = ask
        self._target = target
        self._at_once = limits.blocks_at_once
        self._pace = Pace(limits)
        least = limits.least_rate
        self._longest_s = max(limits.slow_window_s, sizes.MAX_BLOCK / least) if least else None
        """How long a whole block may take."""

    async def pour(self, intake: Intake) -> None:
        """All that the sink lacks.

        Raises:
            FetchError: it didn't get that far; what came is in the sink.
            ConnectionLost: the connection ended.
        """
        asked: deque[asyncio.Task[bytes]] = deque()
        offset = intake.position
        try:
            while intake.left:
                while offset < self._target.length and len(asked) < self._at_once:
                    length = min(sizes.MAX_BLOCK, self._target.length - offset)
                    intake.room(length)
                    asked.append(asyncio.create_task(self._block(offset, length)))
                    offset += length
                data = await self._waited_for(asked[0])
                asked.popleft()
                await intake.take(data)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _waited_for(self, asked: "asyncio.Task[bytes]") -> bytes:
        """The block, if it comes at the least rate; that it's put off is no excuse.

        A service that doesn't answer at all isn't slow: that ends by itself, and says so.
        """
        while True:
            self._pace.begin()
            done, _ = await asyncio.wait({asked}, timeout=self._longest_s)
            data = asked.result() if done else b""
            self._pace.got(len(data))
            if done:
                return data

    async def _block(self, offset: int, length: int) -> bytes:
        for _ in range(_PATIENCE):
            try:
                return await self._ask_once(offset, length)
            except RequestRejected as error:
                if error.rejected.known_code not in _SOON:
                    raise SourceUnfit(str(error), error.remedy) from error
                wait_s = min(float(error.rejected.retry_after_s or 1), LONGEST_PAUSE_S)
            except NoAnswer as error:
                raise ImageUnavailable(str(error), error.remedy) from error
            except AnswerInvalid as error:
                raise SourceUnfit(str(error), error.remedy) from error
            await asyncio.sleep(no_sooner_than(wait_s, random.random))
        raise ImageUnavailable("The service put the same block off again and again.")

    async def _ask_once(self, offset: int, length: int) -> bytes:
        request = BlockRequest(
            request_id=token_hex(16),
            path=self._target.path,
            sha256=self._target.sha256,
            offset=offset,
            length=length,
        )
        answer = await self._ask(request)
        if answer.offset != offset or len(answer.data) != length:
            raise AnswerInvalid("The service sent another block than was asked for.")
        return answer.data
