"""Name templates: what they are, what they give, and that they keep devices apart."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.core.naming import derive_name, parse_template
from broker.protocol.codes import Code, Refused
from broker.protocol.names import SerialNumber, is_issuable

SERIALS = st.from_regex(r"\A[A-Za-z0-9_.:-]{1,20}\Z")
FIELDS = st.sampled_from(["{serial}", "{model}", "{colour}"])
LITERALS = st.from_regex(r"\A[A-Za-z0-9_-]{1,5}\Z")
TEMPLATES = st.lists(FIELDS | LITERALS, max_size=6).map("".join).filter(lambda t: "{serial}" in t)
PARAMETERS = st.fixed_dictionaries({"model": st.text(max_size=5), "colour": st.text(max_size=5)})


def name_of(template: str, serial: str, /, **parameters: str) -> str:
    return derive_name(parse_template(template), SerialNumber(serial), parameters)


def code_of(template: str, serial: str, /, **parameters: str) -> Code:
    with pytest.raises(Refused) as refused:
        name_of(template, serial, **parameters)
    return refused.value.code


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{serial}", "A1"),
        ("lamp-{serial}", "lamp-A1"),
        ("{serial}-lamp", "A1-lamp"),
        ("{model}_{serial}", "x9_A1"),
        ("{serial}{serial}", "A1A1"),
        ("-{serial}-", "-A1-"),
    ],
)
def test_fields_are_replaced_and_the_rest_stays(template: str, name: str) -> None:
    assert name_of(template, "A1", model="x9") == name


@pytest.mark.parametrize(
    "template",
    [
        "",
        "lamp",
        "{model}",
        "{serial",
        "serial}",
        "{}",
        "{{serial}}",
        "{Serial}",
        "{ serial }",
        "{serial!r}",
        "{serial:>9}",
        "{serial.x}",
        "lamp {serial}",
        "lamp/{serial}",
        "{serial}\n",
        "{" + "m" * 33 + "}{serial}",
        "é{serial}",
    ],
)
def test_not_a_template(template: str) -> None:
    with pytest.raises(ValueError, match="serial"):
        parse_template(template)


def test_an_unreported_parameter_is_named() -> None:
    with pytest.raises(Refused, match="'model'") as refused:
        name_of("{model}-{serial}", "A1", colour="red")
    assert refused.value.code is Code.PARAMETER_MISSING


def test_the_serial_number_can_t_be_reported_as_a_parameter() -> None:
    assert name_of("{serial}", "A1", serial="B2") == "A1"


@pytest.mark.parametrize(
    ("template", "serial", "model"),
    [
        ("{serial}", "A.1", ""),
        ("{serial}", "A:1", ""),
        ("{serial}{model}", "A", "/x"),
        ("{serial}{model}", "A", "+"),
        ("{serial}{model}", "A", "x" * 64),
        ("{model}{serial}", "x", "muster-"),
        ("{model}{serial}", "-x", "MUSTER"),
        ("muster-{serial}", "x", ""),
        ("{serial}{serial}", "x" * 33, ""),
    ],
)
def test_a_name_that_isn_t_valid_as_it_comes_out_is_refused(
    template: str, serial: str, model: str
) -> None:
    assert code_of(template, serial, model=model) is Code.NAME_INVALID


def test_a_parameter_can_be_refused_without_filling_the_log() -> None:
    with pytest.raises(Refused) as refused:
        name_of("{model}{serial}", "A", model="x" * 128)
    assert len(refused.value.detail) < 200


@given(TEMPLATES, SERIALS, PARAMETERS)
def test_what_comes_out_is_issuable_or_refused(
    template: str, serial: str, parameters: dict[str, str]
) -> None:
    try:
        name = name_of(template, serial, **parameters)
    except Refused as refused:
        assert refused.code is Code.NAME_INVALID  # noqa: PT017 - both outcomes are right
    else:
        assert is_issuable(name)
        assert serial in name


@given(TEMPLATES, SERIALS, SERIALS, st.from_regex(r"\A[A-Za-z0-9_-]{0,5}\Z"))
def test_with_the_same_parameters_no_two_serial_numbers_have_one_name(
    template: str, first: str, second: str, model: str
) -> None:
    """Each name's length gives away the serial number's, and so where it stands."""
    assume(first != second)
    try:
        names = {name_of(template, serial, model=model, colour="r") for serial in (first, second)}
    except Refused:
        return
    assert len(names) == 2


def test_with_other_parameters_two_serial_numbers_can_have_one_name() -> None:
    """Which is why the service looks a new name up before it issues it."""
    assert name_of("{model}{serial}", "1", model="ab") == name_of(
        "{model}{serial}", "b1", model="a"
    )
