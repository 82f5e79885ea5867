"""`nightrate cost statement`: a tenant's month on one page, as HTML or PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.domain.ids import DEFAULT_TENANT
from pipeline.entrypoints.cli.cost_options import last_month, month_of
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, ForceOption
from pipeline.entrypoints.cli.talk import print_document, print_line, say


def statement(
    *,
    tenant: Annotated[
        str,
        typer.Option(
            "--tenant",
            metavar="ID",
            help="Whose month, as `nightrate tenants list` has it. Default: the tenant of the command line.",
        ),
    ] = DEFAULT_TENANT,
    month: Annotated[
        str | None,
        typer.Option(
            "--month", metavar="YYYY-MM", help="Which month, UTC, such as 2026-11. Default: the last that has ended."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Ends with .html or .pdf. Default: statement-TENANT-MONTH.html, here."
        ),
    ] = None,
    force: ForceOption = False,
    as_json: AsJson = False,
) -> int:
    """Write what a tenant was charged in a month, with charts, to a file that needs no other.

    Without options: your own last whole month, as HTML, in this folder.
    """
    from datetime import UTC, datetime

    from pipeline.app.cost_statements import statements_of
    from pipeline.domain.errors import UsageError
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.report.statement.page import html
    from pipeline.report.statement.sheet import pdf

    today = datetime.now(UTC).date()
    period = last_month(today) if month is None else month_of(month)
    if out is None:
        out = Path(f"statement-{tenant}-{period.first:%Y-%m}.html")
    if out.suffix not in {".html", ".pdf"}:
        raise UsageError(f"{out} is neither HTML nor PDF", hint="--out statement.html or --out statement.pdf")
    if out.exists() and not force:
        raise UsageError(f"{out} exists", hint="--force overwrites it")
    with connected() as stack:
        found = statements_of(stack, tenant, period, made_on=today)
    written = []
    for each in found:
        # A file each, where there are several currencies: amounts of two do not sum up.
        path = out if len(found) == 1 else out.with_stem(f"{out.stem}-{each.currency}")
        path.write_bytes(pdf(each) if out.suffix == ".pdf" else html(each).encode())
        written.append(path)
        if not as_json:
            print_line(str(path))
            say(f"{each.tenant_name} was charged {each.facts['Charged']} in {period.first:%Y-%m}.")
    if as_json:
        print_document(
            {
                "files": [str(path) for path in written],
                "charged_micros": {each.currency: each.total.charged_micros for each in found},
            }
        )
    return ExitCode.OK
