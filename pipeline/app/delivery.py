"""Results on their way to a path of the user's: whole, once, and over nothing that stands there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from pipeline.app.stack import Stack
from pipeline.domain.errors import ConflictError
from pipeline.domain.ids import BatchId, FileId

_BLOCK_BYTES: Final = 1024 * 1024
_SUFFIX: Final = ".jsonl"


def errors_path(output: Path) -> Path:
    """Return where the error file stands, beside the results: `out.jsonl` has `out.errors.jsonl`."""
    return output.with_name(f"{output.name.removesuffix(_SUFFIX)}.errors{_SUFFIX}")


def deliver(stack: Stack, batch_id: BatchId, output: Path) -> None:
    """Write the batch's files, the errors first, so that who finds the results has all there is.

    Doing it again changes nothing. Raises `ConflictError` where something else stands there, `OSError` where nothing can.
    """
    view = stack.batches.get(batch_id)
    for file_id, path in ((view.error_file_id, errors_path(output)), (view.output_file_id, output)):
        if file_id is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_once(stack, file_id, path)


def _write_once(stack: Stack, file_id: FileId, path: Path) -> None:
    file = stack.files.get(file_id)
    if path.exists():
        _refuse_other(path, file.sha256)
        return
    with (
        stack.objects.open(file.object_key) as source,
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}-") as draft,
    ):
        shutil.copyfileobj(source, draft, _BLOCK_BYTES)
        draft.flush()
        Path(draft.name).chmod(0o644)
        os.fsync(draft.fileno())
        try:
            # A link, unlike a rename, never replaces what another has put there meanwhile.
            path.hardlink_to(draft.name)
        except FileExistsError:
            _refuse_other(path, file.sha256)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refuse_other(path: Path, sha256: str) -> None:
    if path.is_file():
        with path.open("rb") as standing:
            if hashlib.file_digest(standing, "sha256").hexdigest() == sha256:
                return
    raise ConflictError(f"{path} exists already and is not these results", hint="nothing is ever overwritten")
