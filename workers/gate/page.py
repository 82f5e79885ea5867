"""The gate's report as one HTML page that needs nothing else: to be opened, mailed, kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from workers.gate.divergence import HISTOGRAM_EDGES
from workers.gate.identity import Identity
from workers.gate.plots import Level, Line, bars, curves
from workers.gate.qualification import Qualification, TierVerdict
from workers.gate.trial import Comparison, Verdict

_SLICES_SHOWN: Final = 50
_COLOURS: Final = ("one", "two", "three", "four")
#: Evidence past this is off the scale of a plot that should show the threshold.
_LOG10_SHOWN_MAX: Final = 4.0
_LOG10_SHOWN_MIN: Final = -4.0
_MARKS: Final = {Verdict.ACCEPTED: "✓", Verdict.REJECTED: "✗", Verdict.UNDECIDED: "?"}

#: What the evidence that rejects is evidence of, before the margin.
_VERBS: Final = {
    Comparison.CORRECTNESS: "worse by more than a quarter of",
    Comparison.AGREEMENT: "differs by more than",
    Comparison.LIKELIHOOD: "less likely by more than",
}

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#6b7280;--grid:#e3e6ea;--one:#0b5fa5;--two:#b45309;
--three:#15803d;--four:#7c3aed;--good:#15803d;--bad:#b42318;--open:#92600a}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171a;--faint:#9aa3ad;--grid:#2c3238;--one:#6cb4f5;
--two:#f2a65a;--three:#6fd08c;--four:#bda4ff;--good:#6fd08c;--bad:#ff8f80;--open:#f0c05a}}
*{box-sizing:border-box}body{margin:0 auto;max-width:820px;padding:1.5rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}caption{text-align:left;color:var(--faint)}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--grid);text-align:left;vertical-align:top}td.n,th.n{text-align:right}
.accepted{color:var(--good);font-weight:600}.rejected{color:var(--bad);font-weight:600}.undecided{color:var(--open);font-weight:600}
.wide{overflow-x:auto}figure{margin:1rem 0}svg{max-width:100%;height:auto}figcaption{color:var(--faint);font-size:.9rem}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;font-size:.9rem}.legend svg{vertical-align:middle}
.curve{fill:none;stroke-width:2}.one{stroke:var(--one)}.two{stroke:var(--two)}.three{stroke:var(--three)}.four{stroke:var(--four)}
.band{fill:var(--one);opacity:.15}.bar{fill:var(--one)}.grid{stroke:var(--grid)}.level{stroke:var(--faint);stroke-dasharray:2 3}
.tick,.name{fill:var(--faint);font:12px system-ui,sans-serif}code{overflow-wrap:anywhere}
"""


def page_of(found: Qualification) -> str:
    """Return the whole page."""
    title = f"{found.variant.model} ({found.variant.recipe}) against {found.reference.model}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _tiers(found.tiers),
        _summary(found),
        _evidence(found),
        _difference(found),
        _flips(found),
        _slices(found),
        _divergence(found),
        _identities(found),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def write_page(found: Qualification, path: Path) -> None:
    """Write the page to `path`, in UTF-8."""
    path.write_text(page_of(found), encoding="utf-8")


# --- sections ----------------------------------------------------------------------------------


def _tiers(tiers: Iterable[TierVerdict]) -> str:
    rows = [
        (
            escape(each.tier.value),
            f"{each.decision.margin_points:g}",
            f'<span class="{each.decision.verdict.value}">{_MARKS[each.decision.verdict]} {each.decision.verdict.value}</span>',
            escape(each.decision.reason.sentence),
            f"{each.decision.items:,}",
        )
        for each in tiers
    ]
    heads = ("Tier", "Margin, points", "Verdict", "Why", "Items")
    return "<h2>Verdicts</h2>" + _table("Whether the variant may serve each tier.", heads, rows, numeric={1, 4})


