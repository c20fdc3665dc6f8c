"""One service for a home: two would throw each other off the fleet broker, for ever."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

_TRIES: Final = 3
_PAUSE_S: Final = 0.05


class AlreadyRunning(Exception):
    """Another process serves this home."""

    code = "already_running"
    remedy = "Stop the other one first; 'systemctl status muster' or 'pgrep -af muster' finds it."


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock in the block; the kernel lets go of it however the process ends.

    Raises:
        AlreadyRunning: somebody else holds it.
        OSError: the file can't be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(f"Muster already runs for {path.parent.parent}.") from error
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def held_against_looks(path: Path) -> AsyncIterator[None]:
    """As `held`, for a lock that `is_held` looks at: a look has it for an instant.

    Raises:
        AlreadyRunning, OSError: as `held` does.
    """
    with ExitStack() as stack:
        for left in reversed(range(_TRIES)):
            try:
                stack.enter_context(held(path))
                break
            except AlreadyRunning:
                if not left:
                    raise
            await asyncio.sleep(_PAUSE_S)
        yield


def is_held(path: Path) -> bool | None:
    """Whether a process of this machine holds the lock; None when that can't be seen from here."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def note_registry(path: Path, number: int | None) -> None:
    """Leaves in the lock which file the one who holds it has its registry in. Blocks."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"" if number is None else str(number).encode())
    finally:
        os.close(descriptor)


def noted_registry(path: Path) -> int | None:
    """What `note_registry` left there last; none when that was nothing. Blocks."""
    try:
        with path.open("rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None
