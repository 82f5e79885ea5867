"""Rows refused at intake: each gets its answer now, in a part of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.ids import BatchId
from pipeline.domain.objects.part import encode_answer, error_body
from pipeline.domain.objects.roster import REFUSED_SHARD_NO
from pipeline.submit.spool import Spool

_HEADER_ROWS_AT_ONCE: Final = 65_536


class Refusals:
    """Collects answers on disk; there may be as many as the file has lines."""

    def __init__(self, spool: Spool, batch_id: BatchId) -> None:
        """Answer rows of `batch_id`."""
        self._file = spool.append_to("refusals")
        self._lines_path = spool.path("refusals")
        self._part_path = spool.path("refusals-part")
        self._batch_hex = batch_id.rpartition("_")[2]
        self.rows = 0

    def extend(self, refused: Sequence[tuple[int, RequestRefusedError]]) -> None:
        """Append the answer to each (input line number, refusal)."""
        self._file.write(b"".join(self._answer(line_no, refusal) for line_no, refusal in refused))
        self.rows += len(refused)

    def write_part(self) -> Path:
        """Write the part, the header first, and return where it lies in the spool."""
        self._file.flush()
        with self._part_path.open("xb") as part, self._lines_path.open("rb") as lines:
            part.writelines(_header(self.rows))
            shutil.copyfileobj(lines, part)
        return self._part_path

    def _answer(self, line_no: int, refusal: RequestRefusedError) -> bytes:
        # The id follows from batch and line, so that a second intake of the file answers the same.
        request_id = f"req_{self._batch_hex}_{line_no}"
        body = error_body(refusal.message, code=refusal.row_code, param=refusal.param)
        return encode_answer(refusal.status_code, request_id, body) + b"\n"


def _header(rows: int) -> Iterator[bytes]:
    """Yield the header of `domain.objects.part` for the refused rows 0 … rows - 1, piece by piece."""
    yield b'{"rows":['
    each = (b"[%d,%d,0]" % (REFUSED_SHARD_NO, position) for position in range(rows))
    separator = b""
    while piece := b",".join(islice(each, _HEADER_ROWS_AT_ONCE)):
        yield separator + piece
        separator = b","
    yield b"]}\n"
