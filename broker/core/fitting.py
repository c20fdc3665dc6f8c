"""Which of a rollout's images a device is told to run, by what is known of it here.

It spares a device what it would refuse; the decision is the device's, which knows itself better.
"""

from collections.abc import Mapping, Sequence

from broker.core.rollout import Image

MODEL = "model"
HARDWARE_REVISION = "hw_rev"
"""Names of the parameters that a device gives when it claims."""


class Unfit(Exception):
    """No image can be chosen; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def choose(images: Sequence[Image], parameters: Mapping[str, str]) -> tuple[Image, ...]:
    """One image for each component that has one for this device, in the order of `images`.

    Args:
        images: a rollout's.
        parameters: what the device said of itself when it claimed.

    Raises:
        Unfit: `no_image_fits`; or `device_model_unknown` when several might.
    """
    fitting = [image for image in images if _fits(image, parameters)]
    if not fitting:
        raise Unfit("no_image_fits")
    components = [image.facts.component for image in fitting]
    if len(set(components)) < len(components):
        raise Unfit("device_model_unknown")
    return tuple(fitting)


def _fits(image: Image, parameters: Mapping[str, str]) -> bool:
    model, revision = parameters.get(MODEL), parameters.get(HARDWARE_REVISION)
    if model is not None and model != image.facts.model:
        return False
    revisions = image.facts.hw_revs
    return revision is None or not revisions or revision in revisions


def ambiguous(images: Sequence[Image]) -> tuple[Image, Image] | None:
    """Two images between which no device could be told apart; none when there aren't any."""
    for number, one in enumerate(images):
        for other in images[number + 1 :]:
            if _overlap(one, other):
                return one, other
    return None


def _overlap(one: Image, other: Image) -> bool:
    a, b = one.facts, other.facts
    if (a.component, a.model) != (b.component, b.model):
        return False
    return not a.hw_revs or not b.hw_revs or bool(set(a.hw_revs) & set(b.hw_revs))
