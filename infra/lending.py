"""Temporary folders that outlive nobody: one left behind by a killed process goes when the next is asked for."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def lent_folder(parent: Path, *, prefix: str) -> Iterator[Path]:
    """Lend a new folder in `parent`, and remove it afterwards along with those whose borrowers were killed.

    A borrower holds a lock on its folder for as long as it lives, so a free lock means a crash. The lock dies
    with its process, so that no clock and no process number has to be asked.
    """
    with _locked(parent):
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        handle = _lock(folder, is_patient=False)
    assert handle is not None, "nobody locks a folder that was just made"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others from making or sweeping folders: one that is made and not locked yet would be swept."""
    handle = _lock(folder, is_patient=True)
    assert handle is not None
    try:
        yield
    finally:
        os.close(handle)


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        with suppress(OSError):
            handle = _lock(folder, is_patient=False)
            if handle is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)


def _lock(folder: Path, *, is_patient: bool) -> int | None:
    """Lock a folder and return the handle that holds the lock, or None where another has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if is_patient else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
