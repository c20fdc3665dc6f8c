#!/usr/bin/python3
"""Runs Mosquitto, and has it reload its files whenever somebody connects to a socket.

    supervise.py SOCKET PROGRAM [ARGUMENT ...]

The service must have Mosquitto reload before a new CRL is in force, and a signal doesn't leave a
container. A socket does, in a folder that both containers see. To connect is to ask: nothing is
read, so there is nothing to get wrong. The answer `reloading` means that the signal has been sent,
to the very process that this one started and hasn't reaped; there is no pid to mistake.

It ends when Mosquitto ends, with its exit status, and passes SIGTERM, SIGINT and SIGHUP on, so it
can be a container's first process. It needs Debian's python3-minimal and nothing else.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path

ANSWER = b"reloading\n"
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """Runs the program until it ends; returns its exit status."""
    if len(arguments) < 2:
        print("usage: supervise.py SOCKET PROGRAM [ARGUMENT ...]", file=sys.stderr)
        return 2
    path, *program = arguments
    woken = _wake_on_signals()
    with listen(path) as listener:
        # Mosquitto sets its handler some time after its start; until then the signal is ignored
        # instead of ending it. A program inherits what is ignored, but no handler.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        child = subprocess.Popen(program)
        for number in _PASSED_ON:
            signal.signal(number, lambda received, _: child.send_signal(received))
        _serve(listener, woken, child)
    Path(path).unlink(missing_ok=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


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


def _serve(listener: socket.socket, woken: socket.socket, child: "subprocess.Popen[bytes]") -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while child.poll() is None:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    _answer(listener, child)
                else:
                    woken.recv(4096)


def _answer(listener: socket.socket, child: "subprocess.Popen[bytes]") -> None:
    try:
        connection, _ = listener.accept()
    except OSError:  # whoever asked has left already
        return
    with connection:
        # A process that has ended gets no signal, and whoever asked no answer.
        if child.poll() is None:
            child.send_signal(signal.SIGHUP)
            try:
                connection.send(ANSWER)
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
