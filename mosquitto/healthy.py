#!/usr/bin/python3
"""Ends with status 0 if the Mosquitto behind an admin socket answers: its main loop goes round.

    healthy.py ADMIN_SOCKET

For a container's health check. It says CONNECT and waits for CONNACK (OASIS MQTT 3.1.1, 3.1 and
3.2), because a TCP port that accepts proves only that the kernel is alive.
"""

import os
import socket
import sys

_TIMEOUT_S = 3.0


def main(arguments: list[str]) -> int:
    """0 if Mosquitto accepts; 1 with a sentence on stderr if it doesn't."""
    name = f"muster-health-{os.getpid()}".encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x0a" + len(name).to_bytes(2, "big") + name
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(arguments[0])
            connection.sendall(bytes([0x10, len(body)]) + body)
            answer = connection.recv(4)
            connection.sendall(b"\xe0\x00")
    except OSError as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0 if answer == b"\x20\x02\x00\x00" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
