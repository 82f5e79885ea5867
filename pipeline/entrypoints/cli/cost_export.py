"""`nightrate cost export`: FOCUS, or a view of the schema `cost`, as a file; and days that are over, to the object store."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from pipeline.entrypoints.cli.cost_options import FromOption, ToOption, period_of
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import ForceOption
from pipeline.entrypoints.cli.talk import print_line, say

if TYPE_CHECKING:  # keeps `nightrate --help` light
    from collections.abc import Iterator

    from pipeline.app.stack import Stack
    from pipeline.ports.cost_reports import Period
    from pipeline.report.tables import TableFormat


class ExportFormat(StrEnum):
    """What is exported, and how it is written."""

    FOCUS_1_2 = "focus-1.2"
    FOCUS_1_3 = "focus-1.3"
    PARQUET = "parquet"
    CSV = "csv"
    JSON = "json"


def export(
    *,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="focus-1.2 or focus-1.3 (as CSV, or as --out ends); of a view parquet, csv, json."
        ),
    ] = "csv",
    view: Annotated[str, typer.Option("--view", metavar="NAME", help="Which view of the schema cost.")] = "daily",
    from_: FromOption = None,
    to: ToOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to; focus to .csv, .parquet or .json. Default: stdout."),
    ] = None,
    daily: Annotated[
        bool,
        typer.Option("--daily", help="Write all views of days that are over to the object store, where they changed."),
    ] = False,
    force: ForceOption = False,
) -> int:
    """Write what was had and what it cost for other programs."""
    from pipeline.domain.errors import UsageError
    from pipeline.entrypoints.cli.connection import connected

    if daily:
        if out is not None or from_ is not None or to is not None:
            raise UsageError("--daily takes no other options", hint="it writes every day that is over and changed")
        with connected() as stack:
            return _export_days(stack)
    asked = _format_of(form)
    period = period_of(from_, to)
    if out is not None and out.exists() and not force:
        raise UsageError(f"{out} exists", hint="--force overwrites it")
    if out is None and (asked is ExportFormat.PARQUET) and sys.stdout.isatty():
        raise UsageError("Parquet is nothing to read on a terminal", hint="--out FILE.parquet")
    with connected() as stack:
        _export(stack, asked, view, period, out)
    return ExitCode.OK


def _format_of(text: str) -> ExportFormat:
    from pipeline.domain.errors import UsageError

    try:
        return ExportFormat(text)
    except ValueError:
        raise UsageError(f"--format {text!r} is not known", hint=", ".join(ExportFormat)) from None


def _export(stack: Stack, asked: ExportFormat, view: str, period: Period, out: Path | None) -> None:
    from pipeline.app.cost_exports import focus_export, view_export
    from pipeline.report.focus.columns import FocusVersion
    from pipeline.report.tables import TableFormat
    from storage.cost_exports import CostExports

    with CostExports(stack.database).moment() as moment:
        if asked in {ExportFormat.FOCUS_1_2, ExportFormat.FOCUS_1_3}:
            version = FocusVersion(asked.removeprefix("focus-"))
            content = focus_export(moment, version, period, _table_format(out))
        else:
            content = view_export(moment, view, period, TableFormat(asked))
        if out is None:
            _write(content, sys.stdout.buffer)
            return
        # Beside its place until it is whole: what was broken off is no file.
        unfinished = out.with_name(f".{out.name}.part")
        try:
            with unfinished.open("wb") as file:
                size = _write(content, file)
            unfinished.replace(out)
        finally:
            unfinished.unlink(missing_ok=True)
    say(f"{out}: {size:,} bytes, {period.first} until {period.until}.")


def _table_format(out: Path | None) -> TableFormat:
    from pipeline.domain.errors import UsageError
    from pipeline.report.tables import TableFormat

    suffix = ".csv" if out is None else out.suffix
    formats = {
        ".csv": TableFormat.CSV,
        ".parquet": TableFormat.PARQUET,
        ".json": TableFormat.JSON,
        ".jsonl": TableFormat.JSON,
    }
    if suffix not in formats:
        raise UsageError(f"FOCUS is not written as {suffix or 'a file without an ending'}", hint=", ".join(formats))
    return formats[suffix]


def _write(content: Iterator[bytes], target: BinaryIO) -> int:
    size = 0
    for chunk in content:
        target.write(chunk)
        size += len(chunk)
    return size


def _export_days(stack: Stack) -> int:
    from pipeline.app.cost_exports import DayExporter, check_parquet
    from storage.cost_sums import CostSums

    check_parquet()
    sums = CostSums(stack.database)
    while sums.sum_up():
        pass
    exporter, exported = DayExporter(stack), 0
    while found := exporter.run(stack.recurring.now(), at_once=True):
        for day in found:
            print_line(f"{day.day} version {day.version}")
        exported += len(found)
    say(f"{exported} days were written." if exported != 1 else "1 day was written.")
    return ExitCode.OK
