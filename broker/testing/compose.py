"""A compose project under a name of its own: brought up, spoken to, and taken away whole.

Standard library only: pytest loads the plugin, and so this, wherever the package is installed.
"""

import functools
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_QUICK_S: Final = 120.0
_BUILD_S: Final = 1800.0
_PAUSE_S: Final = 0.1


class ComposeError(Exception):
    """Containers can't be had here, or one of them didn't do what it should."""


@dataclass(frozen=True)
class Engine:
    """What runs containers on this machine."""

    program: str
    compose: tuple[str, ...]


@functools.cache
def find_engine() -> Engine:
    """Docker with its compose plugin, else Podman with podman-compose.

    Raises:
        ComposeError: neither works.
    """
    for engine in (
        Engine("docker", ("docker", "compose")),
        Engine("podman", ("podman-compose",)),
    ):
        if _works(engine.program, "info") and _works(*engine.compose, "version"):
            return engine
    raise ComposeError(
        "Containers can't be run here: install Docker with its compose plugin and start it, or "
        "install podman and podman-compose."
    )


@dataclass(frozen=True)
class ComposeProject:
    """One project; all that it makes bears its name."""

    engine: Engine
    files: tuple[Path, ...]
    name: str
    environment: Mapping[str, str]

    def compose(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = _QUICK_S
    ) -> str:
        """Runs a compose command; what it said on stdout.

        Raises:
            ComposeError: it failed, or took too long.
        """
        files = [word for file in self.files for word in ("-f", str(file))]
        command = [*self.engine.compose, "-p", self.name, *files, *arguments]
        try:
            done = subprocess.run(
                command,
                check=False,
                input=stdin or "",
                capture_output=True,
                text=True,
                timeout=timeout_s,
                env={**os.environ, **self.environment},
            )
        except subprocess.TimeoutExpired as error:
            raise ComposeError(f"{' '.join(arguments)}: not done in {timeout_s:g} s") from error
        if done.returncode:
            raise ComposeError(f"{' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def build(self) -> None:
        """Makes the images."""
        self.compose("build", timeout_s=_BUILD_S)

    def up(self, within_s: float = _QUICK_S) -> None:
        """Starts everything; returns when devices can claim."""
        self.compose("up", "-d", timeout_s=_BUILD_S)
        self.await_ready(1, within_s)

    def times_ready(self) -> int:
        """How often the service has said that devices can claim, over all its lives."""
        return self.logs("service").count('"event": "ready"')

    def await_ready(self, times: int, within_s: float = _QUICK_S) -> None:
        """Returns when the service has been ready so many times."""
        deadline = time.monotonic() + within_s
        while self.times_ready() < times:
            if time.monotonic() > deadline:
                said = "".join(self.logs(each)[-2000:] for each in ("init", "service"))
                raise ComposeError(f"The service wasn't ready within {within_s:g} s:\n{said}")
            time.sleep(_PAUSE_S)

    def logs(self, service: str) -> str:
        """What a service's container has said on both streams."""
        done = subprocess.run(
            [self.engine.program, "logs", self.container(service)],
            check=False,
            capture_output=True,
            text=True,
            timeout=_QUICK_S,
        )
        return done.stdout + done.stderr

    def container(self, service: str) -> str:
        """The name of a service's only container."""
        between = "-" if self.engine.program == "docker" else "_"
        return between.join((self.name, service, "1"))

    def muster(self, *arguments: str, stdin: str | None = None) -> str:
        """What an operator's command says on stdout."""
        return self.inside("service", "muster", *arguments, stdin=stdin)

    def inside(self, service: str, *command: str, stdin: str | None = None) -> str:
        """Runs a command in a running container."""
        return self.compose("exec", "-T", service, *command, stdin=stdin)

    def start(self, service: str) -> None:
        """Starts a container that has ended; one that runs stays as it is."""
        self._engine("start", self.container(service))

    def stop(self, service: str) -> None:
        """Ends a container in order."""
        self._engine("stop", self.container(service))

    def kill(self, service: str) -> None:
        """Kill -9."""
        self._engine("kill", self.container(service))

    def down(self) -> None:
        """Takes away its containers, networks and volumes, and nobody else's."""
        try:
            self.compose("--profile", "demo", "down", "--volumes", "--timeout", "5")
        finally:
            for volume in self._volumes():
                self._engine("volume", "rm", "--force", volume)

    def _volumes(self) -> Sequence[str]:
        listed = self._engine("volume", "ls", "--quiet").split()
        return [volume for volume in listed if volume.startswith(f"{self.name}_")]

    def _engine(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.engine.program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=_QUICK_S,
        )
        if done.returncode:
            raise ComposeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
        return done.stdout


@contextmanager
def compose_project(
    files: Sequence[Path], environment: Mapping[str, str] | None = None
) -> Iterator[ComposeProject]:
    """A project that isn't up yet, under a name that nobody has; taken down at the end.

    Raises:
        ComposeError: containers can't be run here.
    """
    name = f"muster-test-{secrets.token_hex(4)}"
    project = ComposeProject(find_engine(), tuple(files), name, dict(environment or {}))
    try:
        yield project
    finally:
        project.down()


def _works(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=_QUICK_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
