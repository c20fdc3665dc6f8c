"""Which images may stand beside each other."""

from dataclasses import replace

import pytest

from broker.core.image_policy import Image, ImageRefused, Objection, admit
from broker.protocol.updates import ImageFacts


def image(version: str = "1.0.0", counter: int = 1, *, sha256: str = "", **facts: object) -> Image:
    said = ImageFacts(
        model="meter",
        version=version,
        security_counter=counter,
        **facts,  # type: ignore[arg-type]
    )
    return Image(f"meter/{version}/fw.bin", sha256 or "0" * 64, said)


def refusal(new: Image, *others: Image) -> Objection | None:
    try:
        admit(new, others)
    except ImageRefused as error:
        return error.objection
    return None


def test_the_first_is_admitted() -> None:
    admit(image(), [])


def test_the_same_once_more_is_admitted() -> None:
    admit(image(), [image()])


def test_the_same_path_with_another_content_is_refused() -> None:
    assert refusal(image(sha256="1" * 64), image()) is Objection.EXISTS


def test_the_same_path_with_other_facts_is_refused() -> None:
    assert refusal(image(notes="better"), image()) is Objection.EXISTS


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((), (), Objection.EXISTS),
        (("A",), (), Objection.EXISTS),
        (("A", "B"), ("B", "C"), Objection.EXISTS),
        (("A",), ("B",), None),
    ],
)
def test_a_version_is_there_once_for_each_hardware(
    one: tuple[str, ...], other: tuple[str, ...], expected: Objection | None
) -> None:
    taken = replace(image("1.0", hw_revs=other), path="meter/1.0/other.bin")
    assert refusal(image("1.0.0", hw_revs=one), taken) is expected


def test_components_have_versions_of_their_own() -> None:
    assert refusal(image(), replace(image(component="radio"), path="meter/radio/1/x")) is None


@pytest.mark.parametrize(
    ("new", "there", "expected"),
    [
        (("2.0", 1), ("1.0", 2), Objection.COUNTER_TOO_LOW),
        (("2.0", 2), ("1.0", 2), None),
        (("2.0", 3), ("1.0", 2), None),
        (("1.0", 3), ("2.0", 2), Objection.COUNTER_TOO_LOW),
        (("1.0", 1), ("2.0", 2), None),
        (("1.10", 1), ("1.9", 2), Objection.COUNTER_TOO_LOW),
    ],
)
def test_the_security_counter_never_falls(
    new: tuple[str, int], there: tuple[str, int], expected: Objection | None
) -> None:
    assert refusal(image(*new), image(*there)) is expected


def test_a_lower_counter_is_admitted_when_the_operator_says_so() -> None:
    admit(image("2.0", 1), [image("1.0", 2)], allow_lower_counter=True)


def test_a_component_cannot_depend_on_itself() -> None:
    assert refusal(image(depends={"main": "1.0"})) is Objection.INVALID


def test_a_version_without_an_order_is_refused() -> None:
    assert refusal(image("1.0-a..b")) is Objection.INVALID
    assert refusal(image(min_source_version="1.0-")) is Objection.INVALID
