"""`nightrate cost report`: what each tenant, model, label or day cost, as a table, CSV or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipeline.entrypoints.cli.cost_options import FromOption, ToOption, check_tenant, period_of
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, print_table, say

if TYPE_CHECKING:  # keeps `nightrate --help` light
    from pipeline.ports.cost_reports import Period, ReportKey, ReportLine

_LABEL: Final = "label:"
#: What a line without a key is called: no batch, and so nobody, has it.
_NOBODYS: Final = "(overhead)"
_UNLABELLED: Final = "(unlabelled)"


def report(
    *,
    by: Annotated[
        str, typer.Option("--by", help="tenant, project, label:KEY, model, tier, day, batch or pool.")
    ] = "tenant",
    from_: FromOption = None,
    to: ToOption = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Only what is this tenant's.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show what was had and what it cost; lines sum to the total, to the micro-unit."""
    from pipeline.domain.errors import UsageError
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.ports.cost_reports import totals
    from storage.cost_reports import CostReports

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", hint="choose one")
    key, label = _key_of(by)
    period = period_of(from_, to)
    with connected() as stack:
        check_tenant(stack, tenant)
        lines = CostReports(stack.database).report(key, period, label=label, tenant_id=tenant)
    if as_json:
        print_document(_document(by, period, lines))
    elif as_csv:
        _print_csv(by, lines)
    elif not lines:
        say(f"Nothing was had from {period.first} until {period.until}.")
    else:
        _print_table(by, lines, totals(lines))
    return ExitCode.OK


def _key_of(by: str) -> tuple[ReportKey, str | None]:
    from pipeline.domain.errors import UsageError
    from pipeline.ports.cost_reports import ReportKey

    if by.startswith(_LABEL) and by != _LABEL:
        return ReportKey.LABEL, by.removeprefix(_LABEL)
    try:
        key = ReportKey(by)
    except ValueError:
        key = None
    if key is None or key is ReportKey.LABEL:
        raise UsageError(
            f"--by {by!r} is nothing to sum up by", hint="tenant, project, label:KEY, model, tier, day, batch or pool"
        )
    return key, None


def line_document(line: ReportLine) -> dict[str, object]:
    """Return a line as JSON; money in micro-units."""
    from dataclasses import asdict

    return {
        **asdict(line),
        "saving_micros": line.saving_micros,
        "tokens": line.tokens,
        "micros_per_million_tokens": line.micros_per_million_tokens,
        "micros_per_thousand_requests": line.micros_per_thousand_requests,
        "micros_per_worker_hour": line.micros_per_worker_hour,
    }


def _document(by: str, period: Period, lines: list[ReportLine]) -> dict[str, object]:
    from pipeline.ports.cost_reports import totals

    return {
        "by": by,
        "from": period.first.isoformat(),
        "until": period.until.isoformat(),
        "lines": [line_document(line) for line in lines],
        "totals": [line_document(line) for line in totals(lines)],
    }


def _print_csv(by: str, lines: list[ReportLine]) -> None:
    import csv
    import sys

    from pipeline.domain.money import amount

    writer = csv.writer(sys.stdout, lineterminator="\n")
    documents = [line_document(line) for line in lines]
    names = list(line_document(_nothing()))
    writer.writerow([by, *(name.replace("_micros", "").replace("micros_per", "cost_per") for name in names[1:])])
    for document in documents:
        writer.writerow(
            [
                "" if value is None else amount(value) if "micros" in name and isinstance(value, int) else value
                for name, value in document.items()
            ]
        )


def _nothing() -> ReportLine:
    from pipeline.ports.cost_reports import SUMMED, ReportLine

    return ReportLine(key=None, currency="", **dict.fromkeys(SUMMED, 0))


def _print_table(by: str, lines: list[ReportLine], sums: list[ReportLine]) -> None:
    heads = (
        by.upper(),
        "COST",
        "CHARGED",
        "SAVING",
        "WASTE",
        "REQUESTS",
        "TOKENS",
        "PER 1M TOKENS",
        "PER 1K REQUESTS",
        "HOURS",
    )
    rows = [_cells(_called(line, by), line) for line in lines]
    print_table(heads, [*rows, *(_cells("total", line) for line in sums)], right=heads[1:])
    print_line("")
    for line in sums:
        _print_costs(line)


def _called(line: ReportLine, by: str) -> str:
    if line.key == "" and by.startswith(_LABEL):
        return _UNLABELLED
    return line.key or _NOBODYS


def _cells(called: str, line: ReportLine) -> tuple[str, ...]:
    from pipeline.entrypoints.cli.figures import count, money

    def each(micros: int | None) -> str:
        return "-" if micros is None else money(micros, line.currency)

    return (
        called,
        each(line.effective_micros),
        each(line.charged_micros),
        each(line.saving_micros),
        each(line.waste_micros),
        count(line.row_count),
        count(line.tokens),
        each(line.micros_per_million_tokens),
        each(line.micros_per_thousand_requests),
        f"{line.worker_us / 3_600_000_000:,.2f}",
    )


def _print_costs(line: ReportLine) -> None:
    from pipeline.entrypoints.cli.figures import money

    seen = {
        "on demand": line.on_demand_micros,
        "list": line.list_micros,
        "contracted": line.contracted_micros,
        "effective": line.effective_micros,
        "billed": line.billed_micros,
    }
    print_line("  ".join(f"{name} {money(micros, line.currency)}" for name, micros in seen.items()))
    if line.cache_credit_micros:
        without, credit = line.effective_micros + line.cache_credit_micros, -line.cache_credit_micros
        print_line(
            f"without reused prefixes {money(without, line.currency)}  cache credit {money(credit, line.currency)}"
        )
