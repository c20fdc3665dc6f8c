"""The command `muster-device`: claim, renew, run, status."""

import asyncio
import logging
import os
import signal
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from broker.protocol import codec
from device_client import keystore
from device_client.agent import Agent, utc_now
from device_client.arguments import Command, Options, parse
from device_client.disk import on_disk
from device_client.enrollment import Enrollment, bundle_from, checked
from device_client.errors import (
    BundleInvalid,
    DeviceError,
    RequestRejected,
    SerialMissing,
    StateLocked,
    StateMissing,
    TimedOut,
)
from device_client.hardware import hardware_serial
from device_client.keys import KeyType
from device_client.keystore import Keystore
from device_client.settings import Timing
from device_client.status_note import StatusFile
from device_client.timekeeping import CLOCK_FILE, Timekeeper

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

FAILED: Final = 1
REFUSED: Final = 3
TIMED_OUT: Final = 4
LOCKED: Final = 5

_TLS_BUFFER: Final = 16_384
"""As much as one record of TLS holds (RFC 8446, 5.1). asyncio fills 256 KiB with zeros for each
connection; a device has no need of them. Only this process: a library's user chooses himself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status is 0, or one that docs/device.md lists."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    SSLProtocol.max_size = _TLS_BUFFER
    try:
        ended = _COMMANDS[options.command](options)
        sys.stdout.flush()
        return ended
    except BrokenPipeError:
        return _left_quietly()
    except DeviceError as error:
        print(f"muster-device: {error.stable_code}: {error}", file=sys.stderr)
        if error.remedy:
            print(f"  {error.remedy}", file=sys.stderr)
        return _exit_status(error)


def _left_quietly() -> int:
    """Whoever read the output has seen enough; what Python still holds back goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _claim(options: Options) -> int:
    with keystore.opened(options.state) as store:
        _remember(store, options)
        _remember_updates(options)
        agent = Agent(store, StatusFile(options.state))
        timeout_s = options.timeout if options.timeout > 0 else None
        identity = _until_stopped(agent.claim(timeout_s, wait=not options.no_wait))
        if identity is None:
            return FAILED
        print(f"{identity.device_id} is a member of the fleet until {identity.not_after:%F %T} UTC")
    return 0


def _renew(options: Options) -> int:
    with keystore.opened(options.state) as store:
        agent = Agent(store, StatusFile(options.state))
        identity = _until_stopped(agent.renew(options.timeout if options.timeout > 0 else None))
        if identity is None:
            return FAILED
        print(f"{identity.device_id} has a new certificate until {identity.not_after:%F %T} UTC")
    return 0


def _run(options: Options) -> int:
    with keystore.opened(options.state) as store:
        _remember(store, options)
        _remember_updates(options)
        _until_stopped(_life(store, options))
    return 0


async def _life(store: Keystore, options: Options) -> None:
    timekeeper = Timekeeper(options.state / CLOCK_FILE, utc_now)
    note = StatusFile(options.state)
    if not (options.state / "update").is_dir():
        await Agent(store, note, timekeeper=timekeeper).run()
        return
    # Loaded only where there are updates: a device at rest has little memory.
    from device_client.update import entry

    try:
        duty = await on_disk(entry.prepare, store, timekeeper, Timing())
    except DeviceError as error:
        # A device that can't be updated is still a member, and can be reached to be mended.
        log.error("no updates: %s: %s %s", error.stable_code, error, error.remedy)
        duty = None
    duties = [duty] if duty else []
    await entry.beside(duty, Agent(store, note, duties=duties, timekeeper=timekeeper).run())


def _remember_updates(options: Options) -> None:
    given = (options.model, options.hw_rev, options.update_config, options.update_root)
    if any(each is not None for each in given):
        from device_client.update import entry

        entry.remember(options.state, options)


def _status(options: Options) -> int:
    if not options.state.is_dir():
        raise StateMissing(
            f"There is no state directory {options.state}.",
            "Correct --state DIR; 'muster-device claim' makes a new device's.",
        )
    # An agent, which lives long, does without what only this command needs.
    from device_client import status, status_shown

    report = status.report(options.state)
    if options.json:
        print(codec.encode(report).decode())
    else:
        print(status_shown.for_people(report))
    return 0


def _remember(store: Keystore, options: Options) -> None:
    """Merges the command line into what is remembered; what isn't given stays as it was."""
    known = store.enrollment_if_readable()
    if options.bundle is not None:
        bundle = bundle_from(options.bundle)
    elif known is not None:
        bundle = known.bundle
    elif store.current() is not None:
        return
    else:
        raise BundleInvalid(
            "This device has no claim bundle.", "Give the maker's bundle with --bundle FILE."
        )
    claim = Enrollment(
        bundle=bundle,
        serial=options.serial or (known.serial if known else _own_serial()),
        parameters=dict(options.parameter) or (known.parameters if known else {}),
        key_type=options.key_type or (known.key_type if known else KeyType.P256),
    )
    store.remember(checked(claim))


def _own_serial() -> str:
    serial = hardware_serial()
    if serial is None:
        raise SerialMissing(
            "This hardware reports no serial number that means anything.",
            "Give the device's serial number with --serial.",
        )
    return serial


def _until_stopped(work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """The result, or none when SIGTERM or SIGINT ended it in good order."""

    async def stoppable() -> ResultT:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("stopped")
        return None


def _exit_status(error: DeviceError) -> int:
    match error:
        case RequestRejected():
            return REFUSED
        case TimedOut():
            return TIMED_OUT
        case StateLocked():
            return LOCKED
        case _:
            return FAILED


_COMMANDS: Final[dict[Command, Callable[[Options], int]]] = {
    Command.CLAIM: _claim,
    Command.RENEW: _renew,
    Command.RUN: _run,
    Command.STATUS: _status,
}
