"""Keeping the traceback of an unexpected error where a person can find it."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path


def keep_traceback(error: BaseException) -> Path | None:
    """Write the error's traceback to a new private file and return where; None where none can be written."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="nightrate-error-", suffix=".log")
        with os.fdopen(descriptor, "w") as file:
            traceback.print_exception(error, file=file)
    except OSError:
        return None
    return Path(name)
