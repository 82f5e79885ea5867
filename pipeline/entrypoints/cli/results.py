"""`results`: a batch's output or error file, or its results in another shape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.domain.errors import ConflictError, NotFoundError, UsageError
from pipeline.domain.results import ResultFormat
from pipeline.entrypoints.cli.counter import Counter, at_counter
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, BatchIdArgument, ForceOption, OutputOption
from pipeline.entrypoints.cli.talk import print_document, say

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.ports.batches import BatchView
    from pipeline.ports.desk import Desk


@at_counter
def results(
    counter: Counter,
    batch_id: BatchIdArgument,
    *,
    errors: Annotated[bool, typer.Option("--errors", help="The failed rows instead of the results.")] = False,
    kind: Annotated[
        ResultFormat | None,
        typer.Option(
            "--format",
            help="jsonl: all rows, failed ones too; merged: each request with its response; parquet: a table.",
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Of a batch that still runs, the rows that are finished.")
    ] = False,
    output: OutputOption = None,
    force: ForceOption = False,
    as_json: AsJson = False,
) -> int:
    """Write a batch's results, in input order, to stdout or a file."""
    from pipeline.entrypoints.cli.result_files import check_target, save, stream

    if errors and (partial or kind is not None):
        raise UsageError("--errors is the error file as it is", hint="--format and --partial have failed rows in them")
    if output is not None:
        check_target(output, force=force)
    with counter.desk() as desk:
        if partial or kind is not None:
            return _shaped(
                desk, batch_id, kind or ResultFormat.JSONL, is_partial=partial, output=output, as_json=as_json
            )
        view = desk.get(batch_id)
        file_id = _file_of(view, errors=errors)
        if output is None:
            stream(desk, file_id)
            return ExitCode.OK
        save(desk, file_id, output)
        file = desk.file(file_id)
    say(f"{output} has {(view.rows_failed if errors else view.rows_completed) or 0:,} rows.")
    if as_json:
        document = {"batch_id": batch_id, "file_id": file_id, "path": str(output.absolute())}
        print_document(document | {"size_bytes": file.size_bytes, "sha256": file.sha256})
    return ExitCode.OK


def _shaped(
    desk: Desk, batch_id: str, kind: ResultFormat, *, is_partial: bool, output: Path | None, as_json: bool
) -> int:
    """Write the results as the API's `/v1/batches/{id}/results` has them."""
    from pipeline.entrypoints.cli.result_files import check_printable, save_chunks, stream_chunks

    if output is None:
        check_printable(kind)
    view = desk.get(batch_id)
    if not view.state.is_terminal and not is_partial:
        raise ConflictError(f"{batch_id} is {view.state}", hint="--partial writes the rows that are finished by now")
    chunks = desk.results(view, kind, is_partial=is_partial)
    if output is None:
        stream_chunks(chunks)
        return ExitCode.OK
    size_bytes = save_chunks(chunks, output)
    say(f"{output} has {size_bytes:,} bytes.")
    if as_json:
        document = {"batch_id": batch_id, "format": str(kind), "path": str(output.absolute())}
        print_document(document | {"size_bytes": size_bytes, "is_partial": not view.state.is_terminal})
    return ExitCode.OK


def _file_of(view: BatchView, *, errors: bool) -> str:
    """Return the file that is asked for, or raise what says why there is none."""
    from pipeline.entrypoints.cli.documents import why

    if not view.state.is_terminal:
        raise ConflictError(
            f"{view.batch_id} has no results yet, it is {view.state}: {why(view)}",
            hint=f"`nightrate watch {view.batch_id}` waits for it; --partial writes the rows that are finished",
        )
    file_id = view.error_file_id if errors else view.output_file_id
    if file_id is not None:
        return file_id
    if view.rows_completed is None:
        raise NotFoundError(
            f"{view.batch_id} has no results, it {view.state}: {why(view)}", hint=f"`nightrate show {view.batch_id}`"
        )
    if errors:
        raise NotFoundError(f"{view.batch_id} has no error file: none of its {view.rows_total:,} rows failed")
    raise NotFoundError(
        f"{view.batch_id} has no output file: none of its {view.rows_total:,} rows succeeded",
        hint=f"`nightrate results {view.batch_id} --errors` says why",
    )