def _summary(found: Qualification) -> str:
    n = f"{found.items_compared:,}"
    low, high = found.interval
    rows = [
        ("Difference, points", f"{_points(found.difference)} ({_points(low)} to {_points(high)})", n),
        ("Another answer than the reference", _share(found.disagreement_share), n),
    ]
    if found.pairs is not None:
        accuracy = f"{_share(found.pairs.variant_accuracy)} against {_share(found.pairs.reference_accuracy)}"
        rows.insert(0, ("Accuracy", accuracy, n))
        rows.append(("Flips, right to wrong or back", _share(found.pairs.flips_share), n))
    if found.mcnemar_p is not None:
        rows.append(("Exact McNemar p, as for a fixed number of items", f"{found.mcnemar_p:.3g}", n))
    if (drift := found.lengths) is not None:
        low, high = drift.interval
        rows.append(
            (
                "Output tokens, against the reference's",
                f"{drift.ratio:.3f} times ({low:.3f} to {high:.3f})",
                f"{drift.items:,}",
            )
        )
    if (kl := found.divergence) is not None:
        value = f"mean {kl.mean_nats:.2e}, p99 {kl.p99_nats:.2e}"
        rows.append(("KL of next-token distributions, nats", value, f"{kl.positions:,} positions"))
    if found.cosine_mean is not None:
        rows.append(("Cosine of the two embeddings", f"mean {found.cosine_mean:.5f}, p1 {found.cosine_p1:.5f}", n))
    if found.reference_errors or found.variant_errors:
        value = f"{found.reference_errors:,} on the reference, {found.variant_errors:,} on the variant alone"
        rows.append(("Items not answered", value, f"{found.items_asked:,}"))
    if (cost := found.pace.relative_cost) is not None:
        rows.append(("Device time a token, against the reference's", f"{cost:.3f} times", n))
    caption = "Variant against reference; intervals are at 95 %."
    cells = [(escape(name), escape(value), escape(count)) for name, value, count in rows]
    return "<h2>Figures</h2>" + _table(caption, ("Figure", "Value", "Items"), cells, numeric={2})


def _evidence(found: Qualification) -> str:
    margins = [each.margin_points for each in found.decisions]
    lines = [
        Line(
            label=f"within {margin:g} points",
            points=[(point.items, _shown(point.log_within[index])) for point in found.path],
            colour=_COLOURS[index % len(_COLOURS)],
        )
        for index, margin in enumerate(margins)
    ]
    verb = _VERBS[found.comparison]
    lines += [
        Line(
            label=f"{verb} {margin:g}",
            points=[(point.items, _shown(point.log_against[index])) for point in found.path],
            colour=_COLOURS[index % len(_COLOURS)],
            is_dashed=True,
        )
        for index, margin in enumerate(margins)
    ]
    level = math.log10(1 / found.settings.alpha)
    figure = curves(
        title="Evidence",
        description=(
            f"Evidence for each claim after so many items, as a power of ten, cut at 10 to the ±{_LOG10_SHOWN_MAX:g}. "
            f"A claim is shown when its curve reaches {1 / found.settings.alpha:g}."
        ),
        x_label="items",
        y_label="log10 evidence",
        lines=lines,
        levels=[Level(label=f"shown: {1 / found.settings.alpha:g}", value=level)],
    )
    return "<h2>Evidence</h2>" + figure


def _difference(found: Qualification) -> str:
    narrow = [point for point in found.path if point.items >= min(50, found.items_compared)]
    line_points = [(point.items, 100 * point.difference) for point in narrow]
    figure = curves(
        title="Difference",
        description=(
            "Difference in points after so many items; the band holds at every moment together with 95 %. Dotted: no "
            f"difference, and margins of {', '.join(f'{each.margin_points:g}' for each in found.decisions)} points."
        ),
        x_label="items",
        y_label="points",
        lines=[Line(label="variant minus reference", points=line_points, colour="one")],
        levels=[Level(label="as the reference", value=0.0)]
        + [Level(label=f"margin {each.margin_points:g}", value=-each.margin_points) for each in found.decisions],
        band=[(point.items, 100 * point.interval[0], 100 * point.interval[1]) for point in narrow],
    )
    return "<h2>Difference</h2>" + figure


