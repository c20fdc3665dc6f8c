"""What a device at rest hasn't loaded. Most of its memory is what it has imported."""

import socket
import subprocess
import sys

HEAVY = frozenset(
    {
        *("argparse", "ctypes", "http", "multiprocessing", "optparse", "shutil", "sqlite3"),
        *("tempfile", "unittest", "xml", "zipfile"),
        *("encodings.idna", "stringprep", "unicodedata", "email.message", "urllib.request"),
        *("paho", "aiomqtt", "tuf", "securesystemslib", "pydantic", "sqlalchemy", "rich"),
        *("device_client.status_shown", "device_client.status"),
    }
)
"""What the standard library, the service or a command takes and the agent does without."""

NOT_YET = frozenset(
    f"device_client.{name}"
    for name in ("fetch", "update.pursuit", "update.repository", "update.trusted", "update.signing")
)
"""What is loaded with the first assignment."""

LIVE = """
import sys
before = set(sys.modules)
import asyncio, ssl
from device_client import cli, dialing
from device_client.arguments import parse
{more}

async def connect(host, port):
    (await dialing.dial(host, port)).close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=dialing.in_ascii(host))

parse(["run", "--state", "somewhere", "--model", "meter"])
asyncio.run(connect("localhost", int(sys.argv[1])))
print(*sorted(set(sys.modules) - before))
"""


def loaded(more: str = "") -> set[str]:
    """The modules of a process that does what an agent does, and what they are parts of."""
    with socket.create_server(("localhost", 0)) as listening:
        ended = subprocess.run(
            [sys.executable, "-c", LIVE.format(more=more), str(listening.getsockname()[1])],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 0, ended.stderr
    modules = ended.stdout.split()
    return {".".join(name.split(".")[:depth]) for name in modules for depth in range(1, 4)}


def test_an_agent() -> None:
    found = loaded()
    assert {"cryptography.x509", "device_client.agent"} <= found, "the test sees what is loaded"
    assert not found & {*HEAVY, "device_client.update"}


def test_an_agent_that_waits_for_updates() -> None:
    found = loaded("from device_client.update import entry")
    assert "device_client.update.duty" in found
    assert not found & (HEAVY | NOT_YET)
