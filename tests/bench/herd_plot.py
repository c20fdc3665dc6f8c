"""Curves as SVG, drawn by hand: counts on a logarithmic scale, legible on light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_WIDTH: Final = 760
_LEFT: Final = 60
_RIGHT: Final = 20
_PANEL: Final = 190
_PLOT: Final = 120
_TOP: Final = 58
_TICKS: Final = (1, 10, 100, 1000, 10_000)
_STYLE: Final = """
  text { font: 12px sans-serif; fill: #24292f; }
  .title { font-weight: bold; }
  .grid { stroke: #8c959f; stroke-width: 0.5; opacity: 0.6; }
  .rule { stroke: #0969da; fill: none; stroke-width: 1.5; }
  .other { stroke: #cf222e; fill: none; stroke-width: 1.5; stroke-dasharray: 4 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .rule { stroke: #58a6ff; }
    .other { stroke: #ff7b72; }
  }
"""


@dataclass(frozen=True)
class Series:
    """One curve: what is measured at each place."""

    name: str
    points: Sequence[tuple[float, float]]
    is_rule: bool
    """Whether it shows Muster's own rule, or what is compared with it."""


@dataclass(frozen=True)
class Panel:
    """Curves over one axis."""

    title: str
    axis: str
    series: Sequence[Series]


def picture(unit: str, panels: Sequence[Panel]) -> str:
    """All panels, one below the other.

    Args:
        unit: what the vertical axes count.
        panels: at least one.
    """
    height = _TOP + _PANEL * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{unit}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="20">{unit}, logarithmic</text>',
    ]
    for number, panel in enumerate(panels):
        lines += _panel(panel, _TOP + number * _PANEL)
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    last = max(x for series in panel.series for x, _ in series.points)
    bottom = top + _PLOT
    lines = [f'<text class="title" x="{_LEFT}" y="{top - 14}">{panel.title}</text>']
    for tick in _TICKS:
        y = _y(tick, top)
        lines.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:,}</text>')
    for part in range(5):
        x = last * part / 4
        place = _x(x, last)
        lines.append(f'<text x="{place}" y="{bottom + 16}" text-anchor="middle">{x:.0f}</text>')
    lines.append(f'<text x="{_LEFT}" y="{bottom + 32}">{panel.axis}</text>')
    for number, series in enumerate(panel.series):
        lines += _curve(series, number, last, top)
    return lines


def _curve(series: Series, number: int, last: float, top: int) -> list[str]:
    kind = "rule" if series.is_rule else "other"
    begin = _WIDTH - _RIGHT - 330 + 170 * number
    y = top + _PLOT + 28
    points = " ".join(f"{_x(x, last)},{_y(value, top)}" for x, value in series.points)
    return [
        f'<polyline class="{kind}" points="{points}"/>',
        f'<line class="{kind}" x1="{begin}" y1="{y}" x2="{begin + 24}" y2="{y}"/>',
        f'<text x="{begin + 30}" y="{y + 4}">{series.name}</text>',
    ]


def _x(x: float, last: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * x / last, 1)


def _y(value: float, top: int) -> float:
    """Zero lies a little below one: a logarithm has no place for it."""
    highest = math.log10(_TICKS[-1])
    share = (math.log10(value) if value >= 1 else -0.15) / highest
    return round(top + _PLOT * (1 - share), 1)
