"""One writer at a time: the service that refreshes, and the operator's commands."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from broker.adapters.updates.failures import missing
from broker.adapters.updates.layout import UpdateFolders
from broker.ports.updates import UpdateCode, UpdateError

PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.05


@contextmanager
def held(folders: UpdateFolders, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Holds the lock in the block; the kernel lets go of it however the process ends.

    Raises:
        UpdateError: REPOSITORY_MISSING, or REPOSITORY_BUSY after `patience_s` seconds.
    """
    try:
        descriptor = os.open(folders.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing() from error
    try:
        _acquire(descriptor, time.monotonic() + patience_s)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise UpdateError(
                    UpdateCode.REPOSITORY_BUSY,
                    "somebody else is changing the update repository",
                    "wait until the other command has ended, and try again",
                ) from error
            time.sleep(_PAUSE_S)
        else:
            return
