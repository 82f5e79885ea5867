"""A statement as HTML: one file that needs no other, for screens in light and dark and for paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from pipeline.domain.figures import counted, money
from pipeline.report.statement.contents import Bar, Statement

_CHART_WIDTH: Final = 720
_CHART_HEIGHT: Final = 140
_LABEL_HEIGHT: Final = 16

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6670; --line: #d8dee4; --bar: #2f6fb2; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa4ae; --line: #3a424a; --bar: #6aa5e0; --page: #14181c; } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --bar: #2f6fb2; --page: #fff; } body { margin: 0; }
  @page { size: A4; margin: 14mm; } section { break-inside: avoid; } }
* { box-sizing: border-box; }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 760px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, dt, caption, figcaption { color: var(--soft); margin: 0; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0; } dd { margin: 0; font-size: 1.15rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .15rem .3rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; } th { font-weight: 600; }
.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } .meter { width: 40%; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2rem; } figure { margin: 0; }
svg { width: 100%; height: auto; } svg rect { fill: var(--bar); } svg text { fill: var(--soft); font-size: 10px; }
@media (max-width: 560px) { .pair { grid-template-columns: 1fr; } }
"""


def html(statement: Statement) -> str:
    """Return the page."""
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(told)}</dd></div>" for name, told in statement.facts.items()
    )
    more = ""
    if statement.batches_more:
        told = money(statement.batches_more_micros, statement.currency)
        more = (
            f"<p>and {counted(statement.batches_more, 'batch').replace('batchs', 'batches')} more: {escape(told)}</p>"
        )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(statement.title)}: {escape(statement.tenant_name)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(statement.title)}</h1>
<p>{escape(statement.tenant_name)} ({escape(statement.tenant_id)}), {statement.period.first} until {statement.period.until}, UTC,
in {escape(statement.currency)}; as of {statement.made_on}</p>
</header>
<dl>{facts}</dl>
<section><h2>By day</h2>{_columns(statement)}</section>
<div class="pair">
<section><h2>By model</h2>{_table("Model", statement.by_model)}</section>
<section><h2>By tier</h2>{_table("Tier", statement.by_tier)}</section>
</div>
<section><h2>By project</h2>{_table("Project", statement.by_project)}</section>
<section><h2>Batches that were charged the most</h2>{_table("Batch", statement.batches)}{more}</section>
</body>
</html>
"""


def _columns(statement: Statement) -> str:
    """Return a chart with a column for each day; what each says is in its title, too."""
    highest = max((bar.micros for bar in statement.by_day), default=0)
    step = _CHART_WIDTH / max(1, len(statement.by_day))
    drawn = []
    for number, bar in enumerate(statement.by_day):
        height = _length(bar.micros, highest, _CHART_HEIGHT)
        x, width = number * step, step * 0.8
        drawn.append(
            f"<g><title>{escape(bar.name)}: {escape(bar.told)}</title>"
            f'<rect x="{x:.1f}" y="{_CHART_HEIGHT - height:.1f}" width="{width:.1f}" height="{height:.1f}"></rect>'
            f'<text x="{x + width / 2:.1f}" y="{_CHART_HEIGHT + _LABEL_HEIGHT - 4}" text-anchor="middle">'
            f"{escape(bar.name)}</text></g>"
        )
    told = money(highest, statement.currency)
    return (
        f'<figure><svg role="img" aria-label="Charges by day, at most {escape(told)}" '
        f'viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT + _LABEL_HEIGHT}">{"".join(drawn)}</svg>'
        f"<figcaption>The highest is {escape(told)}.</figcaption></figure>"
    )


def _table(head: str, bars: Sequence[Bar]) -> str:
    highest = max((bar.micros for bar in bars), default=0)
    rows = "".join(
        f'<tr><td>{escape(bar.name)}</td><td class="meter"><svg viewBox="0 0 100 8" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect width="{_length(bar.micros, highest, 100):.1f}" height="8"></rect></svg></td>'
        f'<td class="figure">{escape(bar.told)}</td></tr>'
        for bar in bars
    )
    return (
        f'<table><thead><tr><th>{escape(head)}</th><th class="meter"></th><th class="figure">Charged</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _length(micros: int, highest: int, whole: float) -> float:
    return max(0.0, micros / highest * whole) if highest > 0 else 0.0
