"""The spool: what intake keeps on local disk between reading a file and writing its shards.

Ten million rows of keys, ids and payloads would not fit in memory; each step loads the columns it needs.
"""

from __future__ import annotations

import mmap
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Payload bytes held while rows are brought from the file's order into another.
_GATHER_BYTES_MAX: Final = 32 * 1024 * 1024
#: Rows read between two releases of mapped memory. A row may map 64 KiB around it.
_RELEASE_ROWS: Final = 1024


class Spool:
    """A private folder of append-only files, removed with all that is in it on leaving the context."""

    def __init__(self, parent: Path) -> None:
        """Make the folder inside `parent`, which is created where missing."""
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="intake-", dir=parent))
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
        shutil.rmtree(self._folder)

    def path(self, name: str) -> Path:
        """Return the path of the file `name`."""
        return self._folder / name

    def append_to(self, name: str) -> BinaryIO:
        """Open the new file `name` for writing; closed with the spool at the latest."""
        return self._files.enter_context(self.path(name).open("xb"))


class Column:
    """One number a row, on disk until it is asked for."""

    def __init__(self, spool: Spool, name: str, typecode: str) -> None:
        """Keep numbers of the `array` module's `typecode` in the spool's file `name`."""
        self._file = spool.append_to(name)
        self._path = spool.path(name)
        self._typecode = typecode

    def extend(self, values: Sequence[int]) -> None:
        """Append one number for each further row."""
        self._file.write(array(self._typecode, values))

    def load(self) -> NDArray[Any]:
        """Return all rows' numbers."""
        self._file.flush()
        return np.fromfile(self._path, dtype=self._typecode)

    def mapped(self) -> NDArray[Any]:
        """Return all rows' numbers, read where they are touched."""
        if not self._file.tell():  # nothing cannot be mapped
            return np.empty(0, dtype=self._typecode)
        self._file.flush()
        return np.memmap(self._path, dtype=self._typecode, mode="r")


class DigestColumn:
    """One 128-bit digest a row, on disk until it is asked for."""

    def __init__(self, spool: Spool, name: str) -> None:
        """Keep digests in the spool's file `name`."""
        self._file = spool.append_to(name)
        self._path = spool.path(name)

    def extend(self, digests: Sequence[bytes]) -> None:
        """Append one digest for each further row."""
        self._file.write(b"".join(digests))

    def load(self) -> NDArray[np.uint64]:
        """Return all rows' digests as (n, 2) halves."""
        self._file.flush()
        dtype: DTypeLike = np.uint64
        return np.fromfile(self._path, dtype=dtype).reshape(-1, 2)


class RaggedColumn:
    """A few numbers a row, not the same count in each, on disk until they are asked for."""

    def __init__(self, spool: Spool, name: str) -> None:
        """Keep counts and numbers in the spool's files that begin with `name`."""
        self._counts = Column(spool, f"{name}-counts", "H")
        self._values = Column(spool, name, "I")

    def extend(self, rows: Sequence[Sequence[int]]) -> None:
        """Append the 32-bit numbers of each further row, fewer than 65,536."""
        self._counts.extend(list(map(len, rows)))
        self._values.extend(list(chain.from_iterable(rows)))

    def load(self, rows: NDArray[np.int32]) -> RaggedRows:
        """Return the numbers of `rows`."""
        counts = self._counts.load()
        starts = np.cumsum(counts, dtype=np.uint32)  # a file has no 2**32 levels
        starts -= counts
        return RaggedRows(counts=counts[rows], starts=starts[rows], values=self._values.mapped())


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedRows:
    """Rows of some numbers each."""

    counts: NDArray[np.uint16]
    starts: NDArray[np.uint32]
    #: On disk.
    values: NDArray[np.uint32]

    def at(self, index: int, rows: NDArray[np.int32]) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Return the number at `index` of each of `rows`, 0 where there is none, and which have one."""
        has_one = self.counts[rows] > index
        found = np.zeros(len(rows), dtype=np.uint32)
        found[has_one] = self.values[self.starts[rows[has_one]] + index]
        return found, has_one


class Payloads:
    """The rows' bytes, appended in input order and gathered in any other."""

    def __init__(self, spool: Spool, name: str) -> None:
        """Keep payloads in the spool's file `name`."""
        self._file = spool.append_to(name)
        self._path = spool.path(name)

    def extend(self, rows: Sequence[bytes]) -> None:
        """Append the payload of each further row."""
        self._file.write(b"".join(rows))

    def opened(self) -> BinaryIO:
        """Open what was appended for reading from its start."""
        self._file.flush()
        return self._path.open("rb")

    def gather(
        self, starts: NDArray[np.int64], stops: NDArray[np.int64], cuts: Sequence[tuple[int, int]]
    ) -> Iterator[bytes]:
        """Yield, for each range of `cuts`, the payloads at [starts, stops) of its rows, joined.

        The ranges follow on one another from row 0.
        """
        self._file.flush()
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            while cuts:
                batch, cuts = _head(cuts, stops - starts)
                first, last = batch[0][0], batch[-1][1]
                pieces = _pieces(mapped, starts[first:last], stops[first:last])
                for start, stop in batch:
                    yield b"".join(pieces[start - first : stop - first])


def _head(
    cuts: Sequence[tuple[int, int]], lengths: NDArray[np.int64]
) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]:
    """Split off the first ranges that fit one gathering, at least one."""
    count, gathered_bytes = 0, 0
    for start, stop in cuts:
        gathered_bytes += int(np.sum(lengths[start:stop]))
        if count and gathered_bytes > _GATHER_BYTES_MAX:
            break
        count += 1
    return cuts[:count], cuts[count:]


def _pieces(mapped: mmap.mmap, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[bytes]:
    """Return the bytes at each [start, stop), read in the order of the file.

    That order is what makes it fast: neighbours in the file share the page fault that maps them.
    """
    order = np.argsort(starts)
    found: list[bytes] = []
    for low in range(0, len(order), _RELEASE_ROWS):
        some = order[low : low + _RELEASE_ROWS]
        found += [mapped[start:stop] for start, stop in zip(starts[some].tolist(), stops[some].tolist(), strict=True)]
        # Mapped pages count as ours until given back; the system keeps its copy.
        mapped.madvise(mmap.MADV_DONTNEED)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return [found[index] for index in place.tolist()]
