"""Results gathered from parts: where each row's line lies in one local file, in arrays.

A batch may have more parts than a process may have open files, and each must be read through anyway to
check its hash. So parts are copied one after the other into one file, and rows are found there by offset.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.errors import ObjectCorruptError
from pipeline.domain.objects.roster import REFUSED_SHARD_NO
from pipeline.domain.ranges import Ranges
from pipeline.ports.batches import PartRef
from pipeline.ports.objects import ObjectStore
from pipeline.report.header import read_header

_BLOCK_BYTES: Final = 1024 * 1024
_NEWLINE: Final = 0x0A
#: Offset of a row that no part holds.
MISSING: Final = -1
#: Offset of a row whose part is missing or damaged. Both offsets have the length 0.
LOST: Final = -2


class Results:
    """The result lines of one batch; rows are numbered through all shards, the refused ones last.

    Memory: 17 bytes a row. Disk: the results once, at `path`.
    """

    def __init__(self, path: Path, shard_rows: Sequence[int]) -> None:
        """Gather into the new file `path` for shards of these row counts."""
        self._path = path
        self._file: BinaryIO = path.open("xb")
        self._bytes = 0
        #: First row number of each shard, then of the refused rows.
        self._bases = np.concatenate([[0], np.cumsum(np.asarray(shard_rows, dtype=np.int64))])
        self._rows = np.append(np.asarray(shard_rows, dtype=np.int64), 0)
        self._keys: list[str] = []
        total = int(self._bases[-1])
        self.starts = np.full(total, MISSING, dtype=np.int64)
        self.lengths = np.zeros(total, dtype=np.uint32)
        self.is_success = np.zeros(total, dtype=np.bool_)
        self._part_nos = np.zeros(total, dtype=np.int32)

    def close(self) -> None:
        """Close the file; the caller removes it."""
        self._file.close()

    def add_refusals(self, ref: PartRef, objects: ObjectStore) -> None:
        """Add the part of the rows refused at intake; to be called once, before any `add`."""
        assert not self._keys, "refused rows come first"
        with objects.fetch(ref.object_key, sha256=ref.sha256) as path, path.open("rb") as part:
            rows = read_header(ref.object_key, part)
            if not (np.all(rows[:, 0] == REFUSED_SHARD_NO) and np.all(rows[:, 1] == np.arange(len(rows)))):
                raise ObjectCorruptError(f"refusals {ref.object_key!r} name rows other than the refused ones, in order")
            self._extend(len(rows), MISSING)
            self._place(ref.object_key, rows, part)

    def lose_refusals(self, rows: int) -> None:
        """Take note that the answers of the rows refused at intake are lost; instead of `add_refusals`."""
        self._extend(rows, LOST)

    def add(self, ref: PartRef, objects: ObjectStore) -> None:
        """Add a part.

        Raises:
            ObjectCorruptError: Its hash differs, its lines do not match its header, it names a row that
                does not exist, or a row that another part holds.
        """
        with objects.fetch(ref.object_key, sha256=ref.sha256) as path, path.open("rb") as part:
            rows = read_header(ref.object_key, part)
            if np.any(rows[:, 0] == REFUSED_SHARD_NO):
                raise ObjectCorruptError(f"part {ref.object_key!r} names rows that were refused at intake")
            self._place(ref.object_key, rows, part)

    def lose(self, where: str, rows: Iterable[tuple[int, Ranges]]) -> None:
        """Take note that the results of these rows (shard number, positions) are lost; `where` names their part."""
        for shard_no, ranges in rows:
            for start, stop in ranges:
                positions = np.arange(start, stop, dtype=np.int64)
                numbers = self.numbers_of(where, np.full(len(positions), shard_no, dtype=np.int64), positions)
                self.starts[numbers] = LOST

    def numbers_of(self, where: str, shard_nos: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row numbers at these places; `where` names the object that says them.

        Raises:
            ObjectCorruptError: There is no such shard or position.
        """
        # Shard number -1, the refused rows, indexes the last entry.
        exists = (shard_nos >= REFUSED_SHARD_NO) & (shard_nos < len(self._rows) - 1) & (positions >= 0)
        exists[exists] = positions[exists] < self._rows[shard_nos[exists]]
        if not np.all(exists):
            first = int(np.argmin(exists))
            place = f"shard {shard_nos[first]}, position {positions[first]}"
            raise ObjectCorruptError(f"{where!r} names a row that does not exist: {place}")
        return self._bases[shard_nos] + positions

    def mapped(self) -> mmap.mmap | None:
        """Map the gathered lines for reading; None where there are none. The caller closes it."""
        self._file.flush()
        if not self._bytes:
            return None
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _extend(self, rows: int, start: int) -> None:
        """Make room for the rows refused at intake; a second call finds the room made by a first that failed."""
        base = int(self._bases[-1])
        self._rows[-1] = rows
        self.starts = np.append(self.starts[:base], np.full(rows, start, dtype=np.int64))
        for name in ("lengths", "is_success", "_part_nos"):
            column = getattr(self, name)[:base]
            setattr(self, name, np.append(column, np.zeros(rows, dtype=column.dtype)))

    def _place(self, key: str, rows: NDArray[np.int64], part: BinaryIO) -> None:
        numbers = self.numbers_of(key, rows[:, 0], rows[:, 1])
        self._refuse_second_results(key, rows, numbers)
        starts, stops = self._copy_lines(part)
        if len(starts) != len(rows):
            raise ObjectCorruptError(f"part {key!r} has {len(starts)} results for {len(rows)} rows")
        self.starts[numbers] = starts
        self.lengths[numbers] = stops - starts
        self.is_success[numbers] = rows[:, 2] == 1
        self._part_nos[numbers] = len(self._keys)
        self._keys.append(key)

    def _refuse_second_results(self, key: str, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        if len(numbers) and np.any(again := self.starts[numbers] >= 0):
            index = int(np.argmax(again))
            other = self._keys[self._part_nos[numbers[index]]]
        elif len(np.unique(numbers)) != len(numbers):
            in_order = np.sort(numbers)
            number = in_order[1:][in_order[1:] == in_order[:-1]][0]
            index, other = int(np.argmax(numbers == number)), key
        else:
            return
        place = f"shard {rows[index, 0]}, position {rows[index, 1]}"
        raise ObjectCorruptError(f"two results for {place}: in {other!r} and in {key!r}")

    def _copy_lines(self, part: BinaryIO) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Append the rest of `part` to the file; return where each line starts and where it ends, newline excluded."""
        first = self._bytes
        found: list[NDArray[np.int64]] = []
        while block := part.read(_BLOCK_BYTES):
            found.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _NEWLINE) + self._bytes)
            self._file.write(block)
            self._bytes += len(block)
        stops = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
        starts = np.concatenate([[first], stops[:-1] + 1]) if len(stops) else stops
        return starts, stops
