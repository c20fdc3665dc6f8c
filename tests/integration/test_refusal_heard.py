"""Why a broker refused a certificate is heard, also by a device that is slow to speak."""

import contextlib
import socket
import ssl
import struct
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.adapters.ca.home import MusterHome
from broker.protocol.messages import Endpoint
from broker.protocol.zones import Zone
from device_client.errors import CertificateRefused
from device_client.transport import Address, connected
from tests.support.certificates import Certificates

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER by which a close is a reset, as it is for a server that hasn't read all there was."""


class Refusing:
    """A TLS server that looks at one client's certificate, and resets the connection."""

    def __init__(self, home: MusterHome) -> None:
        self.is_over = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(home.client_anchors(Zone.FLEET))
        pair = home.broker(Zone.FLEET)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._listener = socket.create_server(("localhost", 0))
        self.port: int = self._listener.getsockname()[1]

    def serve_one(self) -> None:
        with self._listener, contextlib.suppress(ssl.SSLError):
            accepted, _ = self._listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with accepted, self._context.wrap_socket(accepted, server_side=True):
                pass
        self.is_over.set()


class Slow:
    """Judges a server's dates only when that server has hung up."""

    def __init__(self, server: Refusing) -> None:
        self._server = server

    def suit_the_clock(self) -> bool:
        return True

    def may_differ(self, verify_code: int) -> bool:
        return False

    def judge(self, certificate: bytes, is_checked: bool) -> bool:
        assert self._server.is_over.wait(60)
        return True


async def test_what_was_said_before_a_reset_is_heard(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    ended = datetime.now(UTC) - timedelta(minutes=1)
    device = certificates.forged(Zone.FLEET, "device-A1", not_after=ended)
    server = Refusing(certificates.home)
    address = Address(
        zone=Zone.FLEET,
        endpoint=Endpoint(host="localhost", port=server.port),
        client_id="device-A1",
        context=device.context(),
        timeout_s=60,
        keepalive_s=60,
        dates=Slow(server),
    )
    serving = threading.Thread(target=server.serve_one)
    serving.start()
    try:
        with pytest.raises(CertificateRefused) as refused:
            async with connected(address):
                pass
    finally:
        serving.join()
    assert refused.value.expired
