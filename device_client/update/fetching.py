"""How this device fetches images: from whom, and how much in a day."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker.protocol.bundle import ClaimBundle
from broker.protocol.topics import DeviceOrigin, Operation, device_topic
from broker.protocol.updates import AssignedTarget, BlockAccepted, BlockRequest
from device_client import exchange
from device_client.exchange import Question
from device_client.online import Online
from device_client.settings import Timing
from device_client.timekeeping import Timekeeper
from device_client.update.config import DeviceConfig
from device_client.update.sink import FileSink
from device_client.update.updater import Fetch, Updater

_TIMES_A_DAY: Final = 8
"""How often an assignment's images may be fetched in a day, where the maker gives no number: as
often as it's tried. Without a bound a stolen director's key wears the flash out."""


def fetcher(
    config: DeviceConfig,
    directory: Path,
    named: tuple[str, ...],
    timekeeper: Timekeeper,
    timing: Timing,
) -> Callable[[Online, Updater], Fetch]:
    """How images are fetched on a connection; what that takes is loaded when the first one is.

    Args:
        directory: where what was fetched today is kept.
        named: the hosts that came flashed, with the claim bundle.
    """

    def on(online: Online, updater: Updater) -> Fetch:
        async def ask_block(request: BlockRequest) -> BlockAccepted:
            topic = device_topic(DeviceOrigin(online.identity.device_id), Operation.BLOCK)
            question = Question(topic, request.request_id, request, BlockAccepted)
            return await exchange.ask(online.connection, question, timing.answers_s)

        async def fetch(target: AssignedTarget, sink: FileSink) -> None:
            from device_client.fetch import plan
            from device_client.fetch.budget import DailyBudget
            from device_client.fetch.limits import FetchLimits

            limits = FetchLimits(
                hosts=allowed_hosts(config, named, online.identity.fleet.host),
                rate=config.most_rate,
                budget=DailyBudget(
                    config.most_per_day or _TIMES_A_DAY * _assigned_bytes(updater),
                    directory / "budget",
                    lambda: timekeeper.now().date(),
                    grows=config.most_per_day is None,
                ),
            )
            anchors = online.identity.trust_bundle.anchors
            await plan.fetch(target, sink, ask_block, limits, anchors)

        return fetch

    return on


def allowed_hosts(
    config: DeviceConfig, named: tuple[str, ...], fleet_host: str | None
) -> tuple[str, ...]:
    """Who is asked for images: whom the maker lists; else whom the device is told to talk to by
    its maker, and its broker's host. An assignment has no say in it."""
    from urllib.parse import urlsplit  # not before there is something to fetch

    if config.update_hosts is not None:
        return config.update_hosts
    metadata = urlsplit(config.metadata_url).hostname if config.metadata_url else None
    return tuple(dict.fromkeys(filter(None, (*named, fleet_host, metadata))))


def named_hosts(bundle: ClaimBundle | None) -> tuple[str, ...]:
    """Those that came flashed."""
    return (bundle.claim.host, *bundle.update_hosts) if bundle else ()


def _assigned_bytes(updater: Updater) -> int:
    work = updater.state.work
    return sum(image.target.length for image in work.images) if work else 0
