"""The timeline of simulated fleets: one HTML page with workers by market and state, what waits, and what was missed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import numpy as np

from pipeline.domain.costs.prices import Market
from pipeline.domain.lifecycle import IntervalKind, WorkerEnd
from pipeline.domain.tiers import Tier
from scheduler.columns import Floats
from scheduler.simulate.fleet_record import FleetRecord
from scheduler.simulate.timeline import clock_of, table_of, ticks_of

_LEFT: Final = 70
_WIDTH: Final = 1000
_RIGHT: Final = 20
_TOP: Final = 22
_HEIGHT: Final = 150
_COLUMNS: Final = 500
_STARTING: Final = (IntervalKind.BOOT, IntervalKind.LOAD)
#: Layers of workers from below: what they are called, and of which market and kinds of time they are.
_LAYERS: Final = (
    ("on demand, working", "paid", Market.ON_DEMAND, (IntervalKind.WORK,)),
    ("on demand, idle or draining", "paid faint", Market.ON_DEMAND, (IntervalKind.IDLE, IntervalKind.DRAIN)),
    ("on demand, starting", "paid start", Market.ON_DEMAND, _STARTING),
    ("spot, working", "spot", Market.SPOT, (IntervalKind.WORK, IntervalKind.PREEMPTED)),
    ("spot, idle or draining", "spot faint", Market.SPOT, (IntervalKind.IDLE, IntervalKind.DRAIN)),
    ("spot, starting", "spot start", Market.SPOT, _STARTING),
)

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#6b7280;--grid:#e3e6ea;--paid:#c2570c;--spot:#15803d;
--urgent:#c2570c;--standard:#0b5fa5;--bulk:#15803d;--nightly:#7c3aed;--bad:#d11a1a}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171a;--faint:#9aa3ad;--grid:#2c3238;--paid:#f2a65a;
--spot:#6fd08c;--urgent:#f2a65a;--standard:#6cb4f5;--bulk:#6fd08c;--nightly:#bda4ff;--bad:#ff6b6b}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1180px;padding:1.5rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.25rem .6rem;border-bottom:1px solid var(--grid);
text-align:right}th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}svg{min-width:760px;width:100%;height:auto}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;font-size:.9rem;color:var(--faint)}
.legend svg{min-width:0;width:16px;height:12px;vertical-align:middle}text{fill:var(--faint);font:11px system-ui,sans-serif}
.grid{stroke:var(--grid)}.paid{fill:var(--paid)}.spot{fill:var(--spot)}.faint{opacity:.45}.start{opacity:.22}
.urgent{fill:var(--urgent)}.standard{fill:var(--standard)}.bulk{fill:var(--bulk)}.nightly{fill:var(--nightly)}
.bad{stroke:var(--bad);stroke-width:1.5;fill:none}.taken{stroke:var(--bad);stroke-width:1;opacity:.6}
"""


def page_of(
    runs: Sequence[FleetRecord], *, title: str, table: Sequence[Sequence[str]], facts: Mapping[str, str]
) -> str:
    """Return the page: the figures given, and each run's workers and backlog over time.

    The first row of `table` is its head. All runs have the same scales.
    """
    last = max((run.seconds for run in runs), default=0.0) or 1.0
    workers = [_workers_by_column(run, last) for run in runs]
    backlogs = [_backlog_by_column(run, last) for run in runs]
    most = max((float(each.sum(axis=0).max()) for each in workers), default=1.0)
    longest = max((float(each.sum(axis=0).max()) for each in backlogs), default=1.0)
    parts = [
        f"<h1>{escape(title)}</h1>",
        table_of(table),
        "<p>" + "<br>".join(f"{escape(name)}: {escape(value)}" for name, value in facts.items()) + "</p>",
        _legend(),
    ]
    for run, counts, waiting in zip(runs, workers, backlogs, strict=True):
        parts.append(f"<h2>{escape(run.policy)}</h2>")
        marks = _marks(run, last)
        classes = [css for _, css, _, _ in _LAYERS]
        parts.append(_figure(counts, classes, most, last, f"workers of {run.policy} by market and state", marks))
        tiers = [tier.value for tier in Tier]
        parts.append(_figure(waiting, tiers, longest, last, f"worker-hours that wait under {run.policy}, by tier", ""))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _workers_by_column(run: FleetRecord, last: float) -> Floats:
    """Return how many workers each layer had, on average over each column."""
    counts = np.zeros((len(_LAYERS), _COLUMNS))
    layers = {(market, kind): row for row, (_, _, market, kinds) in enumerate(_LAYERS) for kind in kinds}
    width = last / _COLUMNS
    for machine in run.machines:
        for span in machine.spans:
            row = layers.get((machine.market, span.kind))
            if row is not None:
                _spread(counts[row], span.from_seconds / width, span.to_seconds / width)
    return counts


