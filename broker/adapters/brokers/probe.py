"""Trying whether a broker lets the service in, by TLS alone.

No MQTT is spoken: a second connection under the service's client id would end the running one.
"""

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.protocol.messages import Endpoint

_TIMEOUT_S: Final = 5.0
_VERDICT_S: Final = 0.5
"""In TLS 1.3 a server refuses a client's certificate only after the client has finished; that it
hasn't done so for this long is taken for consent."""


class ProbeError(Exception):
    """The broker can't be reached, or one side doesn't trust the other."""

    code = "broker_unreachable"

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class ProbeFiles:
    """What the service shows the broker, and by what it knows the broker."""

    certificate: Path
    key: Path
    anchors: Path


async def probe_broker(broker: Endpoint, files: ProbeFiles) -> str:
    """The version of TLS on which both sides agreed, each having verified the other.

    Raises:
        ProbeError: it didn't come to that.
    """
    try:
        context = await asyncio.to_thread(_context, files)
        async with asyncio.timeout(_TIMEOUT_S):
            return await _handshake(broker, context)
    except ssl.SSLCertVerificationError as error:
        raise ProbeError(
            f"{_where(broker)} shows a certificate that isn't right: {error.verify_message}",
            "It must be tls/*-broker.crt of this home and carry that host name.",
        ) from error
    except ssl.SSLError as error:
        raise ProbeError(
            f"{_where(broker)} refuses the service's certificate ({error.reason or error})",
            "The broker's trust and CRL files must be those in trust/ and crl/ of this home.",
        ) from error
    except TimeoutError as error:
        raise ProbeError(
            f"{_where(broker)} doesn't answer within {_TIMEOUT_S:g} s",
            "See that the broker runs and that no firewall is in between.",
        ) from error
    except OSError as error:
        raise ProbeError(
            f"{_where(broker)} can't be reached: {_cause(error)}",
            "Start it: 'muster up' for embedded brokers, else Mosquitto with Muster's files.",
        ) from error


def _context(files: ProbeFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.anchors))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    return context


async def _handshake(broker: Endpoint, context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=context)
    try:
        await _await_verdict(reader)
        agreed = writer.get_extra_info("ssl_object")
        return str(agreed.version())
    finally:
        writer.transport.abort()


async def _await_verdict(reader: asyncio.StreamReader) -> None:
    """Raises ssl.SSLError, or ConnectionResetError, when the broker refuses."""
    try:
        async with asyncio.timeout(_VERDICT_S):
            await reader.read(1)
    except TimeoutError:
        return


def _cause(error: OSError) -> str:
    if error.errno is None or error.errno < 0:  # several addresses failed; or the name's look-up
        return error.strerror or str(error)
    # asyncio's own text repeats the address.
    return os.strerror(error.errno).lower()


def _where(broker: Endpoint) -> str:
    return f"{broker.host}:{broker.port}"
