"""Whether a device whose turn has come is told, and what."""

from dataclasses import dataclass

from broker.core.fitting import Unfit, choose
from broker.core.lifecycle import MEMBERS, DeviceState
from broker.core.records import Device
from broker.core.rollout import Image, Rollout
from broker.core.update_records import DeviceUpdate, Part

MAY_BE_TOLD = MEMBERS | {DeviceState.SUSPENDED}
"""One that is suspended is told now, and hears it when it's let in again."""
AGAIN = "again"
"""The code of a part that the operator has put back into the queue."""
GONE = "device_gone"
SUPERSEDED = "superseded"
ROLLED_BACK_BEFORE = "rolled_back_before"
RUNS_ALREADY = "runs_already"


@dataclass(frozen=True)
class Tell:
    """It's told to run these."""

    images: tuple[Image, ...]


@dataclass(frozen=True)
class Skip:
    """It isn't told, for the reason `code`."""

    code: str


def offer(rollout: Rollout, part: Part, device: Device | None, known: DeviceUpdate) -> Tell | Skip:
    """What becomes of a part at the head of the queue.

    A device that runs all of it already is left alone. One that has rolled an image back is offered
    any other, but the same one only when the operator says so.
    """
    if device is None or device.state not in MAY_BE_TOLD:
        return Skip(GONE)
    is_again = part.code == AGAIN
    if known.rollout_number > rollout.number and not is_again:
        return Skip(SUPERSEDED)
    try:
        images = choose(rollout.images, device.parameters)
    except Unfit as unfit:
        return Skip(unfit.code)
    insists = rollout.again or is_again
    # A path is never taken twice, so it says which image it is.
    if all(image.path in known.running for image in images) and not insists:
        return Skip(RUNS_ALREADY)
    failed_before = any(image.sha256 in known.rolled_back for image in images)
    if failed_before and not insists:
        return Skip(ROLLED_BACK_BEFORE)
    return Tell(images)
