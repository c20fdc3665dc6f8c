"""A real Mosquitto with the stock configuration, on free ports of the loopback."""

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.adapters.brokers.mosquitto import MosquittoControl, MosquittoEndpoint
from broker.protocol.zones import Zone
from broker.settings import STOCK_SERVICE_PORTS
from tests.support.ports import free_port
from tests.support.waiting import eventually

STOCK = Path(__file__).resolve().parents[2] / "mosquitto"
_PORTS = {Zone.CLAIM: 8884, Zone.FLEET: 8883}


class RunningMosquitto:
    """One Mosquitto process; `run_mosquitto` makes it."""

    def __init__(
        self,
        zone: Zone,
        home: Path,
        config: Path,
        log: Path,
        endpoint_dir: Path,
        supervised: bool = False,
    ) -> None:
        self.zone = zone
        self.endpoint = MosquittoEndpoint(
            pid_file=endpoint_dir / "mosquitto.pid",
            admin_socket=endpoint_dir / "admin.sock",
            crls=(home / "crl" / f"{zone}.pem", home / "crl" / "infrastructure.pem"),
            reload_socket=endpoint_dir / "reload.sock" if supervised else None,
        )
        self.control = MosquittoControl(self.endpoint)
        self.port = 0
        """For devices."""
        self.service_port = 0
        self._config = config
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last."""
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """What all processes so far have logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    async def kill(self) -> None:
        """Kill -9: nothing is written, nothing is said to clients."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Lets it end in order."""
        await self._end(signal.SIGTERM)

    async def restart(self) -> None:
        """Starts it on the same port; kills it first when it runs."""
        await self.kill()
        await self._start()

    async def start(self, stock: str) -> None:
        """Starts it on free ports. Another program may take one first; then on others."""
        for _ in range(3):
            self.port, self.service_port = free_port(), free_port()
            on_ports = stock.replace(
                f"listener {_PORTS[self.zone]}", f"listener {self.port} 127.0.0.1"
            ).replace(f"listener {STOCK_SERVICE_PORTS[self.zone]}", f"listener {self.service_port}")
            await asyncio.to_thread(self._config.write_text, on_ports)
            try:
                await self._start()
            except AssertionError:
                if "Address already in use" not in self.log():
                    raise
            else:
                return
        raise AssertionError(f"Mosquitto found no free port:\n{self.log()}")

    async def _start(self) -> None:
        read = len(self.log())
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), stdout=log, stderr=log, start_new_session=True
            )
        process = self._process

        def runs() -> bool:
            said = self.log()[read:]
            assert process.returncode is None, f"Mosquitto ended at its start:\n{said}"
            return re.search(r"mosquitto version \S+ running", said) is not None

        try:
            await eventually(runs)
        except BaseException:
            await self.kill()
            raise

    def _command(self) -> list[str | Path]:
        mosquitto: list[str | Path] = [_program(), "-c", self._config]
        if self.endpoint.reload_socket is None:
            return mosquitto
        return [sys.executable, STOCK / "supervise.py", self.endpoint.reload_socket, *mosquitto]

    async def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None and how is signal.SIGKILL:
            # A supervisor's Mosquitto goes with it, as it does where that is a container's first.
            os.killpg(process.pid, how)
        elif process.returncode is None:
            process.send_signal(how)
        await process.wait()


@asynccontextmanager
async def run_mosquitto(
    zone: Zone, home: Path, run_dir: Path, supervised: bool = False
) -> AsyncIterator[RunningMosquitto]:
    """The zone's broker, listening, with the certificates of `home`; ended at the end.

    Only prefixes and the ports of the stock configuration are replaced. Started as root it stays
    root: tests' folders are closed to the user `mosquitto`, to whom it would change.

    Args:
        run_dir: an existing folder for the configuration and the log.
        supervised: whether it runs, and is reloaded, the way it is in a container.
    """
    stock = await asyncio.to_thread(_stage, zone, home, run_dir)
    # A socket's path has at most 107 bytes, which a test's own folder may exceed.
    sockets = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="muster-mq-"))
    (sockets / zone).mkdir()
    mosquitto = RunningMosquitto(
        zone, home, run_dir / f"{zone}.conf", run_dir / f"{zone}.log", sockets / zone, supervised
    )
    try:
        await mosquitto.start(stock.replace("/run/muster", str(sockets)))
        yield mosquitto
    finally:
        await mosquitto.kill()
        await asyncio.to_thread(shutil.rmtree, sockets)


def _stage(zone: Zone, home: Path, run_dir: Path) -> str:
    """Makes what stands for /etc/muster; returns the configuration that reads it."""
    etc = run_dir / f"etc-{zone}"
    etc.mkdir()
    for folder in ("tls", "trust", "crl"):
        (etc / folder).symlink_to(home / folder)
    (etc / "mosquitto").symlink_to(STOCK)
    text = (STOCK / f"{zone}.conf").read_text().replace("/etc/muster", str(etc))
    return text + "\nuser root\n" if os.geteuid() == 0 else text


def _program() -> str:
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert found is not None, "these tests need Mosquitto: install the package `mosquitto`"
    return found
