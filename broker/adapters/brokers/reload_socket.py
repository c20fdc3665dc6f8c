"""Having a Mosquitto reloaded that can't be signalled from here, because it has its own container.

`mosquitto/supervise.py` runs there and answers (docs/adr/0009-a-reload-socket-beside-mosquitto.md).
"""

import asyncio
from pathlib import Path
from typing import Final

from broker.adapters.brokers.errors import BrokerControlCode, BrokerControlError

_ANSWER: Final = b"reloading\n"
_KEPT: Final = b"kept "
_LONGEST: Final = 4096


async def ask_for_reload(path: Path, timeout_s: float) -> None:
    """Returns when the signal to reload has been sent; that says nothing of the reload itself.

    Raises:
        BrokerControlError: BROKER_DOWN, BROKER_SILENT, NOT_PERMITTED; CRL_INVALID when Mosquitto
            goes on with the last good copy of a CRL file.
    """
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _connect_and_read(path)
    except TimeoutError as error:
        raise BrokerControlError(
            BrokerControlCode.BROKER_SILENT,
            f"nobody answers on {path} within {timeout_s:g} s",
            "restart the broker's container",
        ) from error
    except PermissionError as error:
        raise BrokerControlError(
            BrokerControlCode.NOT_PERMITTED,
            f"{path} may not be opened",
            "run the service as a member of the socket's group",
        ) from error
    except OSError as error:
        raise _down(path) from error
    if answer.startswith(_KEPT):
        raise _kept(answer)
    if answer != _ANSWER:
        raise _down(path)


async def _connect_and_read(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        answer = b""
        while len(answer) < _LONGEST and (more := await reader.read(_LONGEST)):
            answer += more
        return answer
    finally:
        writer.close()


def _kept(answer: bytes) -> BrokerControlError:
    said = answer.decode(errors="replace").strip().replace("\n", "; ").removeprefix(_KEPT.decode())
    return BrokerControlError(
        BrokerControlCode.CRL_INVALID,
        f"Mosquitto goes on with its last good copy, {said}",
        "see who writes to the CRL files; the service signs the fleet's again",
    )


def _down(path: Path) -> BrokerControlError:
    return BrokerControlError(
        BrokerControlCode.BROKER_DOWN,
        f"Mosquitto can't be reloaded through {path}",
        "start it by mosquitto/supervise.py, as the container image does",
    )
