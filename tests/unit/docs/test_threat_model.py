"""The threat model names tests as its evidence; they have to be there."""

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]


def _defined() -> set[str]:
    return {
        name
        for path in (_ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))
    }


def test_every_test_that_is_named_exists() -> None:
    text = (_ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 40
    assert named - _defined() == set()


def test_every_claim_has_evidence_or_says_that_it_falls_short() -> None:
    text = (_ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and " | " in line]
    bare = [r for r in rows if "`test_" not in r and "falls short" not in r.lower()]
    headings = [
        r for r in bare if r.startswith(("| The thief", "| It tries", "| Tries", "| Holds"))
    ]
    headings += [r for r in bare if r.startswith(("| Of |", "| Who |"))]
    assert set(bare) == set(headings)
