"""`nightrate cost reconcile`: the journal beside workers' lives, and beside a provider's invoice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document

if TYPE_CHECKING:  # the stores are imported by the command that opens them
    from datetime import date
    from decimal import Decimal


def reconcile(
    *,
    bill: Annotated[
        list[Path] | None,
        typer.Option(
            "--bill",
            metavar="FILE",
            help="A provider's invoice: .csv, .csv.gz, .parquet. Repeat it for one in several files.",
        ),
    ] = None,
    bill_format: Annotated[
        str, typer.Option("--format", help="What the invoice is: cur-2.0 (AWS Data Exports).")
    ] = "cur-2.0",
    month: Annotated[
        str | None, typer.Option("--month", metavar="YYYY-MM", help="Of the invoice, this month alone.")
    ] = None,
    within: Annotated[
        str, typer.Option("--within", metavar="PERCENT", help="What is near enough to be no alarm.")
    ] = "1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare, and post nothing.")] = False,
    sum_again: Annotated[
        bool, typer.Option("--sum-again", help="Where sums for analysts are not the journal's, make them again.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check the journal against workers' lives and their bills, or against a provider's invoice, which it is adjusted to."""
    from pipeline.domain.errors import UsageError

    if not bill:
        return _check(sum_again=sum_again, as_json=as_json)
    if sum_again:
        raise UsageError("--sum-again is of the journal by itself, --bill of an invoice", hint="ask for one of them")
    return _import(bill, bill_format, _month_of(month), _percent_of(within), is_dry=dry_run, as_json=as_json)


def _check(*, sum_again: bool, as_json: bool) -> int:
    from pipeline.app.bills import bills_of
    from pipeline.app.reconciling import reconcile as look
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.cost_reconcile_views import books_document, print_books, print_sums
    from storage.cost_sums import CostSums

    with connected() as stack:
        books = look(stack.database, bills_of(stack))
        sums = CostSums(stack.database)
        wrong = sums.differences()
        if wrong and sum_again:
            sums.start_again()
    is_good = all(pool.is_good for pool in books) and not wrong
    if as_json:
        is_again = bool(wrong) and sum_again
        pools = [books_document(pool) for pool in books]
        print_document({"ok": is_good, "pools": pools, "wrong_sums": wrong, "summed_again": is_again})
    else:
        print_books(books)
        print_sums(wrong, is_again=sum_again)
    return ExitCode.OK if is_good else ExitCode.FAILED


def _import(
    paths: list[Path], bill_format: str, month: date | None, within_percent: Decimal, *, is_dry: bool, as_json: bool
) -> int:
    from infra.invoices import cur
    from infra.invoices.tables import sha256_of
    from pipeline.app.bills import bills_of, bucket_of
    from pipeline.app.invoice_import import InvoiceFile, InvoiceImporter
    from pipeline.app.stack import objects_url_of
    from pipeline.domain.costs.adjusting import Agreement
    from pipeline.domain.errors import UsageError
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.cost_reconcile_views import import_document, print_import

    if bill_format != cur.FORMAT:
        raise UsageError(f"{bill_format!r} is no format of invoices that is known here", hint=cur.FORMAT)
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path} is no file")
    file = InvoiceFile(
        paths=paths, provider=cur.PROVIDER, format=cur.FORMAT, lines=cur.lines, sha256=sha256_of, month=month
    )
    with connected() as stack:
        importer = InvoiceImporter(
            stack.database,
            bills_of(stack),
            stack.settings.currency,
            bucket=bucket_of(objects_url_of(stack.settings)),
        )
        found = importer.run(file, within_percent=within_percent, is_dry=is_dry)
    if as_json:
        print_document({**import_document(found), "dry_run": is_dry})
    else:
        print_import(found, is_dry=is_dry)
    return ExitCode.FAILED if found.verdict is Agreement.OFF else ExitCode.OK


def _month_of(written: str | None) -> date | None:
    from datetime import date

    from pipeline.domain.errors import UsageError

    if written is None:
        return None
    try:
        return date.fromisoformat(f"{written}-01")
    except ValueError:
        raise UsageError(f"{written!r} is no month", hint="write it as 2026-11") from None


def _percent_of(written: str) -> Decimal:
    from decimal import Decimal, InvalidOperation

    from pipeline.domain.errors import UsageError

    try:
        percent = Decimal(written)
    except InvalidOperation:
        percent = Decimal(-1)
    if not (percent.is_finite() and 0 <= percent <= 100):  # noqa: PLR2004 -- percent
        raise UsageError(f"{written!r} is no share", hint="a percentage from 0 to 100, such as 0.5")
    return percent
