"""The picture of the herd is what the rules give today, and the same on every machine."""

import xml.etree.ElementTree as ET

from tests.bench import rotation_herd
from tests.bench.report import Verdict


def test_the_picture_is_that_of_the_rules() -> None:
    herds = rotation_herd.simulate()
    plot = rotation_herd.plot(herds)
    assert rotation_herd.PLOT.read_text(encoding="utf-8") == plot, (
        "docs/rotation-herd.svg is outdated: python -m tests.bench.rotation_herd"
    )
    ET.fromstring(plot)  # noqa: S314 - our own
    assert {row.verdict for row in rotation_herd.rows(herds)} <= {Verdict.HOLDS, Verdict.STATED}


def test_another_seed_gives_another_herd_that_is_no_worse() -> None:
    herds = rotation_herd.simulate(seed=1)
    assert herds.paced != rotation_herd.simulate().paced
    verdicts = {row.verdict for row in rotation_herd.rows(herds)}
    assert verdicts <= {Verdict.HOLDS, Verdict.STATED}
