"""`muster up`: the service, in the foreground."""

import asyncio
import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Annotated, Final

import structlog
import typer

from broker.entry.cli.logs import LogFormat, LogLevel, configure_logs
from broker.entry.cli.options import common

if TYPE_CHECKING:
    from broker.composition.app import Muster, Running

_log = structlog.get_logger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_GRACE_S: Final = 4.0
"""How long what is in hand may take to finish after the first signal."""
_LIMIT_S: Final = 5.0
"""After this long the process ends, whatever hangs."""


def up(
    context: typer.Context,
    log_format: Annotated[LogFormat, typer.Option(help="For eyes, or for programs.")] = (
        LogFormat.AUTO
    ),
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = LogLevel.INFO,
) -> None:
    """Run the service, and the embedded brokers where the settings say so.

    Ends with status 0 on SIGTERM or Ctrl-C, within 5 seconds; at once on a second signal.
    """
    configure_logs(log_format, log_level)
    asyncio.run(serve(common(context).installation().service()))


async def serve(muster: "Muster") -> None:
    """Runs until a signal comes.

    Raises:
        Exception: what stopped the service, when no signal did.
    """
    stop = asyncio.Event()
    _stop_on_signal(stop)
    try:
        await muster.run(_announce, stop)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    _log.info("stopped")


def _announce(running: "Running") -> None:
    tune_garbage_collection()
    claim, fleet = running.claim, running.fleet
    _log.info("ready", claim=f"{claim.host}:{claim.port}", fleet=f"{fleet.host}:{fleet.port}")


def tune_garbage_collection() -> None:
    """What was made for the start stays for good: looking it over again and again took a tenth of
    the service's time (docs/benchmarks.md)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _stop_on_signal(stop: asyncio.Event) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        _log.info("stopping", signal=number.name)
        stop.set()
        # From here on a second signal ends the process even when the loop hangs.
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        if task is not None:
            loop.call_later(_GRACE_S, task.cancel)
        _end_after(_LIMIT_S)

    for each in _SIGNALS:
        loop.add_signal_handler(each, on_signal, each)


def _end_after(seconds: float) -> None:
    """A thread, since a loop that hangs can't end itself."""
    watchdog = threading.Timer(seconds, os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
