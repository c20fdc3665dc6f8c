"""`muster enroll` as an operator types it: what is on the list by mistake, and gets off it."""

import asyncio
from pathlib import Path

import pytest

from broker.adapters.registry import SqlRegistry
from tests.support.commands import Operator
from tests.support.records import a_device
from tests.support.registries import add_batch

ON_LAMPS = ("--group", "lamps")


@pytest.fixture
def operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    """An operator with a group, on whose list A1 (which a device has), A2 and A3 are."""
    for name in ("MUSTER_HOME", "MUSTER_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    operator = Operator(tmp_path / "home", tmp_path, capsys)
    operator.succeeds("init", operator.home)
    asyncio.run(_add_batch(operator))
    file = operator.file("serials.csv", "serial\nA1\nA2\nA3\n")
    operator.succeeds("enroll", "import", file, *ON_LAMPS)
    return operator


async def _add_batch(operator: Operator) -> None:
    async with SqlRegistry(f"sqlite:///{operator.home / 'registry.db'}") as registry:
        await registry.write(add_batch)
        await registry.write(lambda tx: tx.save_device(a_device()))


def listed(operator: Operator) -> list[str]:
    found = operator.succeeds("enroll", "list", *ON_LAMPS, "--json").json()
    return [each["serial"] for each in found]


def test_a_dry_run_counts_what_is_there_already(operator: Operator) -> None:
    again = ("enroll", "import", operator.folder / "serials.csv", *ON_LAMPS, "--dry-run")
    assert "0 serial numbers would be imported" in operator.succeeds(*again).out
    more = operator.file("more.csv", "serial\nA3\nB1\nB1\n")
    (tried,) = operator.succeeds("enroll", "import", more, *ON_LAMPS, "--dry-run", "--json").json()
    (done,) = operator.succeeds("enroll", "import", more, *ON_LAMPS, "--json").json()
    assert tried == {"group": "lamps", "dry_run": True, "added": 1, "known": 2, "bad": 0}
    assert done == {**tried, "dry_run": False}


def test_a_misspelled_header_is_imported_by_nobody(operator: Operator) -> None:
    file = operator.file("typo.csv", "seriel\nB1\n")
    refused = operator("enroll", "import", file, *ON_LAMPS)
    assert refused.status == 1
    assert "'seriel'" in refused.err
    assert "put a line 'serial' above it" in refused.err
    assert listed(operator) == ["A1", "A2", "A3"]


def test_what_was_imported_by_mistake_is_taken_off_again(operator: Operator) -> None:
    remove = ("enroll", "remove", *ON_LAMPS, "A2")
    (tried,) = operator.succeeds(*remove, "--dry-run", "--json").json()
    assert tried == {
        "group": "lamps",
        "dry_run": True,
        "removed": ["A2"],
        "claimed": [],
        "unknown": [],
    }
    assert listed(operator) == ["A1", "A2", "A3"]
    assert operator.succeeds(*remove).out == "1 serial number removed.\n"
    assert listed(operator) == ["A1", "A3"]
    (event,) = operator.succeeds("events", "--json", "--kind", "enrollments.removed").json()
    assert (event["group"], event["serial"]) == ("lamps", "A2")
    again = operator(*remove)
    assert (again.status, "Not on the list: A2" in again.err) == (1, True)


def test_a_whole_import_is_taken_back_but_for_what_a_device_has(operator: Operator) -> None:
    remove = ("enroll", "remove", *ON_LAMPS, "--file", operator.folder / "serials.csv")
    done = operator(*remove)
    assert done.status == 1
    assert done.out == "2 serial numbers removed.\n"
    assert "A device has: A1" in done.err
    assert "muster devices retire" in done.err
    assert listed(operator) == ["A1"]


def test_nothing_is_removed_by_half_a_command(operator: Operator) -> None:
    assert operator("enroll", "remove", *ON_LAMPS).status == 2
    assert "[group_unknown]" in operator("enroll", "remove", "--group", "nope", "A2").err
    bad = operator.file("bad.csv", "serial\nA2\nA 3\n")
    refused = operator("enroll", "remove", *ON_LAMPS, "--file", bad)
    assert "[serial_file_invalid]" in refused.err
    assert listed(operator) == ["A1", "A2", "A3"]
