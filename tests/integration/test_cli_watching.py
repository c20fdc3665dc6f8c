"""Who watches from a terminal sees a bar that moves and fits, and may leave at any time."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.campaign import CampaignId
from broker.core.lifecycle import CertificateState
from broker.core.rollout import Progress
from broker.core.update_records import Part
from broker.entry.cli.main import run
from broker.ports.registry import WriteTransaction
from broker.protocol.names import DeviceId
from tests.support.records import NOW
from tests.support.registries import add_batch, add_member, certificate_number
from tests.support.terminals import Terminal, terminal

CTRL_C = b"\x03"
CTRL_C_STATUS = 130
"""As shells have it: 128 and the signal's number."""
LEFT = "38;5;237"
"""The colour of a bar's rest."""


@dataclass(frozen=True)
class Watched:
    """A command that watches, and what sets how many of its two devices are done."""

    words: tuple[str, ...]
    stand: Callable[[WriteTransaction, int], None]


def rollout_at(tx: WriteTransaction, done: int) -> None:
    for number in (1, 2):
        progress = Progress.INSTALLED if number <= done else Progress.QUEUED
        tx.save_part(Part("r1", DeviceId(f"lamp-{number}"), progress, NOW))


def campaign_at(tx: WriteTransaction, done: int) -> None:
    campaign = tx.campaign(CampaignId(1))
    assert campaign is not None
    tx.save_campaign(replace(campaign, is_listed=True, waiting=2 - done, done=done))


def rollover_at(tx: WriteTransaction, done: int) -> None:
    for number in (1, 2):
        generation = 2 if number <= done else 1
        proven = {"state": CertificateState.ACTIVE, "confirmed_at": NOW}
        tx.save_certificate(certificate_number(number, generation=generation, **proven))


WATCHED = {
    "rollout": Watched(("update", "rollout", "r1", "--watch"), rollout_at),
    "newest": Watched(("update", "status", "--watch"), rollout_at),
    "campaign": Watched(("rotate", "status", "--watch"), campaign_at),
    "rollover": Watched(("ca", "rollover", "status", "--watch"), rollover_at),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members, and all that can be watched under way."""
    folder = tmp_path_factory.mktemp("operator")
    home, keys, image = folder / "home", folder / "keys", folder / "firmware.bin"
    image.write_text("firmware")

    def muster(*arguments: str | Path) -> None:
        assert run(["--home", str(home), *map(str, arguments)]) == 0

    muster("init", home)
    muster("update", "init", "--keys", keys, "--no-passphrase")
    facts = ("--model", "meter", "--version", "1.0.0", "--security-counter", "1")
    muster("update", "add", image, *facts)
    muster("update", "sign", "--yes", "--key", keys / "targets-1.key")
    muster("update", "publish")
    write(home, _add_fleet)
    muster("update", "push", "meter/1.0.0/firmware.bin", "--all", "--name", "r1")
    muster("rotate", "start", "--all")
    muster("ca", "rollover", "start")
    return home


def _add_fleet(tx: WriteTransaction) -> None:
    add_batch(tx)
    add_member(tx, 1)
    add_member(tx, 2)


def write(home: Path, work: Callable[[WriteTransaction], None]) -> None:
    async def act() -> None:
        async with SqlRegistry(f"sqlite:///{home / 'registry.db'}") as registry:
            await registry.write(work)

    asyncio.run(act())


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("what", WATCHED)
def test_a_bar_moves_and_fits_and_ctrl_c_ends_it(home: Path, what: str, columns: int) -> None:
    watched = WATCHED[what]
    write(home, lambda tx: watched.stand(tx, 0))
    with terminal(columns, "--home", home, *watched.words) as screen:
        screen.until(lambda lines: any("0/2" in line for line in lines))
        write(home, lambda tx: watched.stand(tx, 1))
        screen.until(lambda lines: any("1/2" in line for line in lines))
        screen.press(CTRL_C)
        assert screen.end() == CTRL_C_STATUS, screen.lines
        assert filled(screen, "0/2") == 0
        assert filled(screen, "1/2") > 0
        assert max(map(len, screen.lines)) <= columns
        assert "Traceback" not in screen.raw
        assert [line for line in screen.lines if line][-1].startswith("No longer watched")
        screen.assert_left_as_it_was()


def filled(screen: Terminal, at: str) -> int:
    """How much of the bar isn't in the colour of what is left."""
    line = next(line for line in screen.coloured if at in line)
    parts = re.findall(r"\x1b\[([0-9;]+)m[╺╸]?(━+)", line)
    return sum(len(bar) for colour, bar in parts if colour != LEFT)
