"""A TLS server with a certificate of the right installation that may still be wrong."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.protocol.bundle import ClaimBundle
from broker.protocol.messages import Endpoint, TrustBundle
from broker.protocol.zones import Zone
from tests.support.pki import SERVER_AUTH, Pki


class StrangeServer:
    """One server, and the installation that it belongs to."""

    def __init__(self, place: Path, days: tuple[float, float] = (-1, 30)) -> None:
        self._pki = Pki(place)
        self._pair = self._pki.pair("broker", self._pki.infrastructure, SERVER_AUTH, days)
        self.met = 0
        """How many TLS handshakes were completed."""
        self.heard = b""
        """What was said to it afterwards."""

    @asynccontextmanager
    async def listening(self, hang_up: bool = False) -> AsyncIterator[int]:
        """Its port. It says nothing, or hangs up once TLS is up."""

        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.met += 1
            try:
                while not hang_up and (data := await reader.read(4096)):
                    self.heard += data
            finally:
                writer.close()

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pair.chain, self._pair.key_file)
        async with await asyncio.start_server(meet, "127.0.0.1", 0, ssl=context) as server:
            yield server.sockets[0].getsockname()[1]

    def bundle(self, host: str, port: int, root: str | None = None) -> ClaimBundle:
        """One that leads there; with a pinned root if there is one."""
        claim = self._pki.device(Zone.CLAIM, "batch-7")
        return ClaimBundle(
            claim_name="batch-7",
            certificate=claim.chain.read_text(),
            private_key=claim.key_file.read_text(),
            claim=Endpoint(host=host, port=port),
            trust_bundle=TrustBundle(version=1, anchors=self._pki.servers.read_text(), root=root),
        )
