"""What `nightrate cost reconcile` shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from pipeline.entrypoints.cli.figures import counted, money
from pipeline.entrypoints.cli.talk import print_line, print_table, say

if TYPE_CHECKING:  # the stores are imported by the command that opens them
    from pipeline.app.invoice_import import Import
    from pipeline.app.reconciling import PoolBooks
    from pipeline.domain.costs.adjusting import NamedLine, WorkerDay

#: Longer lists are for --json.
_SHOWN_MAX: Final = 20
_WORDS: Final[Mapping[str, str]] = {
    "exact": "every day of every worker is what was invoiced, to the micro-unit",
    "close": "what was invoiced is near enough",
    "off": "what was invoiced is not what was expected",
}


def books_document(pool: PoolBooks) -> dict[str, object]:
    """Return a pool's books."""
    return {
        "pool": pool.pool,
        "currency": pool.currency,
        "ok": pool.is_good,
        "workers": pool.workers,
        "live": pool.live,
        "waiting": pool.waiting,
        "to_settle": asdict(pool.to_settle),
        "billed": asdict(pool.billed),
        "posted": asdict(pool.posted),
        "adjusted": asdict(pool.adjusted),
        "gaps": [
            {"worker_id": gap.worker_id, "expected": asdict(gap.expected), "posted": asdict(gap.posted)}
            for gap in pool.gaps
        ],
    }


def print_books(books: Sequence[PoolBooks]) -> None:
    """Show the books of all pools."""
    if not books:
        print_line("There was no worker yet: nothing is owed.")
        return
    heads = ("POOL", "WORKERS", "BY THE RULES", "POSTED", "TO SETTLE", "ADJUSTED", "VERDICT")
    print_table(
        heads,
        [
            (
                pool.pool,
                f"{pool.workers:,}",
                money(pool.billed.effective_micros, pool.currency),
                money(pool.posted.effective_micros, pool.currency),
                money(pool.to_settle.effective_micros, pool.currency),
                money(pool.adjusted.effective_micros, pool.currency),
                "✓ adds up" if pool.is_good else f"✗ {counted(len(pool.gaps), 'worker')}",
            )
            for pool in books
        ],
        right=heads[1:-1],
    )
    for pool in books:
        for gap in pool.gaps[:_SHOWN_MAX]:
            expected = money(gap.expected.effective_micros, pool.currency)
            posted = money(gap.posted.effective_micros, pool.currency)
            print_line(f"✗ {gap.worker_id} has entries of {posted}, its time comes to {expected}")
    waiting = sum(pool.waiting for pool in books)
    if waiting:
        say(f"{counted(waiting, 'worker')} live or ended just now: settled within the hour.")


def print_sums(wrong: int, *, is_again: bool) -> None:
    """Show how many sums of the views are not the journal's."""
    if not wrong:
        return
    print_line(
        f"✗ {counted(wrong, 'sum')} of the schema `cost` {'is' if wrong == 1 else 'are'} not what the journal says"
    )
    if is_again:
        say("They are made again: views read the journal until the leading scheduler has done so.")
    else:
        say("`nightrate cost reconcile --sum-again` has them made again.")


def import_document(found: Import) -> dict[str, object]:
    """Return what came of an invoice."""
    from pipeline.domain.costs.invoices import micros

    return {
        "verdict": found.verdict,
        "digest": found.digest,
        "invoice": found.name,
        "currency": found.currency,
        "start": found.start.isoformat(),
        "stop": found.stop.isoformat(),
        "lines": found.total.lines,
        "billed_micros": micros(found.total.billed),
        "effective_micros": micros(found.total.effective),
        "imported_before_at": found.imported_at and found.imported_at.isoformat(),
        "posted": found.posted,
        "kinds": [
            {
                "kind": kind,
                "lines": each.lines,
                "billed_micros": micros(each.billed),
                "effective_micros": micros(each.effective),
            }
            for kind, each in sorted(found.kinds.items())
        ],
        "worker_days": [_day_document(found, day) for day in found.days],
        "objects": [
            {**_line_document(line), "accrued": asdict(line.accrued), "agreement": found.objects_verdict(line)}
            for line in found.objects
        ],
        "unexplained": [_line_document(line) for line in _unexplained(found)],
        "missing": [{"worker_id": life.worker_id, "expected_billed_micros": each} for life, each in found.missing],
    }


