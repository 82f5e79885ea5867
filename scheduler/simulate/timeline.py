"""The timeline of a simulation: one HTML page that needs nothing else, not even a script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Final

from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from scheduler.simulate.record import BatchRecord, PackRecord, Record

_LEFT: Final = 110
_WIDTH: Final = 1000
_RIGHT: Final = 20
_AXIS: Final = 26
_LANE: Final = 18
_LANES_MAX: Final = 128
_BATCHES_MAX: Final = 600
#: Batches' bars are as high as lets them fit this, between these two.
_BATCHES_HEIGHT: Final = 1500
_BAR_MIN: Final = 3.0
_BAR_MAX: Final = 16.0
_TICKS_WANTED: Final = 12
_STEPS: Final = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#6b7280;--grid:#e3e6ea;--lane:#f3f4f6;--urgent:#c2570c;
--standard:#0b5fa5;--bulk:#15803d;--nightly:#7c3aed;--bad:#d11a1a}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171a;--faint:#9aa3ad;--grid:#2c3238;--lane:#1e2328;
--urgent:#f2a65a;--standard:#6cb4f5;--bulk:#6fd08c;--nightly:#bda4ff;--bad:#ff6b6b}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1180px;padding:1.5rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.25rem .8rem;border-bottom:1px solid var(--grid);
text-align:right}th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}svg{min-width:760px;width:100%;height:auto}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;font-size:.9rem;color:var(--faint)}
.legend svg{min-width:0;width:16px;height:12px;vertical-align:middle}text{fill:var(--faint);font:11px system-ui,sans-serif}
.grid{stroke:var(--grid)}.lane{fill:var(--lane)}.urgent{fill:var(--urgent)}.standard{fill:var(--standard)}.bulk{fill:var(--bulk)}
.nightly{fill:var(--nightly)}.wait{opacity:.3}.lost{stroke:var(--bad);stroke-width:2}.due{fill:var(--ink)}.broken{fill:var(--bad)}
.late{stroke:var(--bad);stroke-width:1.5}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Where seconds lie on the page."""

    first: float
    last: float

    def x(self, seconds: float) -> float:
        share = (min(max(seconds, self.first), self.last) - self.first) / (self.last - self.first)
        return _LEFT + share * _WIDTH


