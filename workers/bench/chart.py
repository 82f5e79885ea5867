"""The chart of `nightrate bench engines`: one page without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

_WIDTH: Final = 720
_BAR: Final = 26
_GAP: Final = 14
_LEFT: Final = 230
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --bar: #2a6f97; --roof: #b0b0b0 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --bar: #61a5c2; --roof: #666 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 52rem; margin: 2rem auto }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: right }
td:first-child, th:first-child { text-align: left } text { fill: var(--ink); font-size: 13px }
"""


def page_of(figures: Sequence[Mapping[str, object]]) -> str:
    """Return the page: each variant's throughput as a bar before the roofline's, and the figures as a table."""
    rows = [(str(each["variant"]), _number(each, "tokens_per_second"), _roof(each)) for each in figures]
    most = max(max(speed, roof) for _, speed, roof in rows) or 1.0
    height = len(rows) * (_BAR + _GAP) + _GAP
    bars = "".join(_bars(index, *row, most=most) for index, row in enumerate(rows))
    description = "; ".join(f"{name}: {speed:,.0f} of {roof:,.0f} tokens a second" for name, speed, roof in rows)
    return (
        "<!doctype html>\n"
        f'<html lang="en"><meta charset="utf-8"><title>Engines</title><style>{_STYLE}</style><body>'
        "<h1>Engines on one workload</h1>"
        f'<svg role="img" viewBox="0 0 {_WIDTH} {height}" aria-label="{escape(description)}">{bars}</svg>'
        "<p>Tokens a second, prompts and answers; grey is what the roofline of this device allows.</p>"
        f"{_table(figures)}</body></html>\n"
    )


def _bars(index: int, name: str, speed: float, roof: float, *, most: float) -> str:
    top = _GAP + index * (_BAR + _GAP)
    room = _WIDTH - _LEFT - 70
    parts = [
        f'<text x="0" y="{top + 18}">{escape(name)}</text>',
        f'<rect x="{_LEFT}" y="{top}" width="{room * roof / most:.1f}" height="{_BAR}" fill="var(--roof)"/>',
        f'<rect x="{_LEFT}" y="{top + 5}" width="{room * speed / most:.1f}" height="{_BAR - 10}" fill="var(--bar)"/>',
        f'<text x="{_LEFT + room * max(speed, roof) / most + 6:.1f}" y="{top + 18}">{speed:,.0f}</text>',
    ]
    return "".join(parts)


def _roof(figures: Mapping[str, object]) -> float:
    share = _number(figures, "roofline_share")
    return _number(figures, "tokens_per_second") / share if share else 0.0


def _table(figures: Sequence[Mapping[str, object]]) -> str:
    heads = [name for name in figures[0] if name not in {"fingerprint", "engine"}]
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(_shown(each[name]))}</td>" for name in heads) + "</tr>" for each in figures
    )
    titles = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in heads)
    return f"<div style='overflow-x:auto'><table><tr>{titles}</tr>{cells}</table></div>"


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _number(figures: Mapping[str, object], name: str) -> float:
    return float(str(figures[name]))
