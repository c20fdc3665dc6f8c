"""Mosquitto as it runs in a container: reloaded through a socket, ended with its supervisor."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.adapters.brokers.crl_file import swap
from broker.adapters.brokers.errors import BrokerControlError
from broker.adapters.brokers.mosquitto import MosquittoControl
from broker.adapters.brokers.reload_socket import ask_for_reload
from broker.protocol.zones import Zone
from tests.support.certificates import Certificates
from tests.support.knocking import Answer, knock
from tests.support.mosquitto import STOCK, RunningMosquitto, run_mosquitto
from tests.support.waiting import eventually

SUPERVISE, HEALTHY = STOCK / "supervise.py", STOCK / "healthy.py"


@pytest.fixture
async def mosquitto(certificates: Certificates, tmp_path: Path) -> AsyncIterator[RunningMosquitto]:
    """A fleet broker under its supervisor."""
    home = certificates.home.path
    async with run_mosquitto(Zone.FLEET, home, tmp_path, supervised=True) as running:
        yield running


def reload_socket(mosquitto: RunningMosquitto) -> Path:
    path = mosquitto.endpoint.reload_socket
    assert path is not None
    return path


async def test_reloads_that_others_ask_for_do_not_make_ours_get_lost(
    mosquitto: RunningMosquitto, certificates: Certificates
) -> None:
    async def disturb() -> None:
        while True:
            await ask_for_reload(reload_socket(mosquitto), timeout_s=60)

    async with asyncio.TaskGroup() as tasks:
        disturbing = tasks.create_task(disturb())
        for number in range(20):
            lamp = certificates.device(f"lamp-{number}")
            pem = certificates.revoke(Zone.FLEET, [lamp])
            await asyncio.to_thread(swap, mosquitto.endpoint.crls[0], pem, datetime.now(UTC))
            await mosquitto.control.apply_crl()
            assert await knock(mosquitto.port, lamp) is Answer.REFUSED, f"round {number}"
        disturbing.cancel()


async def test_a_damaged_file_is_not_read_and_the_answer_says_so(
    mosquitto: RunningMosquitto, certificates: Certificates
) -> None:
    lamp, path = certificates.device("lamp"), mosquitto.endpoint.crls[0]
    pem = certificates.revoke(Zone.FLEET, [lamp])
    await asyncio.to_thread(swap, path, pem, datetime.now(UTC))
    await mosquitto.control.apply_crl()
    path.write_bytes(pem[:-40])
    with pytest.raises(BrokerControlError) as refused:
        await ask_for_reload(reload_socket(mosquitto), timeout_s=60)
    assert refused.value.code == "crl_invalid"
    assert "fleet.pem: it isn't a sequence of whole PEM CRLs" in refused.value.message
    assert await knock(mosquitto.port, lamp) is Answer.REFUSED
    path.write_bytes(pem)
    await ask_for_reload(reload_socket(mosquitto), timeout_s=60)


async def test_whoever_asks_and_leaves_harms_nobody(mosquitto: RunningMosquitto) -> None:
    for _ in range(50):
        _, writer = await asyncio.open_unix_connection(reload_socket(mosquitto))
        writer.transport.abort()
    await mosquitto.control.apply_crl()


async def test_only_its_group_may_ask(mosquitto: RunningMosquitto) -> None:
    assert stat.S_IMODE(reload_socket(mosquitto).stat().st_mode) == 0o660


async def test_it_stops_in_order_and_leaves_no_socket(mosquitto: RunningMosquitto) -> None:
    await mosquitto.stop()
    assert "terminating" in mosquitto.log()
    assert not reload_socket(mosquitto).exists()


async def test_a_reload_of_nobody_is_no_reload(mosquitto: RunningMosquitto) -> None:
    await mosquitto.kill()
    with pytest.raises(BrokerControlError) as refused:
        await ask_for_reload(reload_socket(mosquitto), timeout_s=60)
    assert refused.value.code == "broker_down"


@asynccontextmanager
async def supervised(tmp_path: Path, *program: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SUPERVISE), str(tmp_path / "s"), *program),
        start_new_session=True,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await eventually(lambda: listens(tmp_path / "s"))
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def listens(path: Path) -> bool:
    """Whether somebody takes connections there: a socket's file is seen a moment sooner."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(f" {path}") and line.split()[3] == "00010000" for line in lines)


PROGRAM = "import signal, sys; signal.signal(signal.{0}, lambda *_: sys.exit(7)); " + (
    "print('up', flush=True); signal.pause()"
)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
async def test_signals_are_passed_on_and_the_exit_status_back(tmp_path: Path, name: str) -> None:
    async with supervised(tmp_path, sys.executable, "-c", PROGRAM.format(name)) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        process.send_signal(signal.Signals[name])
        assert await asyncio.wait_for(process.wait(), 60) == 7


async def test_a_program_that_does_not_listen_yet_is_not_ended(tmp_path: Path) -> None:
    """As Mosquitto before it has set its handlers."""
    async with supervised(tmp_path, "sleep", "60") as process:
        await ask_for_reload(tmp_path / "s", timeout_s=60)
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 128 + signal.SIGTERM


async def test_a_supervisor_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_unix_server(say_nothing, tmp_path / "s")
    async with server:
        with pytest.raises(BrokerControlError) as refused:
            await ask_for_reload(tmp_path / "s", timeout_s=0.1)
        await asyncio.wait_for(left.wait(), 60)
    assert refused.value.code == "broker_silent"


async def test_the_health_check_tells_a_broker_that_answers(mosquitto: RunningMosquitto) -> None:
    async def status() -> int:
        check = [sys.executable, str(HEALTHY), str(mosquitto.endpoint.admin_socket)]
        done = await asyncio.to_thread(subprocess.run, check, capture_output=True, timeout=60)
        return done.returncode

    assert await status() == 0
    await mosquitto.kill()
    assert await status() == 1


async def test_a_wrong_pid_file_is_of_no_importance(mosquitto: RunningMosquitto) -> None:
    """It names a process of another container."""
    endpoint = replace(mosquitto.endpoint, pid_file=Path("/nowhere/at-all.pid"))
    await MosquittoControl(endpoint).apply_crl()
