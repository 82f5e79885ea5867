"""Intake: from an input file to shards and rosters, or to the list of what is wrong with it.

Two passes in bounded memory. The first checks every line and spools what it says; the second, taken only
when no line was bad, finds duplicates, sorts the distinct requests for locality and writes the objects.
A request that is well-formed but cannot be run as asked does not fail the batch: its error is its result.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import new_batch_id
from pipeline.domain.limits import LINE_ERRORS_MAX
from pipeline.ports.batches import Admitted, BatchClaim, LineError, Rejected, Survey
from pipeline.ports.objects import ObjectStore
from pipeline.submit.again import RowsAgain
from pipeline.submit.fingerprint import leaders
from pipeline.submit.looks import HEAD_BYTES, named
from pipeline.submit.reading import RequestReader, Requests
from pipeline.submit.spool import Spool
from pipeline.submit.writing import estimates, place, write_refusals, write_rosters, write_shards

_WRONG_FORMAT: Final = "Invalid file format for Batch API. Must be .jsonl; this looks like"


def take_in(
    claim: BatchClaim,
    source: BinaryIO,
    objects: ObjectStore,
    *,
    models: Mapping[str, frozenset[Endpoint]],
    spool_folder: Path,
    again: RowsAgain | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Admitted | Rejected:
    """Take the input file `source` in, writing shards, rosters and refusals under the claim's token.

    A rejected batch wrote nothing. Whatever the bytes of `source`, the answer is one of the two; the same
    bytes under the same claim write the same objects, so a retry meets its own.

    Args:
        claim: The batch; its endpoint is what every line must call.
        source: The input file, read once from where it stands.
        objects: Where the objects go.
        models: Every model that may be named, with the endpoints it serves.
        spool_folder: Local folder for temporary files, about 1.5 times the input; emptied on any exit.
        again: Of a retry the requests to run; the others of the file are left out.
        on_progress: Called with the rows read so far, now and then while reading and once for each shard
            written: a sign of life, never less than it was before.

    Raises:
        NightrateError: The object store refused.
        OSError: The source cannot be read or the spool cannot be written.
    """
    with Spool(spool_folder) as spool:
        reader = RequestReader(Requests(spool, claim.batch_id), claim.endpoint, models, again)
        return _read(reader, source, on_progress) or _write(claim, reader, objects, on_progress)


def survey(
    source: BinaryIO,
    endpoint: Endpoint,
    *,
    models: Mapping[str, frozenset[Endpoint]],
    spool_folder: Path,
    on_progress: Callable[[int], None] | None = None,
) -> Survey | Rejected:
    """Return what intake would make of the input file, and write nothing; see `take_in`."""
    with Spool(spool_folder) as spool:
        reader = RequestReader(Requests(spool, new_batch_id()), endpoint, models)
        rejected = _read(reader, source, on_progress)
        if rejected is not None:
            return rejected
        model, requests = reader.checker.model, reader.requests
        assert model is not None, "a line without a known model is bad"
        placement = place(requests)
        return Survey(
            model=model,
            rows_total=reader.rows_total,
            rows_duplicate=placement.rows_duplicate,
            rows_refused=requests.refusals.rows,
            shards=estimates(requests, placement),
        )


def _read(reader: RequestReader, source: BinaryIO, on_progress: Callable[[int], None] | None) -> Rejected | None:
    """Read all lines; return what is wrong with them, or None when every one is a request."""
    head = _read_head(source)
    look = named(head)
    if look is not None:
        reader.refuse_file("invalid_file_format", f"{_WRONG_FORMAT} {look}.")
    else:
        reader.read(cast("BinaryIO", _Rejoined(head, source)), on_progress)
        _refuse_repeated_ids(reader)
    if not reader.errors:
        return None
    return Rejected(errors=tuple(reader.errors), errors_total=reader.errors_total, rows_total=reader.rows_total)


def _write(
    claim: BatchClaim, reader: RequestReader, objects: ObjectStore, on_progress: Callable[[int], None] | None
) -> Admitted:
    model, requests = reader.checker.model, reader.requests
    assert model is not None, "a line without a known model is bad"
    placement = place(requests)
    on_shard = (lambda: on_progress(reader.rows_total)) if on_progress is not None else _nothing
    return Admitted(
        rows_total=reader.rows_total,
        rows_duplicate=placement.rows_duplicate,
        rows_refused=requests.refusals.rows,
        shards=write_shards(claim, model, requests, placement, objects, on_shard),
        rosters=write_rosters(claim, requests, placement, objects),
        refusals=write_refusals(claim, requests, objects),
    )


def _refuse_repeated_ids(reader: RequestReader) -> None:
    """Count the requests whose custom id an earlier one has, and list the first in line order."""
    requests = reader.requests
    leader = leaders(requests.custom_id_digests.load())
    repeated = np.flatnonzero(leader != np.arange(len(leader), dtype=np.int32))
    reader.errors_total += len(repeated)
    listed = repeated[:LINE_ERRORS_MAX].tolist()
    if not listed:
        return
    line_nos = requests.line_nos.load()
    with requests.custom_ids.opened() as lines:
        place_before = -1
        for row in listed:
            custom_id = orjson.loads(next(islice(lines, row - place_before - 1, None)))
            place_before = row
            message = (
                f"The custom_id '{custom_id}' of this line is already that of line {line_nos[leader[row]]}; "
                "custom ids are unique in a file."
            )
            reader.errors.append(
                LineError(code="duplicate_custom_id", message=message, param="custom_id", line=int(line_nos[row]))
            )
    reader.errors.sort(key=lambda error: error.line or 0)
    del reader.errors[LINE_ERRORS_MAX:]


def _nothing() -> None:
    """Report to nobody."""


def _read_head(source: BinaryIO) -> bytes:
    """Read the first `HEAD_BYTES`, less only where the file ends."""
    head = io.BytesIO()
    while (missing := HEAD_BYTES - head.tell()) > 0 and (block := source.read(missing)):
        head.write(block)
    return head.getvalue()


class _Rejoined:
    """A stream again, after its head was read."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        """Give `head` first."""
        self._head = head
        self._rest = rest

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end."""
        if self._head:
            block, self._head = self._head[:size], self._head[size:]
            return block
        return self._rest.read(size)