def print_import(found: Import, *, is_dry: bool) -> None:
    """Show what came of an invoice."""
    if found.imported_at is not None:
        say(f"This invoice was imported before, at {found.imported_at:%Y-%m-%d %H:%M}Z.")
    _print_pools(found)
    _print_kinds(found)
    for line in found.objects:
        agreement = found.objects_verdict(line)
        accrued, invoiced = (_money(found, each.billed_micros) for each in (line.accrued, line.invoiced))
        difference = _money(found, line.difference.billed_micros)
        print_line(
            f"{line.month:%Y-%m}  {line.name}: {accrued} accrued, {invoiced} invoiced, {difference} between them: {agreement}"
        )
    unexplained = _unexplained(found)
    unexplained.sort(key=lambda line: -abs(line.invoiced.billed_micros))
    if unexplained:
        print_line(f"No worker explains {_money(found, sum(line.invoiced.billed_micros for line in unexplained))}:")
    for line in unexplained[:_SHOWN_MAX]:
        print_line(f"  {line.month:%Y-%m}  {_money(found, line.invoiced.billed_micros)}  {line.name}")
    if len(unexplained) > _SHOWN_MAX:
        print_line(f"  and {len(unexplained) - _SHOWN_MAX:,} more: --json has them all")
    for life, expected in found.missing[:_SHOWN_MAX]:
        print_line(f"✗ {life.worker_id} is not in the invoice, {_money(found, expected)} were expected")
    sign = "✗" if found.verdict == "off" else "✓"
    print_line(f"{sign} {_WORDS[found.verdict]}")
    say("Nothing was posted: a dry run." if is_dry else f"{counted(found.posted, 'adjustment')} posted.")


def _unexplained(found: Import) -> list[NamedLine]:
    return [line for line in found.others if line.invoiced and line not in found.objects]


def _print_pools(found: Import) -> None:
    pools: dict[str, list[WorkerDay]] = defaultdict(list)
    for day in found.days:
        pools[day.pool].append(day)
    heads = ("POOL", "WORKER DAYS", "OFF", "OPEN", "EXPECTED", "INVOICED", "DIFFERENCE")
    rows = []
    for pool, days in sorted(pools.items()):
        closed = [day for day in days if not day.is_open]
        agreements = [day.agreement(found.within_percent) for day in days]
        rows.append(
            (
                pool,
                f"{len(days):,}",
                f"{agreements.count(agreements[0].OFF):,}",
                f"{len(days) - len(closed):,}",
                _money(found, sum(day.expected.billed_micros for day in closed)),
                _money(found, sum(day.invoiced.billed_micros for day in closed)),
                _money(found, sum(day.difference.billed_micros for day in closed)),
            )
        )
    if rows:
        print_table(heads, rows, right=heads[1:])


def _print_kinds(found: Import) -> None:
    from pipeline.domain.costs.invoices import micros

    heads = ("LINES OF", "NUMBER", "BILLED", "EFFECTIVE")
    rows = [
        (kind, f"{each.lines:,}", _money(found, micros(each.billed)), _money(found, micros(each.effective)))
        for kind, each in [*sorted(found.kinds.items()), ("all", found.total)]
    ]
    print_table(heads, rows, right=heads[1:])


def _day_document(found: Import, day: WorkerDay) -> dict[str, object]:
    return {
        "worker_id": day.worker_id,
        "pool": day.pool,
        "day": day.day.isoformat(),
        "category": day.category,
        "agreement": day.agreement(found.within_percent),
        "expected": asdict(day.expected),
        "invoiced": asdict(day.invoiced),
        "adjusted_before": asdict(day.adjusted),
    }


def _line_document(line: NamedLine) -> dict[str, object]:
    return {"month": f"{line.month:%Y-%m}", "name": line.name, "invoiced": asdict(line.invoiced)}


def _money(found: Import, micros: int) -> str:
    return money(micros, found.currency)
