"""One service for a home: two would throw each other off the fleet broker, for ever."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
        _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


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


def _take(descriptor: int, path: Path) -> None:
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not left:
                raise AlreadyRunning(f"Muster already runs for {path.parent.parent}.") from error
            time.sleep(_PAUSE_S)  # `is_held` has it for an instant
        else:
            return
