"""What commands print can't steer a terminal, and is the same JSON all the same."""

import io
import json

import pytest
from rich.console import Console

from broker.core.records import EventKind
from broker.entry.cli import output

STEERING = "\x1b[2J \x9b31m \x7f \u202e \u2066 \U000e0001 \ud7ff é 漢 🙂"


def test_json_is_the_same_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"said": STEERING, "more": [1, None, "plain"]})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert json.loads(line) == {"said": STEERING, "more": [1, None, "plain"]}
    assert "é 漢 🙂" in line


COLUMNS = ("at", "kind", "device", "claim", "detail")
EVENT = ("2030-06-01 12:00:00Z", "certificate.superseded", "lamp-A1", "-", "by a newer one " * 5)


def pictured(
    monkeypatch: pytest.MonkeyPatch, width: int, *rows: tuple[str, ...]
) -> tuple[str, list[str]]:
    """What a terminal of this width shows of a table: as a whole, and line by line."""
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(output, "_console", lambda **_: console)
    output.table(COLUMNS, rows, title="events")
    return screen.getvalue(), screen.getvalue().splitlines()


def test_a_terminal_is_shown_no_empty_columns_and_whole_kinds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, lines = pictured(monkeypatch, 80, EVENT, EVENT)
    assert "certificate.superseded" in text
    assert "claim" not in text
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("kind", [*EventKind])
def test_no_kind_of_event_is_broken_at_any_width(
    monkeypatch: pytest.MonkeyPatch, kind: EventKind
) -> None:
    for width in (40, 60, 80, 100):
        event = ("2030-06-01 12:00:00Z", kind.value, "lamp-A1", "batch-7", "d" * 64)
        assert kind.value in pictured(monkeypatch, width, event)[0]


def test_on_a_narrow_terminal_each_cell_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _, lines = pictured(monkeypatch, 40, EVENT, EVENT)
    assert lines[:4] == [
        "events",
        "at: 2030-06-01 12:00:00Z",
        "kind: certificate.superseded",
        "device: lamp-A1",
    ]
    assert "claim: -" not in lines


def test_a_table_of_nothing_has_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "kind" in pictured(monkeypatch, 80)[0]
    assert "at" in pictured(monkeypatch, 80, ("-",) * 5)[0]


def test_without_a_terminal_every_column_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(COLUMNS, [EVENT])
    assert [len(line.split("\t")) for line in capsys.readouterr().out.splitlines()] == [5, 5]
