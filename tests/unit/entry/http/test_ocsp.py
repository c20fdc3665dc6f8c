"""Who asks for a certificate's status and doesn't wait for it."""

import asyncio
import logging
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from broker.entry.http.ocsp import OcspPages
from tests.support.http import ask, served


class NoStatus:
    """Answers nothing."""

    async def answer(self, _: bytes) -> object:
        raise NotImplementedError


async def test_who_hangs_up_in_a_question_leaves_nothing_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A traceback for each of some hundreds a second filled disks."""
    app = Starlette(routes=OcspPages(cast(Any, NoStatus())).routes())
    with caplog.at_level(logging.INFO):
        async with served(app) as port:
            for _ in range(3):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123")
                await writer.drain()
                writer.close()
                await writer.wait_closed()
            assert (await ask(port, "/elsewhere")).status == 404
    assert [each.getMessage() for each in caplog.records if each.levelno > logging.INFO] == []
