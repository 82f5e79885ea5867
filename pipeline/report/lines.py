"""Result lines in the order of the input: of a batch that still runs, from its parts; of one that ended, from its files.

A line is what the output and error files hold, and both ways give the same line for the same row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from pipeline.domain.errors import ObjectCorruptError, ObjectMissingError
from pipeline.domain.ids import BatchId
from pipeline.domain.objects.roster import decode_roster
from pipeline.ports.batches import PartRef, ResultSources
from pipeline.ports.objects import ObjectStore
from pipeline.report.gather import Results
from pipeline.report.spans import cuts, read_spans

#: What a result line begins with; a custom id is JSON, written without white space.
_HEAD: Final = re.compile(rb'\{"id":"batch_req_[0-9a-z]+_([0-9]+)","custom_id":("(?:[^"\\]|\\.)*"),')


@dataclass(frozen=True, slots=True)
class ResultLine:
    """The result of one request."""

    #: Which request of the input it answers, counted from 1; blank lines are none.
    request_no: int
    #: As JSON.
    custom_id: bytes
    #: From `"response":` on to the closing brace, without a newline.
    rest: bytes
    line: bytes


def committed_lines(
    batch_id: BatchId, sources: ResultSources, objects: ObjectStore, folder: Path
) -> Iterator[ResultLine]:
    """Yield the lines of the rows that have results by now, each once, in input order.

    Disk: the results once, in `folder`, before the first line. Memory: 17 bytes a row. Parts that are missing or
    damaged are left out: what became of their rows is decided when the batch ends.
    """
    with ExitStack() as resources:
        results = resources.enter_context(closing(Results(folder / "results", sources.shard_rows)))
        _gather(results, sources, objects)
        mapped = results.mapped()
        if mapped is None:
            return
        resources.enter_context(closing(mapped))
        prefix = b"batch_req_%b" % batch_id.rpartition("_")[2].encode()
        rows_before = 0
        for roster in sources.rosters:
            rows = list(decode_roster(objects.read(roster.object_key, sha256=roster.sha256)))
            places = np.array([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2)
            numbers = results.numbers_of(roster.object_key, places[:, 0], places[:, 1])
            finished = np.flatnonzero(results.starts[numbers] >= 0)
            numbers = numbers[finished]
            for low, high in cuts(results.lengths[numbers]):
                starts = results.starts[numbers[low:high]]
                found = read_spans(mapped, starts, starts + results.lengths[numbers[low:high]])
                for index, result in zip(finished[low:high].tolist(), found, strict=True):
                    yield _line(prefix, rows_before + index + 1, rows[index][2], result)
            rows_before += len(rows)


def filed_lines(files: Iterable[BinaryIO]) -> Iterator[ResultLine]:
    """Yield the lines of output and error files, each of which is in input order, in the order of the input.

    Raises:
        ObjectCorruptError: One is no file of results.
    """
    readers = list(map(_read, files))
    heads = [next(reader, None) for reader in readers]
    while True:
        index = min(
            (index for index, head in enumerate(heads) if head is not None),
            key=lambda index: _number(heads[index]),
            default=None,
        )
        if index is None:
            return
        head = heads[index]
        assert head is not None
        yield head
        heads[index] = next(readers[index], None)


def _gather(results: Results, sources: ResultSources, objects: ObjectStore) -> None:
    if sources.refusals is not None:
        try:
            results.add_refusals(sources.refusals, objects)
        except (ObjectMissingError, ObjectCorruptError):
            results.lose_refusals(sources.rows_refused)
    for part in sources.parts:
        _add(results, part, objects)


def _add(results: Results, part: PartRef, objects: ObjectStore) -> None:
    try:
        results.add(part, objects)
    except (ObjectMissingError, ObjectCorruptError):
        return


def _line(prefix: bytes, request_no: int, custom_id: bytes, result: bytes) -> ResultLine:
    rest = result[1:]
    line = b'{"id":"%b_%d","custom_id":%b,%b' % (prefix, request_no, custom_id, rest)
    return ResultLine(request_no, custom_id, rest, line)


def _read(file: BinaryIO) -> Iterator[ResultLine]:
    for written in file:
        line = written.rstrip(b"\r\n")
        head = _HEAD.match(line)
        if head is None:
            raise ObjectCorruptError("a file of results has a line that makes no sense")
        yield ResultLine(int(head[1]), head[2], line[head.end() :], line)


def _number(line: ResultLine | None) -> int:
    assert line is not None
    return line.request_no
