"""Reading allow-lists: which lines count, which are bad, and what is no list at all."""

import csv
import io
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.names import SerialNumber
from broker.services.problems import Problem, ProblemCode
from broker.services.serial_file import MAX_LINE, BadLine, read_serials

serials = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True).filter(
    lambda text: text.lower() != "serial"
)


def read(text: str) -> list[SerialNumber | BadLine]:
    return list(read_serials(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    "text",
    [
        "A1\nA2\n",
        "serial\nA1\nA2\n",
        "\ufeffSerial\r\nA1\r\nA2\r\n",
        "\n\nserial\n\nA1\n\nA2",
        "model,serial,made\nx,A1,2026\ny,A2,2026\n",
        '"serial"\n"A1"\n" A2 "\n',
        '{"serial": "A1"}\n\n{"serial": "A2", "model": "x"}\n',
    ],
)
def test_all_forms_say_the_same(text: str) -> None:
    assert read(text) == ["A1", "A2"]


def test_bad_lines_are_told_with_their_numbers_and_the_others_count() -> None:
    found = read('serial,model\nA1,x\nA 2,x\n\n"",x\nA3,x\n')
    assert [entry if isinstance(entry, str) else entry.number for entry in found] == [
        "A1",
        3,
        5,
        "A3",
    ]


def test_a_row_without_the_column_is_bad() -> None:
    (bad,) = read("model,serial\nx\n")
    assert isinstance(bad, BadLine)
    assert bad.number == 2


@pytest.mark.parametrize("line", ["[]", '{"serial": 7}', "{}", "nonsense", '{"serial": "a b"}'])
def test_bad_json_lines_are_told_with_their_numbers(line: str) -> None:
    found = read('{"serial": "A1"}\n' + line + "\n")
    assert found[0] == "A1"
    assert isinstance(found[1], BadLine)
    assert found[1].number == 2


@pytest.mark.parametrize(
    "text", ["model,made\nx,2026\n", "x" * (MAX_LINE + 1), 'serial\n"A1', 'serial\n"A1"x\n']
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        read(text)
    assert caught.value.code is ProblemCode.SERIAL_FILE_INVALID


@pytest.mark.parametrize("header", ["seriel", "Serial_Number", "sn", "serial-no"])
def test_a_misspelled_header_is_no_serial_number(header: str) -> None:
    with pytest.raises(Problem, match=header) as caught:
        read(f"{header}\nA1\n")
    assert caught.value.code is ProblemCode.SERIAL_FILE_INVALID
    assert "above it" in caught.value.remedy
    assert read(f"serial\n{header}\n") == [header]


def test_an_empty_file_has_no_serial_numbers() -> None:
    assert read("") == []


def test_no_more_is_read_than_is_asked_for() -> None:
    endless = (f"A{number}\n" for number in itertools.count())
    assert list(itertools.islice(read_serials(endless), 3)) == ["A0", "A1", "A2"]


@given(st.lists(serials, min_size=1))
def test_csv_keeps_every_serial_number(wanted: list[str]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["made", "serial"])
    writer.writerows(["2026", serial] for serial in wanted)
    assert read(file.getvalue()) == wanted


@given(st.lists(serials, min_size=1))
def test_json_lines_keep_every_serial_number(wanted: list[str]) -> None:
    assert read("".join(json.dumps({"serial": serial}) + "\n" for serial in wanted)) == wanted
