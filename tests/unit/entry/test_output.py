"""What commands print can't steer a terminal, and is the same JSON all the same."""

import json

import pytest

from broker.entry.cli import output

STEERING = "\x1b[2J \x9b31m \x7f \u202e \u2066 \U000e0001 \ud7ff é 漢 🙂"


def test_json_is_the_same_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"said": STEERING, "more": [1, None, "plain"]})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert json.loads(line) == {"said": STEERING, "more": [1, None, "plain"]}
    assert "é 漢 🙂" in line
