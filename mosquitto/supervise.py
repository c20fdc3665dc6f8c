#!/usr/bin/python3
"""Runs Mosquitto, and has it reload its files whenever somebody connects to a socket.

    supervise.py SOCKET PROGRAM [ARGUMENT ...]

The service must have Mosquitto reload before a new CRL is in force, and a signal doesn't leave a
container. A socket does, in a folder that both containers see. To connect is to ask: nothing is
read, so there is nothing to get wrong. The answer `reloading` means that the signal has been sent,
to the very process that this one started and hasn't reaped; there is no pid to mistake.

Mosquitto reads copies of the CRL files that `-c` leads to, and gets to see no bad one
(crl_guard.py). With one in place it is reloaded all the same, with its last good copy, and the
answer is `kept FILE: why`, a line for each. While there is no good copy it isn't started.

It ends when Mosquitto ends, with its exit status, and passes SIGTERM, SIGINT and SIGHUP on, so it
can be a container's first process. It needs Debian's python3-minimal and openssl, nothing else.
Copies lie in the folder STATE_DIRECTORY, which systemd sets, or else beside the socket.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from crl_guard import Guard

ANSWER = "reloading\n"
_TO_END = (signal.SIGTERM, signal.SIGINT)
_LOOK_AGAIN_S = 0.2


def main(arguments: list[str]) -> int:
    """Runs the program until it ends; returns its exit status."""
    if len(arguments) < 2:
        print("usage: supervise.py SOCKET PROGRAM [ARGUMENT ...]", file=sys.stderr)
        return 2
    path, *program = arguments
    woken = _wake_on_signals()
    # Mosquitto sets its handler some time after its start; until then the signal is ignored
    # instead of ending it. A program inherits what is ignored, but no handler.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    guard = _guard(Path(path).parent, program)
    with listen(path) as listener:
        child = subprocess.Popen(program)
        for number in _TO_END:
            signal.signal(number, lambda received, _: child.send_signal(received))
        signal.signal(signal.SIGHUP, lambda *_: None)
        _serve(listener, woken, _Supervised(child, guard))
    Path(path).unlink(missing_ok=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _guard(folder: Path, program: list[str]) -> Guard | None:
    """Returns when Mosquitto may start, with the configuration that is put into `program`. None
    for another program."""
    if Path(program[0]).name != "mosquitto" or "-c" not in program[:-1]:
        return None
    config = program.index("-c") + 1
    kept = Path(os.environ.get("STATE_DIRECTORY", folder)) / "in-use"
    guard = Guard(Path(program[config]), kept)
    for number in _TO_END:  # a container's first process isn't ended by what it doesn't handle
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    told: list[str] = []
    while True:
        complaints = guard.refresh()
        if complaints != told:
            _say(complaints)
        if guard.is_ready():
            break
        told = complaints
        time.sleep(_LOOK_AGAIN_S)
    program[config] = str(guard.config)
    return guard


class _Supervised:
    """Mosquitto, and what it reads."""

    def __init__(self, child: "subprocess.Popen[bytes]", guard: Guard | None) -> None:
        self._child = child
        self._guard = guard

    def lives(self) -> bool:
        return self._child.poll() is None

    def reload(self) -> str:
        """Has it read its files again, and says what came of it; nothing when it has ended."""
        complaints = [] if self._guard is None else self._guard.refresh()
        _say(complaints)
        if not self.lives():
            return ""
        self._child.send_signal(signal.SIGHUP)
        return "".join(f"kept {each}\n" for each in complaints) or ANSWER


def _say(complaints: list[str]) -> None:
    for each in complaints:
        print(f"supervise: not read, {each}", file=sys.stderr, flush=True)


def listen(path: str) -> socket.socket:
    """The socket, for its owner and group; one that a killed predecessor left is replaced."""
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen()
    listener.setblocking(False)
    return listener


def _serve(listener: socket.socket, woken: socket.socket, supervised: _Supervised) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while supervised.lives():
            for key, _ in selector.select():
                if key.fileobj is listener:
                    _answer(listener, supervised)
                elif signal.SIGHUP in woken.recv(4096):  # each byte is a signal's number
                    supervised.reload()


def _answer(listener: socket.socket, supervised: _Supervised) -> None:
    try:
        connection, _ = listener.accept()
    except OSError:  # whoever asked has left already
        return
    with connection:
        # A process that has ended gets no signal, and whoever asked no answer.
        answer = supervised.reload()
        try:
            connection.sendall(answer.encode())
        except OSError:
            return


def _wake_on_signals() -> socket.socket:
    """What becomes readable at every signal, so that the end of the program isn't overlooked."""
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.detach())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return woken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
