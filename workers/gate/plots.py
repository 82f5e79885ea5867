"""Plots as inline SVG: no script, no font, no file from elsewhere; colours are the page's variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 720
_HEIGHT: Final = 300
_LEFT: Final = 64
_RIGHT: Final = 16
_TOP: Final = 16
_BOTTOM: Final = 44
_TICKS: Final = 5
_TEXT_HEIGHT: Final = 13

Scale = Callable[[float], float]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve; `colour` is a class of the page, `is_dashed` tells it apart without colour."""

    label: str
    points: Points
    colour: str
    is_dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A horizontal line with its name."""

    label: str
    value: float


def curves(
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    lines: Sequence[Line],
    levels: Sequence[Level] = (),
    band: Sequence[tuple[float, float, float]] = (),
) -> str:
    """Return a figure of `lines` over a common axis, `levels` across, and a `band` of (x, low, high) behind."""
    xs = [x for line in lines for x, _ in line.points] or [0.0, 1.0]
    ys = [y for line in lines for _, y in line.points] + [level.value for level in levels]
    ys += [y for _, low, high in band for y in (low, high)]
    x_low, x_high = 0.0, max(*xs, 1.0)
    y_low, y_high = _padded(ys or [0.0, 1.0])
    x_of, y_of = _scale(x_low, x_high, _LEFT, _WIDTH - _RIGHT), _scale(y_low, y_high, _HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(x_low, x_high, y_low, y_high, x_of, y_of, x_label, y_label)]
    if band:
        forth = [(x_of(x), y_of(high)) for x, _, high in band]
        back = [(x_of(x), y_of(low)) for x, low, _ in reversed(band)]
        parts.append(f'<polygon class="band" points="{_points([*forth, *back])}"/>')
    named: list[float] = []
    for level in levels:
        y = y_of(level.value)
        parts.append(f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        # Levels closer than a line of text: the first keeps its name, the description tells the others.
        if all(abs(y - other) >= _TEXT_HEIGHT for other in named):
            named.append(y)
            label = escape(level.label)
            parts.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{y - 4:.1f}" text-anchor="end">{label}</text>')
    for line in lines:
        dash = ' stroke-dasharray="6 4"' if line.is_dashed else ""
        path = _points([(x_of(x), y_of(y)) for x, y in line.points])
        parts.append(f'<polyline class="curve {line.colour}"{dash} points="{path}"/>')
    return _figure(title, description, "".join(parts), lines)


def bars(
    *, title: str, description: str, x_label: str, y_label: str, labels: Sequence[str], counts: Sequence[int]
) -> str:
    """Return a histogram: one bar for each count, each third labelled."""
    highest = max([*counts, 1])
    x_of = _scale(0.0, float(len(counts)), _LEFT, _WIDTH - _RIGHT)
    y_of = _scale(0.0, highest * 1.05, _HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(0.0, 0.0, 0.0, highest * 1.05, x_of, y_of, x_label, y_label)]
    for index, (label, count) in enumerate(zip(labels, counts, strict=True)):
        left, right, top = x_of(index) + 1, x_of(index + 1) - 1, y_of(count)
        bottom = _HEIGHT - _BOTTOM
        parts.append(
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}">'
            f"<title>{escape(label)}: {count:,}</title></rect>"
        )
        if index % 3 == 0:
            parts.append(f'<text class="tick" x="{left:.1f}" y="{bottom + 16}">{escape(label)}</text>')
    return _figure(title, description, "".join(parts), ())


def _figure(title: str, description: str, body: str, lines: Sequence[Line]) -> str:
    legend = "".join(
        f'<li><svg width="28" height="10" aria-hidden="true"><line class="curve {line.colour}" x1="0" x2="28" y1="5" y2="5"'
        + (' stroke-dasharray="6 4"' if line.is_dashed else "")
        + f"/></svg> {escape(line.label)}</li>"
        for line in lines
    )
    name = "".join(character if character.isalnum() else "-" for character in title.lower())
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>{body}</svg>'
        f"<figcaption>{escape(description)}</figcaption>"
        + (f'<ul class="legend">{legend}</ul>' if legend else "")
        + "</figure>"
    )


def _axes(
    x_low: float, x_high: float, y_low: float, y_high: float, x_of: Scale, y_of: Scale, x_label: str, y_label: str
) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in _ticks(y_low, y_high):
        y = y_of(value)
        parts += [
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>',
        ]
    parts += [
        f'<text class="tick" x="{x_of(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
        for value in (_ticks(x_low, x_high) if x_high > x_low else ())
    ]
    parts.append(
        f'<text class="name" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
    )
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="name" x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or 1.0
    return low - pad, high + pad


def _ticks(low: float, high: float) -> list[float]:
    """Return round values from `low` to `high`, about as many as fit."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def _points(points: Points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
