"""Every code is explained, and what is masked stays masked."""

import pytest

from broker.protocol.codes import EXPLANATIONS, Code, Refused, operators_remedy, public

ABOUT_SERIALS = {Code.SERIAL_UNKNOWN, Code.SERIAL_TAKEN, Code.DEVICE_BLOCKED, Code.NAME_TAKEN}
ABOUT_RECOVERY = {
    Code.RECOVERY_UNKNOWN,
    Code.RECOVERY_OTHER_GROUP,
    Code.RECOVERY_BLOCKED,
    Code.RECOVERY_SUPERSEDED,
    Code.RECOVERY_WINDOW_PASSED,
}
MASKED = {
    **dict.fromkeys(ABOUT_SERIALS, Code.SERIAL_REFUSED),
    **dict.fromkeys(ABOUT_RECOVERY, Code.RECOVERY_REFUSED),
}


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_sentence_and_a_remedy(code: Code) -> None:
    explanation = EXPLANATIONS[code]
    for sentence in (explanation.message, explanation.remedy):
        assert sentence[0].isupper()
        assert sentence.endswith(".")


@pytest.mark.parametrize("code", Code)
def test_a_code_is_written_in_snake_case(code: Code) -> None:
    assert code.value == code.name.lower()


@pytest.mark.parametrize("code", Code)
def test_only_what_tells_about_serial_numbers_and_devices_is_masked(code: Code) -> None:
    assert public(code) is MASKED.get(code, code)


@pytest.mark.parametrize("code", Code)
def test_an_operator_is_told_what_to_do_about_what_the_device_isn_t_told(code: Code) -> None:
    remedy = operators_remedy(code, "lamp-A1")
    assert (remedy is None) is (code not in MASKED)
    assert " ID'" not in (remedy or "")


def test_what_is_to_be_typed_names_the_device() -> None:
    said = operators_remedy(Code.RECOVERY_WINDOW_PASSED, "lamp-A1")
    assert said is not None
    assert "'muster devices approve-recovery lamp-A1'" in said
    assert operators_remedy(Code.RECOVERY_WINDOW_PASSED) != said


@pytest.mark.parametrize("code", Code)
def test_a_public_code_is_its_own_public_code(code: Code) -> None:
    assert public(public(code)) is public(code)


def test_a_refusal_reads_as_its_detail_or_else_its_explanation() -> None:
    assert str(Refused(Code.BUSY, "Come back.")) == "busy: Come back."
    assert str(Refused(Code.BUSY)) == f"busy: {EXPLANATIONS[Code.BUSY].message}"
