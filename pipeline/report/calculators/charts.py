"""Small charts as inline SVG: shapes with classes, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from pipeline.report.calculators.fields import Kind
from pipeline.report.calculators.figures import figure

_WIDTH: Final = 760
_LABELS: Final = 230
_VALUES: Final = 110
_ROW: Final = 30
_BAR: Final = 18
_PLOT: Final = _WIDTH - _LABELS - _VALUES
#: More would be no small chart.
BARS_MAX: Final = 24
_LABEL_CHARS_MAX: Final = 34
_HEIGHT: Final = 280
_LEFT: Final = 100
_TICKS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar, from `start_micros` to `stop_micros`, in one of two colours."""

    label: str
    stop_micros: int
    start_micros: int = 0
    is_second: bool = False
    text: str = ""


def bars(title: str, items: Sequence[Bar], *, mark_micros: int | None = None) -> str:
    """Return horizontal bars on one scale; `mark_micros` draws a line across them."""
    shown = items[:BARS_MAX]
    if not shown:
        return ""
    ends = [each for bar in shown for each in (bar.start_micros, bar.stop_micros)] + [mark_micros or 0]
    low, high = min(ends), max(ends)
    scale = _PLOT / ((high - low) or 1)

    def at(micros: int) -> float:
        return round(_LABELS + (micros - low) * scale, 2)

    pieces = []
    for number, bar in enumerate(shown):
        top = number * _ROW + (_ROW - _BAR) / 2
        left, right = sorted((at(bar.start_micros), at(bar.stop_micros)))
        label = bar.label if len(bar.label) <= _LABEL_CHARS_MAX else bar.label[: _LABEL_CHARS_MAX - 3] + "..."
        kind = "second" if bar.is_second else "first"
        pieces += [
            f'<text class="label" x="{_LABELS - 10}" y="{top + 14:g}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{max(right - left, 1):g}" height="{_BAR}" rx="3"/>',
            f'<text class="value" x="{right + 6:g}" y="{top + 14:g}">{escape(bar.text)}</text>',
        ]
    height = len(shown) * _ROW
    if mark_micros is not None:
        pieces.append(f'<line class="mark" x1="{at(mark_micros):g}" x2="{at(mark_micros):g}" y1="0" y2="{height}"/>')
    return _svg(title, height, pieces)


def lines(title: str, series: Sequence[tuple[str, Sequence[int]]], *, unit: str) -> str:
    """Return lines over whole steps from 0, with a legend; values are micro-units."""
    assert 1 <= len(series) <= 2  # noqa: PLR2004 -- there are two colours
    steps = max(len(values) for _, values in series) - 1
    high = max((value for _, values in series for value in values), default=0) or 1
    plot = _WIDTH - _LEFT - 20
    bottom = _HEIGHT - 30

    def point(step: int, value: int) -> str:
        return f"{_LEFT + plot * step / (steps or 1):.1f},{bottom - (bottom - 30) * value / high:.1f}"

    pieces = []
    for tick in range(_TICKS + 1):
        value = high * tick // _TICKS
        y = point(0, value).split(",")[1]
        pieces += [
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{y}" y2="{y}"/>',
            f'<text class="value" x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{escape(_rough(value))}</text>',
        ]
    for tick in range(_TICKS + 1):
        step = steps * tick // _TICKS
        x = point(step, 0).split(",")[0]
        pieces.append(
            f'<text class="value" x="{x}" y="{bottom + 20}" text-anchor="middle">{step} {escape(unit)}</text>'
        )
    for number, (name, values) in enumerate(series):
        kind = ("first", "second")[number]
        points = " ".join(point(step, value) for step, value in enumerate(values))
        left = _LEFT + number * 160
        pieces += [
            f'<polyline class="line {kind}" points="{points}"/>',
            f'<rect class="{kind}" x="{left}" y="4" width="12" height="12" rx="2"/>',
            f'<text class="label" x="{left + 18}" y="14">{escape(name)}</text>',
        ]
    return _svg(title, _HEIGHT, pieces)


def _rough(micros: int) -> str:
    """Return money in few characters."""
    units = micros / 1e6
    for size, sign in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if units >= size:
            return f"${units / size:,.4g}{sign}"
    return figure(Kind.AMOUNT, micros)


def _svg(title: str, height: float, pieces: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{''.join(pieces)}</svg>"
    )