def _flips(found: Qualification) -> str:
    pairs = found.pairs
    if pairs is None:
        return ""
    rows = [
        ("Both right", pairs.both_right),
        ("Right to wrong", pairs.right_to_wrong),
        ("Wrong to right", pairs.wrong_to_right),
        ("Wrong to another wrong", pairs.wrong_to_wrong),
        ("Wrong, the same", pairs.wrong_same),
    ]
    cells = [(name, f"{count:,}", _share(count / pairs.items)) for name, count in rows]
    return "<h2>Flips</h2>" + _table(f"Of {pairs.items:,} items.", ("Change", "Items", "Share"), cells, numeric={1, 2})


def _slices(found: Qualification) -> str:
    if not found.slices:
        return ""
    rows = [
        (
            escape(each.name),
            f"{each.tally.items:,}",
            f"{each.tally.worse:,.6g}",
            f"{each.tally.better:,.6g}",
            _points(each.difference),
            f"{_points(each.interval[0])} to {_points(each.interval[1])}",
            "" if each.p_holm is None else f"{each.p_holm:.3g}",
        )
        for each in found.slices[:_SLICES_SHOWN]
    ]
    heads = ("Slice", "Items", "Worse", "Better", "Points", "Interval", "p, Holm")
    caption = "The least likely to be chance first; p is corrected for looking at every slice and decides nothing."
    return "<h2>Slices</h2>" + _table(caption, heads, rows, numeric={1, 2, 3, 4, 6})


def _divergence(found: Qualification) -> str:
    kl = found.divergence
    if kl is None:
        return ""
    figure = bars(
        title="KL of next-token distributions",
        description=(
            f"KL(reference‖variant) at {kl.positions:,} positions of {kl.sequences:,} answers; the likeliest token is "
            f"the same at {_share(kl.same_top_share)}."
        ),
        x_label="nats, from",
        y_label="positions",
        labels=[f"{edge:.1e}" for edge in HISTOGRAM_EDGES[:-1]],
        counts=kl.histogram,
    )
    return "<h2>KL of next-token distributions</h2>" + figure


def _identities(found: Qualification) -> str:
    both: Sequence[Identity] = (found.variant, found.reference)
    rows = [
        (escape(name), *(f"<code>{escape(str(each.as_plain()[name]))}</code>" for each in both))
        for name in both[0].as_plain()
    ]
    facts = (
        f"<p>Evaluation: {escape(found.evaluation)}, {found.items_available:,} items, of which {found.items_asked:,} were "
        f"asked; order seed {found.settings.seed}, alpha {found.settings.alpha:g}, {escape(found.comparison.value)} compared. "
        f"From {found.started_at.isoformat(timespec='seconds')} to {found.ended_at.isoformat(timespec='seconds')}.</p>"
        f"<p>Gate key <code>{escape(found.comparison_key)}</code></p>"
    )
    return "<h2>What was compared</h2>" + _table("", ("", "Variant", "Reference"), rows, numeric=set()) + facts


# --- cells -------------------------------------------------------------------------------------


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: set[int]) -> str:
    """Return a table; cells are HTML already, heads and caption are text."""

    def kind(column: int) -> str:
        return ' class="n"' if column in numeric else ""

    head = "".join(f'<th scope="col"{kind(column)}>{escape(name)}</th>' for column, name in enumerate(heads))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if column == 0 else f"<td{kind(column)}>{cell}</td>"
            for column, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    shown = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{shown}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _points(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "\N{MINUS SIGN}")


def _share(share: float) -> str:
    return f"{100 * share:.2f} %"


def _shown(natural: float) -> float:
    return max(_LOG10_SHOWN_MIN, min(_LOG10_SHOWN_MAX, natural / math.log(10)))
