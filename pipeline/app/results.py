"""A batch's results in the shape that is asked for, while it runs or once it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final

from infra.lending import lent_folder
from pipeline.app.stack import Stack
from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.results import ResultFormat
from pipeline.ports.access import Scope
from pipeline.ports.batches import BatchView
from pipeline.ports.files import FileView
from pipeline.report.columns import parquet
from pipeline.report.lines import ResultLine, committed_lines, filed_lines
from pipeline.report.merged import merged_lines

#: Of what is handed on at once, at least.
_CHUNK_BYTES: Final = 256 * 1024


def result_chunks(stack: Stack, view: BatchView, kind: ResultFormat, *, is_partial: bool) -> Iterator[bytes]:
    """Yield a batch's results in input order, in pieces; what is wrong is raised before the first.

    Of a batch that still runs these are the rows that have results by now, each at most once: they are read from
    committed parts. Of a batch that has ended they are read from its output and error files.

    Raises:
        ConflictError: It still runs, and partial results were not asked for.
        NotFoundError: It ended without results, or they or the input, where that is wanted, were deleted.
        ParquetMissingError: pyarrow is not installed.
        ObjectMissingError: A file is not where it was stored.
        ObjectCorruptError: What was stored contradicts itself.
    """
    if not view.state.is_terminal and not is_partial:
        raise ConflictError(f"Batch {view.batch_id} is {view.state}: partial=true returns the rows that are finished.")
    with ExitStack() as resources:
        lines = _filed(stack, view, resources) if view.state.is_terminal else _committed(stack, view, resources)
        match kind:
            case ResultFormat.JSONL:
                yield from _joined(line.line for line in lines)
            case ResultFormat.MERGED:
                source = _visible(stack, view, view.input_file_id, "input has")
                opened = resources.enter_context(stack.objects.open(source.object_key))
                yield from _joined(merged_lines(opened, lines))
            case ResultFormat.PARQUET:
                yield from parquet(view.endpoint, lines)


def _filed(stack: Stack, view: BatchView, resources: ExitStack) -> Iterator[ResultLine]:
    file_ids = [file_id for file_id in (view.output_file_id, view.error_file_id) if file_id is not None]
    if not file_ids:
        raise NotFoundError(f"Batch {view.batch_id} has no results: it is {view.state}.")
    # Results that their owner deleted, or whose time is over, are not to be had this way either.
    files = [_visible(stack, view, file_id, "results have") for file_id in file_ids]
    return filed_lines([resources.enter_context(stack.objects.open(file.object_key)) for file in files])


def _committed(stack: Stack, view: BatchView, resources: ExitStack) -> Iterator[ResultLine]:
    folder = resources.enter_context(lent_folder(stack.spool_folder, prefix="partial-"))
    return committed_lines(view.batch_id, stack.batches.committed(view.batch_id), stack.objects, folder)


def _visible(stack: Stack, view: BatchView, file_id: str, what: str) -> FileView:
    try:
        return stack.files.get(file_id, Scope(tenant_id=view.tenant_id))
    except NotFoundError:
        raise NotFoundError(f"The {what} been deleted or expired: file {file_id} is gone.") from None


def _joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    held_bytes = 0
    for line in lines:
        held += (line, b"\n")
        held_bytes += len(line) + 1
        if held_bytes >= _CHUNK_BYTES:
            yield b"".join(held)
            held.clear()
            held_bytes = 0
    if held:
        yield b"".join(held)
