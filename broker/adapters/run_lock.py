"""One service for a home: two would throw each other off the fleet broker, for ever."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
