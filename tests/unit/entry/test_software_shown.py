"""What an operator reads of a device's software."""

from datetime import UTC, datetime

import pytest

from broker.core.update_records import DeviceUpdate
from broker.entry.cli.software_shown import show_software, software_cells
from broker.protocol.names import DeviceId

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_what_came_from_the_factory_is_told_from_what_was_installed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = DeviceUpdate(
        DeviceId("lamp-1"),
        running={"main": "1.0", "lamp/radio/2.1/radio.bin": "2.1"},
        reported_at=NOW,
    )
    assert software_cells(known, NOW) == ("1.0, 2.1", "-")
    show_software(known, [], NOW)
    said = " ".join(capsys.readouterr().out.split())
    assert "main 1.0 (from the factory)" in said
    assert "lamp/radio/2.1/radio.bin (2.1)" in said
