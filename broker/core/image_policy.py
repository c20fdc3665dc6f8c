"""Whether an image may join those that its model has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from broker.protocol.updates import ImageFacts
from broker.protocol.versions import parse_version


class Objection(StrEnum):
    """Why it may not."""

    INVALID = "invalid"
    EXISTS = "exists"
    COUNTER_TOO_LOW = "counter_too_low"


class ImageRefused(Exception):
    """The image may not join the others."""

    def __init__(self, objection: Objection, message: str) -> None:
        super().__init__(message)
        self.objection = objection


@dataclass(frozen=True)
class Image:
    """An image by its content and what is said of it."""

    path: str
    sha256: str
    facts: ImageFacts


def admit(new: Image, others: Sequence[Image], *, allow_lower_counter: bool = False) -> None:
    """Returns when `new` may join `others`, the same model's images. Exactly the same image may
    be there already.

    Args:
        allow_lower_counter: for a model whose devices never ran the image with the higher one.

    Raises:
        ImageRefused: the facts contradict themselves, the path or the version is taken, or the
            security counter would fall from one version to a later one.
    """
    _check_facts(new.facts)
    rest = [image for image in others if image != new]
    for image in rest:
        if image.path == new.path:
            message = f"{new.path} is there already, with another content or other facts"
            raise ImageRefused(Objection.EXISTS, message)
        if _is_same_version(image.facts, new.facts):
            message = f"version {new.facts.version} is there already: {image.path}"
            raise ImageRefused(Objection.EXISTS, message)
    if not allow_lower_counter:
        _check_counter(new, rest)


def _check_facts(facts: ImageFacts) -> None:
    try:
        versions = (facts.version, facts.min_source_version, *facts.depends.values())
        for text in versions:
            if text is not None:
                parse_version(text)
    except ValueError as error:
        raise ImageRefused(Objection.INVALID, str(error)) from error
    if facts.component in facts.depends:
        message = f"{facts.component} can't depend on itself; that is what min_source_version says"
        raise ImageRefused(Objection.INVALID, message)


def _is_same_version(one: ImageFacts, other: ImageFacts) -> bool:
    """Whether some device could be meant by both."""
    if one.component != other.component:
        return False
    if parse_version(one.version) != parse_version(other.version):
        return False
    return not one.hw_revs or not other.hw_revs or bool({*one.hw_revs} & {*other.hw_revs})


def _check_counter(new: Image, others: Iterable[Image]) -> None:
    version = parse_version(new.facts.version)
    for other in others:
        if other.facts.component != new.facts.component:
            continue
        earlier, later = (
            (other, new) if parse_version(other.facts.version) < version else (new, other)
        )
        if later.facts.security_counter < earlier.facts.security_counter:
            raise ImageRefused(
                Objection.COUNTER_TOO_LOW,
                f"the security counter would fall from {earlier.facts.security_counter} in "
                f"{earlier.facts.version} to {later.facts.security_counter} in "
                f"{later.facts.version}: devices that ran the former refuse the latter",
            )
