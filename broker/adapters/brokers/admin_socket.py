"""A visit to Mosquitto's admin socket: connect with a client id, and leave again.

It speaks the three packets of MQTT 3.1.1 that this takes (OASIS MQTT 3.1.1, sections 3.1, 3.2 and
3.14): a client library would bring a thread, a reconnect and a session along.
"""

import asyncio
import socket
import struct
from pathlib import Path
from typing import Final

from broker.adapters.brokers.errors import BrokerControlCode, BrokerControlError

MAX_CLIENT_ID: Final = 1024
"""Bytes; more than Muster ever names."""
_CLEAN_SESSION: Final = 0x02
_KEEPALIVE_S: Final = 10
CONNACK_ACCEPTED: Final = b"\x20\x02\x00\x00"
_DISCONNECT: Final = b"\xe0\x00"
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: socket(7), SO_PEERCRED


async def visit(path: Path, client_id: str, timeout_s: float) -> int:
    """Connects as `client_id` with a clean session and leaves; nothing stays behind.

    On return Mosquitto has ended whatever connection and session had that client id, and has gone
    through its main loop at least once since the call.

    Args:
        path: the socket.
        client_id: not empty, at most `MAX_CLIENT_ID` bytes in UTF-8.
        timeout_s: for all of it.

    Returns:
        The process id of Mosquitto, as the kernel says; 0 when it isn't in a pid namespace that
        this process sees.

    Raises:
        BrokerControlError: CLIENT_ID_INVALID, BROKER_DOWN, BROKER_SILENT, BROKER_REFUSED,
            NOT_PERMITTED.
    """
    packet = connect_packet(client_id)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await _enter_and_leave(reader, writer, packet)
            finally:
                writer.close()
    except TimeoutError as error:
        raise BrokerControlError(
            BrokerControlCode.BROKER_SILENT,
            f"Mosquitto doesn't answer on {path} within {timeout_s:g} s",
            "see whether it is overloaded or stopped, then try again",
        ) from error
    except PermissionError as error:
        raise BrokerControlError(
            BrokerControlCode.NOT_PERMITTED,
            f"{path} may not be opened",
            "run the service as a member of the socket's group",
        ) from error
    except (OSError, asyncio.IncompleteReadError) as error:
        raise BrokerControlError(
            BrokerControlCode.BROKER_DOWN,
            f"Mosquitto can't be reached on {path}",
            "start it with Muster's configuration, which opens the admin socket",
        ) from error


async def _enter_and_leave(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, packet: bytes
) -> int:
    connection: socket.socket = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    writer.write(packet)
    answer = await reader.readexactly(len(CONNACK_ACCEPTED))
    if answer != CONNACK_ACCEPTED:
        raise BrokerControlError(
            BrokerControlCode.BROKER_REFUSED,
            "Mosquitto refuses the connection on the admin socket",
            "give that listener `allow_anonymous true`, as Muster's configuration does",
        )
    writer.write(_DISCONNECT)
    # The broker closes when it has forgotten the session.
    await reader.read()
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid


def connect_packet(client_id: str) -> bytes:
    """CONNECT with a clean session and no credentials.

    Raises:
        BrokerControlError: CLIENT_ID_INVALID.
    """
    name = client_id.encode()
    if not 0 < len(name) <= MAX_CLIENT_ID:
        raise BrokerControlError(
            BrokerControlCode.CLIENT_ID_INVALID,
            f"a client id has 1 to {MAX_CLIENT_ID} bytes",
            "name a device",
        )
    header = struct.pack("!H4sBBH", 4, b"MQTT", 4, _CLEAN_SESSION, _KEEPALIVE_S)
    body = header + struct.pack("!H", len(name)) + name
    return b"\x10" + _remaining_length(len(body)) + body


def _remaining_length(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    return bytes([length & 0x7F | 0x80, length >> 7])
