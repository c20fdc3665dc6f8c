"""Trying whether a broker is the one that it should be, and lets the service in.

Under a client id of the probe's own: a second connection with the service's would end the first.
"""

import asyncio
import errno
import os
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from broker.adapters.brokers.admin_socket import CONNACK_ACCEPTED, connect_packet, visit
from broker.protocol.messages import Endpoint

_TIMEOUT_S: Final = 5.0
_VERDICT_S: Final = 0.5
"""In TLS 1.3 a server refuses a client's certificate only after the client has finished; that it
hasn't done so for this long is taken for consent."""


class ProbeError(Exception):
    """The broker can't be reached, or it's another one, or one side doesn't trust the other."""

    code = "broker_unreachable"

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class UnreachableError(ProbeError):
    """Nobody answers there; that may be so from here only."""


@dataclass(frozen=True)
class ProbeFiles:
    """By what the service knows the broker, and what it shows."""

    anchors: Path
    certificate: Path
    key: Path


async def probe_broker(broker: Endpoint, name: str, files: ProbeFiles) -> str:
    """The version of TLS on which both sides agreed, each having verified the other.

    Args:
        name: the broker's certificate's, which says which zone it serves.

    Raises:
        ProbeError: it didn't come to that.
    """
    with _explained(broker):
        context = await asyncio.to_thread(_service_context, files)
        async with asyncio.timeout(_TIMEOUT_S):
            return await _handshake(broker, name, context, is_judged=True)


async def is_steered_by(broker: Endpoint, files: ProbeFiles, admin_socket: Path) -> bool:
    """Whether the admin socket is this very broker's: who visits there ends a connection here.

    Raises:
        ProbeError: the service can't connect, so nobody knows.
        BrokerControlError: the socket can't be visited.
    """
    client_id = f"muster-doctor-{secrets.token_hex(8)}"
    with _explained(broker):
        context = await asyncio.to_thread(_service_context, files)
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=context)
        try:
            writer.write(connect_packet(client_id))
            async with asyncio.timeout(_TIMEOUT_S):
                if await reader.read(len(CONNACK_ACCEPTED)) != CONNACK_ACCEPTED:
                    raise ConnectionResetError(errno.ECONNRESET, "refused")
            await visit(admin_socket, client_id, _TIMEOUT_S)
            return await _ends(reader)
        finally:
            writer.transport.abort()


async def probe_server(broker: Endpoint, name: str, anchors: Path) -> None:
    """Whether devices meet the right broker there. Nothing is shown to it, so it lets nobody in.

    Raises:
        ProbeError: they don't.
    """
    with _explained(broker):
        context = await asyncio.to_thread(_context, anchors)
        async with asyncio.timeout(_TIMEOUT_S):
            await _handshake(broker, name, context, is_judged=False)


@contextmanager
def _explained(broker: Endpoint) -> Iterator[None]:
    """Every way in which it may fail, in words."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise ProbeError(
            f"{_where(broker)} shows a certificate that isn't right: {error.verify_message}",
            "It must be tls/*-broker.crt of this home and carry that host name.",
        ) from error
    except ssl.SSLError as error:
        raise ProbeError(
            f"{_where(broker)} refuses the service's certificate ({error.reason or error})",
            "It must be the listener for the service, with trust/servers.pem and "
            "crl/infrastructure.pem of this home; service_port in muster.toml names it.",
        ) from error
    except TimeoutError as error:
        raise UnreachableError(
            f"{_where(broker)} doesn't answer within {_TIMEOUT_S:g} s",
            "See that the broker runs and that no firewall is in between.",
        ) from error
    except OSError as error:
        raise UnreachableError(
            f"{_where(broker)} can't be reached: {_cause(error)}",
            "Start it: 'muster up' for embedded brokers, else Mosquitto with Muster's files.",
        ) from error


def _context(anchors: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(anchors))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _service_context(files: ProbeFiles) -> ssl.SSLContext:
    context = _context(files.anchors)
    context.load_cert_chain(files.certificate, files.key)
    return context


async def _handshake(
    broker: Endpoint, name: str, context: ssl.SSLContext, *, is_judged: bool
) -> str:
    reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=context)
    try:
        agreed: ssl.SSLObject = writer.get_extra_info("ssl_object")
        _check_name(broker, agreed, name)
        if is_judged:
            await _await_verdict(reader)
        return str(agreed.version())
    finally:
        writer.transport.abort()


def _check_name(broker: Endpoint, agreed: ssl.SSLObject, name: str) -> None:
    """All brokers of a home have the same hosts in their certificates, so TLS can't tell."""
    certificate = x509.load_der_x509_certificate(agreed.getpeercert(binary_form=True) or b"")
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = [str(each.value) for each in found]
    if names != [name]:
        raise ProbeError(
            f"{_where(broker)} is another broker, {', '.join(names)} instead of {name}",
            "The zones' ports are mixed up, in muster.toml or in the brokers' configuration.",
        )


async def _await_verdict(reader: asyncio.StreamReader) -> None:
    """Raises ssl.SSLError, or ConnectionResetError, when the broker refuses."""
    try:
        async with asyncio.timeout(_VERDICT_S):
            await reader.read(1)
    except TimeoutError:
        return


async def _ends(reader: asyncio.StreamReader) -> bool:
    """Whether the broker ends the connection, in a time in which it has certainly done so."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await reader.read(1) == b""
    except TimeoutError:
        return False
    except (ssl.SSLError, ConnectionError):
        return True


def _cause(error: OSError) -> str:
    if error.errno is None or error.errno < 0:  # several addresses failed; or the name's look-up
        return error.strerror or str(error)
    # asyncio's own text repeats the address.
    return os.strerror(error.errno).lower()


def _where(broker: Endpoint) -> str:
    return f"{broker.host}:{broker.port}"
