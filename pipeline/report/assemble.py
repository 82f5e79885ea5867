"""Assembly: from rosters and parts to the two files a user downloads, rows in the order of the input.

A row goes to the output file when it succeeded and to the error file otherwise, including rows that never
ran. A duplicate gets its leader's result under its own id.
"""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.errors import ObjectCorruptError, ObjectMissingError
from pipeline.domain.objects.keys import result_key
from pipeline.domain.objects.part import encode_unanswered
from pipeline.domain.objects.roster import decode_roster
from pipeline.domain.ranges import Ranges
from pipeline.ports.batches import Assembled, BatchClaim, PartRef, ResultFile, ResultSources
from pipeline.ports.objects import ObjectStore
from pipeline.report.gather import LOST, MISSING, Results
from pipeline.report.spans import cuts, read_spans

#: Rows written at once.
_ROWS_AT_ONCE: Final = 1024


#: Says which rows (shard number, positions) a part holds according to the books.
RowsOf = Callable[[PartRef], Iterable[tuple[int, Ranges]]]

_LOST = encode_unanswered(
    "result_lost", "This request was answered, but the object store lost the answer: its part is missing or damaged."
)


def assemble(
    claim: BatchClaim,
    sources: ResultSources,
    objects: ObjectStore,
    *,
    spool_folder: Path,
    rows_of_lost: RowsOf | None = None,
) -> Assembled:
    """Write the batch's output and error files under the claim's token; a file without rows is not written.

    Each line is `{"id":"batch_req_<batch>_<n>","custom_id":…,"response":…,"error":…}`; n counts the batch's
    requests from 1. The same sources under the same claim write the same files, so a retry meets its own.

    Args:
        claim: The batch.
        sources: Every roster and part of it.
        objects: Where those lie and the files go.
        spool_folder: Local folder for temporary files, about twice the results; emptied on any exit.
        rows_of_lost: Given, the rows of a part that is missing or damaged are answered with `result_lost`;
            without it such a part is an error.

    Raises:
        ObjectMissingError: A roster or part is not there.
        ObjectCorruptError: A hash differs, or rosters and parts contradict each other; the message says where.
        NightrateError: The object store refused.
        OSError: The spool cannot be written.
    """
    spool_folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="assemble-", dir=spool_folder))
    try:
        with closing(Results(folder / "results", sources.shard_rows)) as results:
            _gather(results, sources, objects, rows_of_lost)
            with _ResultWriter(folder, claim, results, sources) as writer:
                for roster in sources.rosters:
                    writer.write(roster, objects)
        return Assembled(
            output=_stored(claim, "output", folder, writer.rows_succeeded, objects),
            error=_stored(claim, "error", folder, writer.rows_total - writer.rows_succeeded, objects),
            rows_missing=writer.rows_missing,
        )
    finally:
        shutil.rmtree(folder)


def _gather(results: Results, sources: ResultSources, objects: ObjectStore, rows_of_lost: RowsOf | None) -> None:
    if sources.refusals is not None:
        try:
            results.add_refusals(sources.refusals, objects)
        except (ObjectMissingError, ObjectCorruptError):
            if rows_of_lost is None:
                raise
            results.lose_refusals(sources.rows_refused)
    for part in sources.parts:
        try:
            results.add(part, objects)
        except (ObjectMissingError, ObjectCorruptError):
            if rows_of_lost is None:
                raise
            results.lose(part.object_key, rows_of_lost(part))


class _ResultWriter:
    """Writes both files, roster by roster."""

    def __init__(self, folder: Path, claim: BatchClaim, results: Results, sources: ResultSources) -> None:
        self.rows_total = 0
        self.rows_succeeded = 0
        self.rows_missing = 0
        self._results = results
        self._id = b"batch_req_%b" % claim.batch_id.rpartition("_")[2].encode()
        #: What to say of a row without a result: it never ran, or its result is lost.
        self._missing = _tail(encode_unanswered(sources.missing_code, sources.missing_message))
        self._lost = _tail(_LOST)
        self._mapped: mmap.mmap | None = results.mapped()
        self._output: BinaryIO = (folder / "output").open("xb")
        self._error: BinaryIO = (folder / "error").open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._output.close()
        self._error.close()
        if self._mapped is not None:
            self._mapped.close()

    def write(self, ref: PartRef, objects: ObjectStore) -> None:
        """Write the rows of one roster."""
        try:
            rows = list(decode_roster(objects.read(ref.object_key, sha256=ref.sha256)))
        except ValueError as error:
            raise ObjectCorruptError(f"roster {ref.object_key!r} has a line that makes no sense") from error
        if not rows:
            return
        shard_nos, positions, custom_ids = zip(*rows, strict=True)
        places = np.array([shard_nos, positions], dtype=np.int64)
        numbers = self._results.numbers_of(ref.object_key, places[0], places[1])
        for low, high in cuts(self._results.lengths[numbers]):
            self._write_some(custom_ids[low:high], numbers[low:high])

    def _write_some(self, custom_ids: Sequence[bytes], numbers: NDArray[np.int64]) -> None:
        starts, is_success = self._results.starts[numbers], self._results.is_success[numbers]
        # As in `_tail`.
        found = read_spans(self._mapped, starts + 1, starts + self._results.lengths[numbers] + 1)
        for index in np.flatnonzero(starts == LOST).tolist():
            found[index] = self._lost
        row_id, missing = self._id, self._missing
        for low in range(0, len(found), _ROWS_AT_ONCE):
            some = slice(low, low + _ROWS_AT_ONCE)
            lines = [
                b'{"id":"%b_%d","custom_id":%b,%b' % (row_id, row_no, custom_id, result or missing)
                for row_no, (custom_id, result) in enumerate(
                    zip(custom_ids[some], found[some], strict=True), self.rows_total + 1
                )
            ]
            self._route(lines, is_success[some].tolist())
            self.rows_total += len(lines)
        self.rows_succeeded += int(np.count_nonzero(is_success))
        self.rows_missing += int(np.count_nonzero(starts == MISSING))

    def _route(self, lines: Sequence[bytes], is_success: Sequence[bool]) -> None:
        if all(is_success):
            self._output.write(b"".join(lines))
            return
        pairs = list(zip(lines, is_success, strict=True))
        self._output.write(b"".join([line for line, succeeded in pairs if succeeded]))
        self._error.write(b"".join([line for line, succeeded in pairs if not succeeded]))


def _tail(line: bytes) -> bytes:
    """Return a result line as it follows the id: its own opening brace gives way, its newline is taken along."""
    return line[1:] + b"\n"


def _stored(claim: BatchClaim, kind: str, folder: Path, rows: int, objects: ObjectStore) -> ResultFile | None:
    if not rows:
        return None
    key = result_key(claim.tenant_id, claim.batch_id, claim.claim_token, kind)
    stored = objects.put(key, folder / kind)
    return ResultFile(object_key=stored.key, sha256=stored.sha256, size_bytes=stored.size_bytes, rows=rows)
