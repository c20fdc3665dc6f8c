"""The compose project as a `Stack`: the same face that an installation on this machine has."""

import asyncio
import io
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from broker.adapters.ca.home import MusterHome
from broker.protocol.zones import Zone
from broker.settings import load_settings
from broker.testing.compose import ComposeProject
from tests.support.installation import Installation
from tests.support.stack import Plan, Stack

ROOT: Final = Path(__file__).resolve().parents[2]
FILES: Final = (ROOT / "compose.yaml", Path(__file__).with_name("compose.yaml"))
_HOME: Final = "/var/lib/muster/home"
_KEPT: Final = {"alembic_version", "counter"}
"""Counters number CRLs, which brokers outlive."""


@dataclass
class Site:
    """The running project, and how tests get at its parts."""

    project: ComposeProject
    ports: dict[Zone, int]
    database_port: int
    home: Path
    """A copy of the installation's files as they were made."""
    _settings: str = field(default="")

    def fetch_home(self) -> None:
        """Copies the installation, keys and all: it lives as long as the tests."""
        # All but the doorbell: it is no file, and nobody outside can ring.
        command = ["tar", "-C", _HOME, "--exclude=./run/doorbell", "-ch", "."]
        container = self.project.container("service")
        packed = subprocess.run(
            [self.project.engine.program, "exec", container, *command],
            capture_output=True,
            check=True,
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(self.home, filter="data")
        self._settings = (self.home / "muster.toml").read_text()

    @property
    def database_url(self) -> str:
        """The registry as it's reached from outside."""
        password = self.project.inside("service", "cut", "-d:", "-f5", "/var/lib/muster/pgpass")
        return f"postgresql://muster:{password.strip()}@localhost:{self.database_port}/muster"

    def begin(self, place: Path, plan: Plan) -> Stack:
        """An installation that knows nobody, its service just started. Blocks."""
        url = self.database_url
        limits = "".join(
            f'{name} = "{value}"\n' if isinstance(value, str) else f"{name} = {value}\n"
            for name, value in plan.limits.items()
        )
        settings = f"{self._settings}\n[limits]\n{limits}"
        self.project.inside("service", "sh", "-c", f"cat > {_HOME}/muster.toml", stdin=settings)
        service = ContainerService(self.project)
        service.stop_now()
        _empty(url)
        service.start_now()
        home = MusterHome(place / "home")
        shutil.copytree(self.home, home.path)
        outside = settings.replace("postgresql://muster@database/muster", url)
        home.settings.write_text(outside)
        installation = Installation(home, load_settings(home.path))
        return Stack(plan, installation, service, self.ports, {})


@dataclass
class ContainerService:
    """The service's container; meets `tests.support.service.Service`."""

    project: ComposeProject
    _times_ready: int = 0

    async def start(self) -> None:
        """Returns when devices can claim."""
        await asyncio.to_thread(self.start_now)

    async def stop(self) -> None:
        """Ends it in order."""
        await asyncio.to_thread(self.stop_now)

    def start_now(self) -> None:
        """Blocks until devices can claim."""
        times = self.project.times_ready()
        self.project.start("service")
        self.project.await_ready(times + 1)

    def stop_now(self) -> None:
        """Blocks until it has ended."""
        self.project.stop("service")


def _empty(url: str) -> None:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        tables = ", ".join(f'"{name}"' for (name,) in found if name not in _KEPT)
        connection.execute(f"TRUNCATE {tables} CASCADE".encode())