def page_of(record: Record, *, title: str, table: Sequence[Sequence[str]], facts: Mapping[str, str]) -> str:
    """Return the page: the figures given, each worker's time by tier, and each batch from arrival to end.

    The first row of `table` is its head.
    """
    scale = _scale_of(record)
    parts = [
        f"<h1>{escape(title)}</h1>",
        table_of(table),
        "<p>" + "<br>".join(f"{escape(name)}: {escape(value)}" for name, value in facts.items()) + "</p>",
        _workers(record, scale),
        _batches(record, scale),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _scale_of(record: Record) -> _Scale:
    first = min((batch.arrived_at for batch in record.batches), default=0.0)
    ends = [pack.to_seconds for pack in record.packs]
    ends += [batch.ended_at for batch in record.batches if batch.ended_at is not None]
    return _Scale(first=first, last=max(max(ends, default=0.0), first + 1))


# --- workers -----------------------------------------------------------------------------------


def _workers(record: Record, scale: _Scale) -> str:
    lanes = [(pool, worker) for pool, workers in record.workers.items() for worker in range(workers)]
    by_lane: dict[tuple[str, int], list[PackRecord]] = {lane: [] for lane in lanes[:_LANES_MAX]}
    for pack in record.packs:
        if (pack.pool, pack.worker) in by_lane:
            by_lane[pack.pool, pack.worker].append(pack)
    drawn = "".join(_lane(number, *lane, by_lane[lane], scale) for number, lane in enumerate(by_lane))
    more = f" The first {_LANES_MAX} of {len(lanes)} workers." if len(lanes) > _LANES_MAX else ""
    described = f"{len(lanes)} workers and the tier each of them ran, over time"
    return (
        f"<h2>Workers</h2>{_legend(['lost'])}{_figure(drawn, len(by_lane) * _LANE, scale, described)}"
        f"<p>In each {clock_of(scale.last - scale.first, per=_WIDTH)} the tier that ran longest, if any did.{more}</p>"
    )


def _lane(number: int, pool: str, worker: int, packs: Sequence[PackRecord], scale: _Scale) -> str:
    top = _AXIS + number * _LANE
    parts = [
        f'<text x="{_LEFT - 6}" y="{top + 13}" text-anchor="end">{escape(pool)} {worker}</text>',
        f'<rect class="lane" x="{_LEFT}" y="{top + 2}" width="{_WIDTH}" height="{_LANE - 4}"/>',
    ]
    at = 0
    for tier, columns in groupby(_columns(packs, scale)):
        width = len(list(columns))
        if tier is not None:
            parts.append(
                f'<rect class="{tier.value}" x="{_LEFT + at}" y="{top + 2}" width="{width}" height="{_LANE - 4}"/>'
            )
        at += width
    parts += [
        f'<path class="lost" d="M{scale.x(pack.to_seconds):.1f} {top}v{_LANE}"><title>lost at '
        f"{clock_of(pack.to_seconds)}</title></path>"
        for pack in packs
        if pack.is_lost
    ]
    return "".join(parts)


def _columns(packs: Iterable[PackRecord], scale: _Scale) -> list[Tier | None]:
    """Return for each column of a lane the tier that had most of it, None where it was idle for longer."""
    shares: list[dict[Tier, float]] = [{} for _ in range(_WIDTH)]
    for pack in packs:
        begin, end = scale.x(pack.from_seconds) - _LEFT, scale.x(pack.to_seconds) - _LEFT
        for column in range(math.floor(begin), min(_WIDTH, math.ceil(end))):
            part = min(end, column + 1) - max(begin, column)
            shares[column][pack.tier] = shares[column].get(pack.tier, 0.0) + part
    return [_most(share) for share in shares]


def _most(share: Mapping[Tier, float]) -> Tier | None:
    if sum(share.values()) < 0.5:  # noqa: PLR2004 -- idle for the longer part
        return None
    return max(share, key=lambda tier: share[tier])


# --- batches -----------------------------------------------------------------------------------


def _batches(record: Record, scale: _Scale) -> str:
    batches = sorted(record.batches, key=lambda batch: (batch.arrived_at, batch.batch_id))
    shown = batches[:_BATCHES_MAX]
    bar = min(_BAR_MAX, max(_BAR_MIN, _BATCHES_HEIGHT / max(1, len(shown))))
    drawn = "".join(_batch(_AXIS + number * bar, bar, batch, scale) for number, batch in enumerate(shown))
    more = f" The first {_BATCHES_MAX} of {len(batches)} batches." if len(batches) > _BATCHES_MAX else ""
    described = f"{len(shown)} batches from arrival to end, over time"
    return (
        f"<h2>Batches</h2>{_legend(['wait', 'due', 'broken', 'late'])}"
        f"{_figure(drawn, len(shown) * bar, scale, described)}<p>One line for each, the first to arrive on top.{more}</p>"
    )


def _batch(top: float, bar: float, batch: BatchRecord, scale: _Scale) -> str:
    ended = scale.last if batch.ended_at is None else batch.ended_at
    started = ended if batch.started_at is None else batch.started_at
    height, middle = bar * 0.8, top + bar * 0.4
    x, y, z = scale.x(batch.arrived_at), scale.x(started), scale.x(ended)
    title = (
        f"{batch.batch_id} of {batch.tenant_id}, {batch.tier.value}: {batch.rows_done:,} of {batch.rows:,} rows; arrived "
        f"{clock_of(batch.arrived_at)}, ended {clock_of(ended)}, due {clock_of(batch.deadline_at)}; promise {batch.promise.value}"
    )
    parts = [
        f"<g><title>{escape(title)}</title>",
        f'<rect class="{batch.tier.value} wait" x="{x:.1f}" y="{top:.1f}" width="{max(0.5, y - x):.1f}" height="{height:.1f}"/>',
    ]
    if z > y:
        parts.append(
            f'<rect class="{batch.tier.value}" x="{y:.1f}" y="{top:.1f}" width="{max(0.5, z - y):.1f}" height="{height:.1f}"/>'
        )
    if batch.promise is Promise.MADE:
        kind = "broken" if batch.is_promise_broken else "due"
        due = scale.x(batch.deadline_at) if batch.deadline_at <= scale.last else _LEFT + _WIDTH + _RIGHT / 2
        parts.append(_diamond(kind, due, middle, max(2.2, height / 2)))
    if batch.is_expired:
        half = height / 2
        parts.append(
            f'<path class="late" d="M{z - half:.1f} {middle - half:.1f}l{height:.1f} {height:.1f}m0 {-height:.1f}'
            f'l{-height:.1f} {height:.1f}"/>'
        )
    return "".join(parts) + "</g>"


# --- what both have ----------------------------------------------------------------------------


def _figure(drawn: str, height: float, scale: _Scale, described: str) -> str:
    whole = height + _AXIS + 4
    ticks = "".join(
        f'<path class="grid" d="M{scale.x(at):.1f} {_AXIS - 4}V{whole:.0f}"/>'
        f'<text x="{scale.x(at):.1f}" y="14" text-anchor="middle">{clock_of(at)}</text>'
        for at in ticks_of(scale.first, scale.last)
    )
    return (
        f'<div class="wide"><svg role="img" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {whole:.0f}" '
        f'aria-label="{escape(described)}">{ticks}{drawn}</svg></div>'
    )


def ticks_of(first: float, last: float) -> list[float]:
    """Return the moments that an axis between two names."""
    span = last - first
    step = next((step for step in _STEPS if span / step <= _TICKS_WANTED), math.ceil(span / _TICKS_WANTED))
    start = math.ceil(first / step)
    return [number * step for number in range(start, math.floor(last / step) + 1)]


def clock_of(seconds: float, *, per: int = 1) -> str:
    """Return seconds since the simulation began, or a part of them, as people say it."""
    seconds /= per
    if seconds < _MINUTE:
        return f"{seconds:.3g} s"
    if seconds < _HOUR:
        minutes, rest = divmod(round(seconds), _MINUTE)
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    if seconds < 2 * _DAY:
        hours, rest = divmod(round(seconds / _MINUTE), _MINUTE)
        return f"{hours} h" + (f" {rest} min" if rest else "")
    days, rest = divmod(round(seconds / _HOUR), 24)
    return f"{days} d" + (f" {rest} h" if rest else "")


def _diamond(kind: str, x: float, y: float, half: float) -> str:
    return f'<path class="{kind}" d="M{x - half:.1f} {y:.1f}l{half:.1f} {-half:.1f} {half:.1f} {half:.1f} {-half:.1f} {half:.1f}z"/>'


def _legend(others: Sequence[str]) -> str:
    signs = [(tier.value, f'<rect class="{tier.value}" width="16" height="12"/>') for tier in Tier]
    known = {
        "lost": ("the worker was lost", '<path class="lost" d="M8 0v12"/>'),
        "wait": ("paler while it waits", '<rect class="standard wait" width="16" height="12"/>'),
        "due": ("promised for (beyond the edge: later)", _diamond("due", 8, 6, 5)),
        "broken": ("a promise broken", _diamond("broken", 8, 6, 5)),
        "late": ("expired", '<path class="late" d="M3 1l10 10m0 -10l-10 10"/>'),
    }
    items = "".join(
        f'<li><svg viewBox="0 0 16 12" aria-hidden="true">{sign}</svg> {escape(name)}</li>'
        for name, sign in (*signs, *(known[other] for other in others))
    )
    return f'<ul class="legend">{items}</ul>'


def table_of(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of text; the first row is its head."""
    head, *body = rows
    titles = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    cells = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(cell)}</th>' if column == 0 else f"<td>{escape(cell)}</td>"
            for column, cell in enumerate(row)
        )
        + "</tr>"
        for row in body
    )
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{cells}</tbody></table></div>'
