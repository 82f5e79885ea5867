"""`nightrate cost forecast`: tokens, cost and workers of the hours to come."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say

if TYPE_CHECKING:  # numpy and the stores are imported by the command
    from pipeline.app.forecasting import Ahead, Outlook

_BAR_WIDTH: Final = 30
_CSV_HEADS: Final = ("what", "group", "start", "mean", "p10", "p50", "p90")


def forecast(
    *,
    hours: Annotated[int, typer.Option("--hours", min=1, max=168, help="How far ahead.")] = 24,
    by: Annotated[str | None, typer.Option("--by", help="Tell apart: tier, model or tenant.")] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="ID", help="This tenant's alone. Default: the whole system.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Every hour as CSV on stdout.")] = False,
    as_json: AsJson = False,
) -> int:
    """Forecast tokens, cost and workers by the hour, and the month's end; tell what was unlike its forecast."""
    outlook = _outlook(hours, by, tenant)
    if as_json:
        from pipeline.app.forecast_documents import outlook_document

        print_document(outlook_document(outlook))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_CSV_HEADS)
        writer.writerows(_csv_rows(outlook))
    else:
        _print(outlook)
    return ExitCode.OK


def _outlook(hours: int, by: str | None, tenant: str | None) -> Outlook:
    from datetime import UTC

    from pipeline.app.forecasting import look_ahead
    from pipeline.domain.errors import UsageError
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.cost_options import check_tenant
    from pipeline.ports.access import Scope
    from pipeline.ports.demand import Breakdown
    from storage.demand import DemandRepository

    try:
        apart = None if by is None else Breakdown(by)
    except ValueError as error:
        raise UsageError(f"{by!r} is nothing to tell apart by", hint=f"--by takes {', '.join(Breakdown)}") from error
    with connected() as stack:
        check_tenant(stack, tenant)
        return look_ahead(
            DemandRepository(stack.database),
            now=datetime.now(UTC),
            hours=hours,
            currency=stack.settings.currency,
            by=apart,
            scope=None if tenant is None else Scope(tenant_id=TenantId(tenant)),
        )


def _print(outlook: Outlook) -> None:
    from pipeline.app.forecast_documents import sentence_of

    whole, cost = outlook.tokens[0], outlook.cost[0]
    for oddity in outlook.oddities:
        say(sentence_of(oddity, outlook.currency))
    for name, ahead in (("tokens", whole), ("cost", cost)):
        if ahead.why is not None:
            say(f"No forecast of {name}: {ahead.why}.")
    _print_hours(outlook, whole, cost)
    for title, aheads in (("TOKENS", outlook.tokens[1:]), ("COST", outlook.cost[1:])):
        _print_groups(outlook, title, aheads)
    _print_pools(outlook)
    print_facts(_month_facts(outlook))


def _print_hours(outlook: Outlook, tokens: Ahead, cost: Ahead) -> None:
    from pipeline.entrypoints.cli.figures import count

    told = tokens.forecast
    if told is None and cost.forecast is None:
        return
    highest = max(1.0, 0.0 if told is None else float(told.quantiles[0.9].max()))
    rows = []
    for index in range(outlook.hours):
        cells = [f"{_hour(outlook, index):%a %d %H:%M}Z"]
        bar = ""
        if told is None:
            cells += ["-", "-"]
        else:
            low, middle, high = (float(told.quantiles[q][index]) for q in (0.1, 0.5, 0.9))
            cells += [count(round(middle)), f"{count(round(low))} to {count(round(high))}"]
            bar = _bar(middle / highest, high / highest)
        if cost.forecast is None:
            cells += ["-", "-"]
        else:
            paid = [_money(outlook, float(cost.forecast.quantiles[q][index])) for q in (0.1, 0.5, 0.9)]
            cells += [paid[1], f"{paid[0]} to {paid[2]}"]
        rows.append([*cells, bar])
    heads = ("HOUR", "TOKENS", "80 %", "COST", "80 % ", "TOKENS: MEDIAN █, TO 90 % ░")
    print_table(heads, rows, right=heads[1:5])


def _print_groups(outlook: Outlook, title: str, aheads: Sequence[Ahead]) -> None:
    from pipeline.entrypoints.cli.figures import count

    rows = []
    for ahead in aheads:
        if ahead.forecast is None:
            rows.append((str(ahead.group), "-", "-"))
            continue
        found = ahead.forecast.total_quantiles((0.1, 0.5, 0.9))
        low, middle, high = (
            _money(outlook, each) if title == "COST" else count(round(each)) for each in found.values()
        )
        rows.append((str(ahead.group), middle, f"{low} to {high}"))
    if rows:
        print_line("")
        heads = (str(outlook.by).upper(), f"{title} IN {outlook.hours} H", "80 %")
        print_table(heads, rows, right=heads[1:])


def _print_pools(outlook: Outlook) -> None:
    rows = [
        (
            pool.pool,
            pool.variant,
            f"{pool.tokens_per_worker_second:,.0f}",
            str(max(pool.workers[0.5])),
            str(max(pool.workers[0.9])),
            f"{_hour(outlook, int(pool.workers[0.9].index(max(pool.workers[0.9])))):%a %d %H:%M}Z",
        )
        for pool in outlook.pools
    ]
    if rows:
        print_line("")
        heads = ("POOL", "VARIANT", "TOKENS/S EACH", "WORKERS AT MOST", "90 %", "WHEN")
        print_table(heads, rows, right=heads[2:5])


def _month_facts(outlook: Outlook) -> dict[str, str]:
    month = outlook.month
    # The hour under way is not in it.
    facts = {"spent this month": f"{_money(outlook, month.spent_micros)} until {outlook.start:%Y-%m-%d %H:%M} UTC"}
    if month.median_micros is not None and month.low_micros is not None and month.high_micros is not None:
        low, high = _money(outlook, month.low_micros), _money(outlook, month.high_micros)
        facts["by the month's end"] = f"{_money(outlook, month.median_micros)} ({low} to {high}, 80 %)"
    return facts


def _csv_rows(outlook: Outlook) -> Iterator[tuple[object, ...]]:
    from pipeline.domain.money import amount

    for what, aheads in (("tokens", outlook.tokens), ("cost", outlook.cost)):
        for ahead in aheads:
            if ahead.forecast is None:
                continue
            told = ahead.forecast
            for index in range(outlook.hours):
                figures = [float(each[index]) for each in (told.mean, *(told.quantiles[q] for q in (0.1, 0.5, 0.9)))]
                written = [amount(round(each)) if what == "cost" else round(each) for each in figures]
                yield (what, ahead.group or "", _hour(outlook, index).isoformat(), *written)
    for pool in outlook.pools:
        for index in range(outlook.hours):
            wanted = (pool.workers[q][index] for q in (0.1, 0.5, 0.9))
            yield ("workers", f"{pool.pool}/{pool.variant}", _hour(outlook, index).isoformat(), "", *wanted)


def _hour(outlook: Outlook, index: int) -> datetime:
    from datetime import timedelta

    return outlook.start + timedelta(hours=index)


def _money(outlook: Outlook, micros: float) -> str:
    from pipeline.domain.money import MICROS_PER_UNIT
    from pipeline.entrypoints.cli.figures import money

    # Cents are as much as is foreseen of anything that costs one.
    cent = MICROS_PER_UNIT // 100
    whole = round(micros)
    return money(whole if abs(whole) < cent else round(whole / cent) * cent, outlook.currency)


def _bar(middle: float, high: float) -> str:
    solid, light = round(middle * _BAR_WIDTH), round(high * _BAR_WIDTH)
    return "█" * solid + "░" * (light - solid)
