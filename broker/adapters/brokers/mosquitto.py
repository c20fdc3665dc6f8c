"""What the service needs of a running Mosquitto besides MQTT: CRLs in force, connections ended."""

import asyncio
import os
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.adapters.brokers.admin_socket import visit
from broker.adapters.brokers.crl_file import check_file
from broker.adapters.brokers.errors import BrokerControlCode, BrokerControlError
from broker.adapters.brokers.reload_socket import ask_for_reload

_TIMEOUT_S: Final = 10.0
"""For one visit. A reload with a CRL of 100,000 entries stops Mosquitto for 0.2 s."""


@dataclass(frozen=True)
class MosquittoEndpoint:
    """Where one Mosquitto is steered, as its configuration says."""

    pid_file: Path
    admin_socket: Path
    crls: Sequence[Path]
    """Every CRL file that it reads."""
    reload_socket: Path | None = None
    """Used instead of the pid file where Mosquitto can't be signalled; beside the admin socket."""


class MosquittoControl:
    """Steers one Mosquitto that runs with Muster's configuration, on the same machine."""

    def __init__(self, endpoint: MosquittoEndpoint) -> None:
        self._endpoint = endpoint
        self._reload = asyncio.Lock()

    async def apply_crl(self) -> None:
        """Puts the CRL files in force, which the caller has swapped.

        On return Mosquitto has read it, and refuses a revoked certificate. So it does in handshakes
        that were under way, if each CRL's thisUpdate is a later second than its predecessor's. What
        was authenticated before stays: live connections, and those that have yet to send CONNECT.
        `disconnect` ends the former; the latter get in until Mosquitto gives them up.

        Mosquitto keeps a CRL in memory (about 800 bytes for each entry) as long as a connection
        lives that was made under it: a CRL for each single revocation adds up.

        Raises:
            BrokerControlError: CRL_INVALID or CRL_UNREADABLE, then Mosquitto keeps what it has;
                BROKER_DOWN, BROKER_MISMATCH, BROKER_REFUSED, BROKER_SILENT, NOT_PERMITTED.
        """
        async with self._reload:
            for path in self._endpoint.crls:
                await asyncio.to_thread(check_file, path, datetime.now(UTC))
            # Mosquitto forgets a SIGHUP that arrives while it reloads for another. One that answers
            # isn't reloading; if somebody else's signal comes between the answer and ours, that
            # reload begins after the swap, and reads what we want read.
            pid = await self._round_trip()
            await self._have_reloaded(pid)
            # It reloads at the end of the turn of its main loop in which it sees the signal. A new
            # connection is accepted in that turn at the earliest, and answered in the next.
            await self._round_trip()

    async def disconnect(self, name: str) -> int:
        """Ends the live connection of the client id `name`, and its session.

        On the fleet broker the client id is the certificate's name. On the claim broker a client
        chooses its own, so that a revoked claim certificate's connections aren't found by its name.

        A will that it left is published, if its name may publish there.

        Returns:
            1, also when there was none: Mosquitto doesn't say.

        Raises:
            BrokerControlError: CLIENT_ID_INVALID, BROKER_DOWN, BROKER_REFUSED, BROKER_SILENT,
                NOT_PERMITTED.
        """
        await visit(self._endpoint.admin_socket, name, _TIMEOUT_S)
        return 1

    async def _have_reloaded(self, pid: int) -> None:
        """Returns when the signal has been sent."""
        if self._endpoint.reload_socket is not None:
            await ask_for_reload(self._endpoint.reload_socket, _TIMEOUT_S)
        else:
            _signal_reload(pid, await asyncio.to_thread(_read_pid, self._endpoint.pid_file))

    async def _round_trip(self) -> int:
        # A client id that nobody can guess, so that nobody can get in its way.
        client_id = f"muster-admin-{secrets.token_hex(8)}"
        return await visit(self._endpoint.admin_socket, client_id, _TIMEOUT_S)


def _read_pid(pid_file: Path) -> int:
    try:
        with pid_file.open("rb") as file:
            return int(file.read(32))
    except (OSError, ValueError) as error:
        raise BrokerControlError(
            BrokerControlCode.BROKER_DOWN,
            f"{pid_file} doesn't name a process",
            "start Mosquitto with Muster's configuration, which writes it; under "
            "mosquitto/supervise.py there is none, set reload_socket",
        ) from error


def _signal_reload(pid: int, pid_in_file: int) -> None:
    # The kernel's word for who listens. A reload of the other zone's broker would be worse than
    # none: this zone's would go on without the new CRL, and nobody would know.
    if pid != pid_in_file:
        raise BrokerControlError(
            BrokerControlCode.BROKER_MISMATCH,
            f"the pid file says {pid_in_file}, but {pid} listens on the admin socket",
            "name the pid file and the socket of the same Mosquitto, in this pid namespace",
        )
    try:
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
        finally:
            os.close(process)
    except ProcessLookupError as error:
        raise BrokerControlError(
            BrokerControlCode.BROKER_DOWN, "Mosquitto has just ended", "start it again"
        ) from error
    except PermissionError as error:
        raise BrokerControlError(
            BrokerControlCode.NOT_PERMITTED,
            f"process {pid} may not be signalled",
            "run the service as Mosquitto's user, or with CAP_KILL",
        ) from error
