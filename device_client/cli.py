"""The command `muster-device`: claim, renew, run, status."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from broker.protocol import codec
from device_client import keystore, status
from device_client.agent import CLOCK_FILE, Agent, utc_now
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
from device_client.settings import Timing, default_state_directory
from device_client.status import Report, Software, StatusFile
from device_client.timekeeping import Standing, Timekeeper

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

FAILED: Final = 1
REFUSED: Final = 3
TIMED_OUT: Final = 4
LOCKED: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status is 0, or one that docs/device.md lists."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    try:
        ended = int(options.command(options))
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


def _claim(options: argparse.Namespace) -> int:
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


def _renew(options: argparse.Namespace) -> int:
    with keystore.opened(options.state) as store:
        agent = Agent(store, StatusFile(options.state))
        identity = _until_stopped(agent.renew(options.timeout if options.timeout > 0 else None))
        if identity is None:
            return FAILED
        print(f"{identity.device_id} has a new certificate until {identity.not_after:%F %T} UTC")
    return 0


def _run(options: argparse.Namespace) -> int:
    with keystore.opened(options.state) as store:
        _remember(store, options)
        _remember_updates(options)
        _until_stopped(_life(store, options))
    return 0


async def _life(store: Keystore, options: argparse.Namespace) -> None:
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


def _remember_updates(options: argparse.Namespace) -> None:
    given = (options.model, options.hw_rev, options.update_config, options.update_root)
    if any(each is not None for each in given):
        from device_client.update import entry

        entry.remember(options.state, options)


def _status(options: argparse.Namespace) -> int:
    if not options.state.is_dir():
        raise StateMissing(
            f"There is no state directory {options.state}.",
            "Correct --state DIR; 'muster-device claim' makes a new device's.",
        )
    report = status.report(options.state)
    if options.json:
        print(codec.encode(report).decode())
    else:
        print(_for_people(report))
    return 0


def _remember(store: Keystore, options: argparse.Namespace) -> None:
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


def _for_people(report: Report) -> str:
    lines = {
        "membership": report.membership,
        "agent": report.activity,
        "serial number": report.serial,
        "device id": report.device_id,
        "certificate": report.certificate_serial,
        "proven": _proven(report),
        "valid until": _time(report.not_after),
        "renewal due": _time(report.renewal_due),
        "successor": f"{report.successor}, not proven yet" if report.successor else None,
        "recovery": "asked for, as the certificate has expired" if report.is_recovering else None,
        "clock": None if report.clock is Standing.BELIEVED else f"not believed: {report.clock}",
        "fleet broker": f"{report.fleet.host}:{report.fleet.port}" if report.fleet else None,
        **(_of_software(report.software) if report.software else {}),
    }
    text = [f"{name + ':':15} {value}" for name, value in lines.items() if value is not None]
    if (error := report.last_error) is not None:
        text += [f"last error:     {error.code} at {error.at:%F %T} UTC", f"  {error.message}"]
        text += [f"  {error.remedy}"] if error.remedy else []
    return "\n".join(text)


def _of_software(software: Software) -> dict[str, str | None]:
    refusal = software.refusal
    running = ", ".join(f"{name} {version}" for name, version in software.running.items())
    pending = f"{software.rollout}, {software.stage}: {', '.join(software.coming)}"
    return {
        "runs": f"{running} (security counter {software.security_counter})",
        "supported": _support(software.support_until),
        "update": pending if software.rollout else None,
        "to report": str(software.unsent_reports) if software.unsent_reports else None,
        "refused": f"{refusal.code} at {_time(refusal.at)}: {refusal.message} {refusal.remedy}"
        if refusal
        else None,
    }


def _support(until: datetime | None) -> str | None:
    if until is None:
        return None
    return f"until {_time(until)}{', which is over' if until < utc_now() else ''}"


def _proven(report: Report) -> str | None:
    if report.confirmed_at is None:
        return None
    return f"{_time(report.confirmed_at)}, by {report.origin}"


def _time(moment: datetime | None) -> str | None:
    return f"{moment:%F %T} UTC" if moment else None


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} isn't NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="muster-device", description="The agent that makes this device a member of a fleet."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state",
        type=Path,
        default=default_state_directory(),
        metavar="DIR",
        help="where keys and certificates are kept (default: %(default)s)",
    )
    common.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    claim = commands.add_parser("claim", parents=[common], help="become a member, then end")
    _add_claim_options(claim)
    _add_timeout(claim)
    claim.add_argument("--no-wait", action="store_true", help="try once only")
    claim.set_defaults(command=_claim)

    renew = commands.add_parser(
        "renew", parents=[common], help="replace the certificate now, while no agent runs"
    )
    _add_timeout(renew)
    renew.set_defaults(command=_renew)

    run = commands.add_parser("run", parents=[common], help="become a member and stay connected")
    _add_claim_options(run)
    run.set_defaults(command=_run)

    show = commands.add_parser("status", parents=[common], help="how far this device has come")
    show.add_argument("--json", action="store_true", help="for programs")
    show.set_defaults(command=_status)
    return parser


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="give up after so long; 0 is never (default: %(default)g)",
    )


def _add_claim_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", type=Path, metavar="FILE", help="the maker's claim bundle; remembered"
    )
    parser.add_argument(
        "--serial", help="this device's serial number (default: what the hardware reports)"
    )
    parser.add_argument(
        "--parameter",
        type=_parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="reported to the service for its name rule; may be repeated",
    )
    parser.add_argument(
        "--key-type", type=KeyType, choices=list(KeyType), help="of a new key (default: p256)"
    )
    _add_update_options(parser.add_argument_group("updates, remembered"))


def _add_update_options(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--model", help="what this device is; without it there are no updates")
    group.add_argument("--hw-rev", metavar="NAME", help="its hardware revision")
    group.add_argument(
        "--update-config",
        type=Path,
        metavar="FILE",
        help="its components and their slots, health check and restart (docs/updates.md)",
    )
    group.add_argument(
        "--update-root",
        type=Path,
        metavar="FILE",
        help="the update repository's first root, in place of the claim bundle's",
    )
