"""The device agent: how much memory it holds, and how soon it is at work.

It runs as devices have it: compiled, with what a device installs beside it and nothing else. What
the service requires would be in its memory, too, as libraries look for others.
"""

import asyncio
import compileall
import os
import re
import shutil
import time
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import psutil

import broker
import device_client
from broker.adapters.clock import SystemClock
from broker.composition.registries import open_registry
from broker.core.rollout import Progress, Selection
from broker.operating.updating import update_repository
from broker.protocol.bundle import write_bundle
from broker.services import rollouts
from broker.services.rollouts import Push
from broker.settings import BrokerKind
from tests.bench.bench import CLAIM, MANY, Bench
from tests.bench.measuring import CpuMark, middle, say
from tests.bench.report import Row, at_most
from tests.support.ports import free_port
from tests.support.stack import Plan, Stack, running_stack
from tests.support.update_devices import workshop_of
from tests.support.update_workshop import MODEL, Workshop
from tests.support.waiting import eventually

_STARTS: Final = 5
_MEMORY_MB: Final = 40
_START_S: Final = 1.0
_WITHIN_S: Final = 60.0
_IMAGE: Final = 8 << 20
_ROOT: Final = Path(__file__).parents[2]
_REQUIRED: Final = re.compile(r"([\w.-]+)==")
_ONLINE: Final = b"connected to the fleet"


@dataclass(frozen=True)
class _Start:
    took_s: float
    cpu_s: float
    resident_mb: float


async def measure(bench: Bench) -> list[Row]:
    """A new device becomes a member; then it starts again and again."""
    say(f"device agent: first start, then {_STARTS} more")
    place = bench.place("agent")
    await asyncio.to_thread(_install, place)
    port = free_port()
    source = f"http://localhost:{port}/updates/targets"
    plan = Plan(BrokerKind.MOSQUITTO, in_process=False, http_port=port, sources=(source,))
    async with running_stack(place, plan) as stack:
        await stack.installation.add_claim_certificate(CLAIM, max_claims=MANY)
        await stack.installation.save_group(quota=MANY)
        await stack.installation.enroll(["A1"])
        bundle = place / "bundle.json"
        bundle.write_bytes(write_bundle(stack.bundle()))
        first = await _start(place, bundle)
        again = [await _start(place, bundle) for _ in range(_STARTS)]
        updating = await _start(place, bundle, "--model", MODEL)
        peak_mb = await _peak_of_an_update(place, stack)
    return [
        _memory([first, *again]),
        _memory_with_updates(updating),
        _memory_of_an_update(peak_mb),
        *_times(first, again),
    ]


def _install(place: Path) -> None:
    """What pip would make of the package and requirements/base.txt, without a network."""
    venv.create(place / "venv", symlinks=True)
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    for package in (broker, device_client):
        source = Path(package.__path__[0])
        installed = shutil.copytree(source, packages / source.name)
        compileall.compile_dir(installed, quiet=1)
    for line in (_ROOT / "requirements" / "base.txt").read_text().splitlines():
        if name := _REQUIRED.match(line):
            found = distribution(name[1])
            for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
                (packages / top).symlink_to(str(found.locate_file(top)))


def _python(place: Path) -> Path:
    return place / "venv" / "bin" / "python"


def _memory(starts: list[_Start]) -> Row:
    resident = max(start.resident_mb for start in starts)
    return at_most(
        "device agent, resident memory",
        f"{resident:.1f} MB ({resident * 1e6 / 2**20:.1f} MiB)",
        resident,
        _MEMORY_MB,
        f"<= {_MEMORY_MB} MB",
    )


def _memory_with_updates(start: _Start) -> Row:
    """Of an agent that was told its model, so that it follows assignments."""
    figure = f"{start.resident_mb:.1f} MB ({start.resident_mb * 1e6 / 2**20:.1f} MiB)"
    values = {"resident_mb": start.resident_mb}
    return Row("- of one that follows updates", figure, values=values)


def _memory_of_an_update(peak_mb: float) -> Row:
    figure = f"{peak_mb:.1f} MB ({peak_mb * 1e6 / 2**20:.1f} MiB)"
    what = f"- its peak while it installs an image of {_IMAGE >> 20} MiB that it fetches by HTTP"
    return Row(what, figure, values={"peak_mb": peak_mb})


def _times(first: _Start, again: list[_Start]) -> list[Row]:
    took = middle(start.took_s for start in again)
    cpu = middle(start.cpu_s for start in again)
    row = at_most(
        "device agent, start to operational (loopback, connect and confirm included)",
        f"{took:.2f} s, of it {cpu:.2f} s CPU",
        took,
        _START_S,
        f"<= {_START_S:g} s besides the network",
    )
    figure = f"{first.took_s:.2f} s, of it {first.cpu_s:.2f} s CPU"
    values = {"took_s": first.took_s, "cpu_s": first.cpu_s}
    return [row, Row("- the first time (key, claim and confirm included)", figure, values=values)]


async def _peak_of_an_update(place: Path, stack: Stack) -> float:
    """The most that was resident from the push until the service knows that it's installed."""
    workshop = await asyncio.to_thread(workshop_of, stack, place)
    path = await asyncio.to_thread(workshop.publish_image, "1.0.0", os.urandom(_IMAGE))
    root = place / "root.json"
    root.write_bytes(workshop.first_root())
    options = ("--state", place / "state", "--model", MODEL, "--update-root", root)
    async with _agent(_python(place), *options) as process:
        await _online(process)
        _forget_peak(process.pid)
        await _install_by_push(stack, workshop, path)
        slots = place / "state" / "update" / "components" / "main"
        assert (slots / "current" / "image").stat().st_size == _IMAGE
        peak_mb = _peak_mb(process.pid)
        process.terminate()
        assert process.stderr is not None
        assert b"a source failed" not in await process.stderr.read(), "it fell back on blocks"
        return peak_mb


async def _install_by_push(stack: Stack, workshop: Workshop, path: str) -> None:
    targets = update_repository(workshop.home, None).targets()
    push = Push("bench", (path,), Selection(everyone=True))
    clock = SystemClock()
    async with open_registry(stack.home, stack.installation.settings) as registry:
        await rollouts.start(registry, clock, rollouts.planned(push, targets, clock.now()))

        async def is_installed() -> bool:
            return (await rollouts.look(registry, "bench")).at(Progress.INSTALLED) == 1

        await eventually(is_installed, within=_WITHIN_S)


def _forget_peak(pid: int) -> None:
    """The peak of what is resident is counted from now on (proc_pid_clear_refs(5), 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_mb(pid: int) -> float:
    """The most that was resident, in MB (proc_pid_status(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024 / 1e6


async def _start(place: Path, bundle: Path, *options: str) -> _Start:
    """One life of `muster-device run`, measured when it is operational."""
    began = time.perf_counter()
    device = ("--state", place / "state", "--bundle", bundle, "--serial", "A1")
    async with _agent(_python(place), *device, *options) as process:
        await _online(process)
        took = time.perf_counter() - began
        mark = CpuMark.now([process.pid])
        resident = psutil.Process(process.pid).memory_info().rss
        return _Start(took, mark.used_s, resident / 1e6)


async def _online(process: asyncio.subprocess.Process) -> None:
    """Returns when the agent has said that it's operational."""
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(_WITHIN_S):
        while _ONLINE not in said:
            line = await process.stderr.readline()
            assert line, f"the agent ended:\n{said.decode()}"
            said += line


@asynccontextmanager
async def _agent(python: Path, *options: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "device_client", "run", *options),
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
