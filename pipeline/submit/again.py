"""Which requests of a file are to run again: those that the error file of an earlier batch names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Final, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.domain.errors import ObjectCorruptError
from pipeline.submit.fingerprint import DIGEST_BYTES, digests
from pipeline.submit.lines import read_lines

#: Of a line of an error file, which may quote what a request said.
_LINE_BYTES_MAX: Final = 256 * 1024 * 1024


class RowsAgain:
    """A set of custom ids, as digests: 16 bytes for each."""

    def __init__(self, known: NDArray[np.bytes_]) -> None:
        """Use `RowsAgain.read` instead: these are sorted."""
        self._known = known

    @classmethod
    def read(cls, source: BinaryIO) -> Self:
        """Return the custom ids of an error file; raises `ObjectCorruptError` for what is none."""
        found = bytearray()
        for block in read_lines(source, line_bytes_max=_LINE_BYTES_MAX):
            try:
                ids = [orjson.dumps(orjson.loads(line)["custom_id"])[1:-1] for line in block.lines if line]
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise ObjectCorruptError("the error file has a line that names no request") from error
            found += b"".join(digests(ids))
        return cls(np.sort(_column(bytes(found))))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._known)

    def has(self, custom_ids: Sequence[str]) -> list[bool]:
        """Return of each custom id whether its request is to run again."""
        if not custom_ids or not len(self._known):
            return [False] * len(custom_ids)
        asked = _column(b"".join(digests([orjson.dumps(custom_id)[1:-1] for custom_id in custom_ids])))
        places = np.minimum(np.searchsorted(self._known, asked), len(self._known) - 1)
        found: list[bool] = (self._known[places] == asked).tolist()
        return found


def _column(joined: bytes) -> NDArray[np.bytes_]:
    # Zero bytes at the end do not count, but all have the same length, so that these differ elsewhere too.
    return np.frombuffer(joined, dtype=f"S{DIGEST_BYTES}")