def _spread(row: Floats, begin: float, end: float) -> None:
    """Add one to the columns from `begin` to `end`, parts of columns as parts of one."""
    first, final = int(begin), min(len(row) - 1, int(end))
    if first >= len(row):
        return
    if first == final:
        row[first] += end - begin
        return
    row[first] += first + 1 - begin
    row[first + 1 : final] += 1.0
    row[final] += min(end, len(row)) - final


def _backlog_by_column(run: FleetRecord, last: float) -> Floats:
    """Return the worker-hours that waited at the last look before each column's end, by tier."""
    hours = np.zeros((len(Tier), _COLUMNS))
    if not run.samples:
        return hours
    times = np.array([sample.at for sample in run.samples])
    looks = np.searchsorted(times, (np.arange(_COLUMNS) + 1) * last / _COLUMNS, side="right") - 1
    for row, tier in enumerate(Tier):
        values = np.array([sample.backlog_seconds.get(tier.value, 0.0) for sample in run.samples]) / 3600
        hours[row] = values[looks]
    return hours


def _marks(run: FleetRecord, last: float) -> str:
    """Return marks of deadlines missed, and of machines that were taken away."""
    taken = "".join(
        f"M{_x(machine.ended_at, last):.1f} {_TOP + _HEIGHT}v-5"
        for machine in run.machines
        if machine.end is WorkerEnd.INTERRUPTED
    )
    missed = "".join(
        f'<path class="bad" d="M{_x(batch.deadline_at, last) - 4:.1f} {_TOP + 2}l8 8m0 -8l-8 8"><title>'
        f"{escape(f'{batch.batch_id}, {batch.tier.value}, missed its deadline at {clock_of(batch.deadline_at)}')}</title></path>"
        for batch in run.record.batches
        if batch.is_expired
    )
    return (f'<path class="taken" d="{taken}"/>' if taken else "") + missed


def _x(seconds: float, last: float) -> float:
    return _LEFT + min(1.0, seconds / last) * _WIDTH


def _figure(rows: Floats, classes: Sequence[str], most: float, last: float, described: str, marks: str) -> str:
    """Return stacked areas of these rows over time."""
    most = max(most, 1e-9)
    tops = np.cumsum(rows, axis=0)
    below = np.zeros(rows.shape[1])
    drawn = []
    for css, top in zip(classes, tops, strict=True):
        if (top > below).any():
            drawn.append(f'<path class="{css}" d="{_area(below, top, most)}"/>')
        below = top
    step = 10 ** math.floor(math.log10(most))
    lines = "".join(
        f'<path class="grid" d="M{_LEFT} {_y(value, most):.1f}h{_WIDTH}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(value, most) + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in (number * step for number in range(1 + int(most / step)))
    )
    ticks = "".join(
        f'<path class="grid" d="M{_x(at, last):.1f} {_TOP - 4}V{_TOP + _HEIGHT}"/>'
        f'<text x="{_x(at, last):.1f}" y="12" text-anchor="middle">{clock_of(at)}</text>'
        for at in ticks_of(0.0, last)
    )
    return (
        f'<div class="wide"><svg role="img" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {_TOP + _HEIGHT + 6}" '
        f'aria-label="{escape(described)}">{lines}{ticks}{"".join(drawn)}{marks}</svg></div>'
    )


def _area(below: Floats, top: Floats, most: float) -> str:
    width = _WIDTH / len(top)
    up = "".join(f"V{_y(value, most):.1f}h{width:g}" for value in top.tolist())
    down = "".join(f"V{_y(value, most):.1f}h-{width:g}" for value in below[::-1].tolist())
    return f"M{_LEFT} {_y(0.0, most):.1f}{up}{down}z"


def _y(value: float, most: float) -> float:
    return _TOP + _HEIGHT * (1 - value / most)


def _legend() -> str:
    signs = [(name, f'<rect class="{css}" width="16" height="12"/>') for name, css, _, _ in _LAYERS]
    signs += [
        (f"{tier.value}, waiting (worker-hours)", f'<rect class="{tier.value}" width="16" height="12"/>')
        for tier in Tier
    ]
    signs += [
        ("taken away", '<path class="taken" d="M8 12v-12"/>'),
        ("a deadline missed", '<path class="bad" d="M4 2l8 8m0 -8l-8 8"/>'),
    ]
    items = "".join(
        f'<li><svg viewBox="0 0 16 12" aria-hidden="true">{sign}</svg> {escape(name)}</li>' for name, sign in signs
    )
    return f'<ul class="legend">{items}</ul>'
