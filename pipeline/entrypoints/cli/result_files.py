"""Results on their way out: from the desk to files, or to stdout."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline.domain.errors import ConflictError, UsageError
from pipeline.domain.results import ResultFormat
from pipeline.entrypoints.cli.inputs import STDIN

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.ports.batches import BatchView
    from pipeline.ports.desk import Desk


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files a run left; None where there was nothing to write."""

    output: Path | None
    errors: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Where a run's files shall go."""

    output: Path
    errors: Path

    def write(self, desk: Desk, view: BatchView) -> Written:
        """Write the files that the batch has."""
        return Written(
            output=save(desk, view.output_file_id, self.output), errors=save(desk, view.error_file_id, self.errors)
        )


def targets_of(file: str, *, output: Path | None, errors: Path | None, force: bool) -> Targets:
    """Return where the files go, having seen that they can go there; raises `UsageError` or `ConflictError`."""
    stem = "stdin" if file == STDIN else Path(file).name.removesuffix(".jsonl") or "input"
    folder = Path() if file == STDIN else Path(file).parent
    targets = Targets(
        output=output or folder / f"{stem}.output.jsonl", errors=errors or folder / f"{stem}.errors.jsonl"
    )
    if targets.output.absolute() == targets.errors.absolute():
        raise UsageError("--output and --errors name the same file")
    for path in (targets.output, targets.errors):
        check_target(path, force=force)
        if file != STDIN and path.absolute() == Path(file).absolute():
            raise UsageError(f"{path} is the input")
    return targets


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a place that cannot be written, or that holds something already."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}")
    if path.exists() and not force:
        raise ConflictError(f"{path} exists already", hint="--force overwrites it")


def save(desk: Desk, file_id: str | None, path: Path) -> Path | None:
    """Write a file of the store to `path`, all of it or nothing; None without a file."""
    if file_id is None:
        return None
    save_chunks(desk.content(desk.file(file_id)), path)
    return path


def save_chunks(chunks: Iterable[bytes], path: Path) -> int:
    """Write `chunks` to `path`, all of them or nothing; returns their bytes."""
    with _drafted(path) as draft:
        for chunk in chunks:
            draft.write(chunk)
        return draft.tell()


def check_printable(kind: ResultFormat) -> None:
    """Refuse to write a table on a terminal."""
    if kind is ResultFormat.PARQUET and sys.stdout.isatty():
        raise UsageError("a Parquet file is nothing to look at", hint="--output FILE")


def stream_chunks(chunks: Iterable[bytes]) -> None:
    """Write `chunks` to stdout."""
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@contextmanager
def _drafted(path: Path) -> Iterator[IO[bytes]]:
    """Lend a file that becomes `path` if the block ends well, and is gone if it does not."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as draft:
        try:
            yield draft
            draft.close()
            Path(draft.name).chmod(0o644)
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


def stream(desk: Desk, file_id: str) -> None:
    """Copy a file of the store to stdout."""
    for block in desk.content(desk.file(file_id)):
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
