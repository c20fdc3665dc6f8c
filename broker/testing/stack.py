"""A Muster that runs for tests, in processes of its own or in containers, behind one face."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.testing.compose import ComposeProject, compose_project

_START_S: Final = 60.0
_STOP_S: Final = 10.0
_PAUSE_S: Final = 0.05
_BATCH: Final = "test-batch"
_GROUP: Final = """\
[groups.test-devices]
claim_certificates = ["test-batch"]
device_name = "device-{serial}"
quota = 1000000
serials = "any"
reprovision = "replace"
"""


class StackError(Exception):
    """Muster couldn't be started for the tests."""


@dataclass(frozen=True)
class MusterStack:
    """A running installation that lets in every serial number that shows its claim certificate."""

    bundle: Path
    """The claim bundle: what one flashes on devices."""
    muster: Callable[..., str]
    """Runs an operator's command, as in `muster("devices", "list")`; returns what it printed."""

    @property
    def claim(self) -> tuple[str, int]:
        """Host and port of the claim broker."""
        claim = json.loads(self.bundle.read_text())["claim"]
        return claim["host"], claim["port"]

    def devices(self) -> list[dict[str, Any]]:
        """All devices, as `muster devices list --json` has them."""
        listed = self.muster("devices", "list", "--json")
        return [json.loads(line) for line in listed.splitlines()]


@contextmanager
def embedded_stack(folder: Path) -> Iterator[MusterStack]:
    """The service with its embedded brokers, as a process; its files are in `folder`.

    Raises:
        StackError: it doesn't start.
    """
    home, bundle, groups = folder / "home", folder / "bundle.json", folder / "groups.toml"

    def muster(*arguments: str) -> str:
        return _run_muster("--home", str(home), *arguments)

    claim_port, fleet_port = _free_ports()
    _run_muster(
        *("init", str(home), "--host", "localhost"),
        *("--claim-port", str(claim_port), "--fleet-port", str(fleet_port)),
    )
    muster("claim-cert", "create", _BATCH, "--max-claims", "1000000", "--output", str(bundle))
    groups.write_text(_GROUP)
    muster("group", "apply", str(groups))
    with _running_service(home, folder / "service.log"):
        yield MusterStack(bundle, muster)


@contextmanager
def containers_stack(folder: Path, compose_file: Path) -> Iterator[MusterStack]:
    """The whole of a Muster checkout's compose.yaml: Mosquitto, PostgreSQL and the service.

    Raises:
        ComposeError: containers can't be run here, or one of them failed.
    """
    claim_port, fleet_port = _free_ports()
    ports = {"MUSTER_CLAIM_PORT": str(claim_port), "MUSTER_FLEET_PORT": str(fleet_port)}
    with compose_project([compose_file], ports) as project:
        project.build()
        project.up()
        yield MusterStack(_make_batch(project, folder), project.muster)


def _make_batch(project: ComposeProject, folder: Path) -> Path:
    made = f"/tmp/{_BATCH}.json"  # noqa: S108 - in the container, which is all ours
    project.inside("service", "sh", "-c", "cat > /tmp/groups.toml", stdin=_GROUP)
    project.muster("claim-cert", "create", _BATCH, "--max-claims", "1000000", "--output", made)
    project.muster("group", "apply", "/tmp/groups.toml")  # noqa: S108
    bundle = folder / "bundle.json"
    bundle.touch(0o600)
    bundle.write_text(project.inside("service", "cat", made))
    return bundle


def _run_muster(*arguments: str) -> str:
    done = subprocess.run(
        _command(*arguments),
        check=False,
        capture_output=True,
        text=True,
        timeout=_START_S,
        env=_environment(),
    )
    if done.returncode:
        raise StackError(
            f"muster {' '.join(arguments)}: {done.stderr[-2000:]}\n"
            "If a module is missing: pip install 'mqtt-muster[server]'"
        )
    return done.stdout


@contextmanager
def _running_service(home: Path, log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            _command("--home", str(home), "up", "--log-format", "json"),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=_environment(),
        )
    try:
        _await_ready(process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while '"event": "ready"' not in (said := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise StackError(f"Muster didn't start:\n{said[-2000:]}")
        time.sleep(_PAUSE_S)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "broker.entry.cli.main", *arguments]


def _environment() -> dict[str, str]:
    """Without what the environment says of another installation."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
