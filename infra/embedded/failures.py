"""Why a supervised process does not stay up: what the last lines of its log say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

#: A process that starts again and again writes some hundred bytes each time.
_TAIL_BYTES_MAX: Final = 64 * 1024
_STARTED: Final = "process_started"
_ENDED: Final = frozenset({"process_failed", "process_crashed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The last end of a process that did not end as it should."""

    #: Of the process, as the supervisor calls it.
    name: str
    at: datetime
    reason: str
    #: The number of the process that was started since, if any was.
    next_pid: int | None


def last_failures(logs: Path, *, prefix: str) -> list[Failure]:
    """Return how processes whose names begin so ended last, where none was told to; none where logs cannot be read."""
    found = (_last_failure(path) for path in sorted(logs.glob(f"{prefix}*.log")))
    return [each for each in found if each is not None]


def _last_failure(path: Path) -> Failure | None:
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - _TAIL_BYTES_MAX))
            lines = log.read().splitlines()
    except OSError:
        return None
    next_pid = None
    for line in reversed(lines):
        told = _read(line)
        event = told.get("event")
        if event == _STARTED and next_pid is None:
            pid = told.get("pid")
            next_pid = pid if isinstance(pid, int) else None
        elif event == "process_stopped":
            return None
        elif event in _ENDED:
            reason = told.get("reason") or str(told.get("traceback", "")).strip().rpartition("\n")[2]
            at = _instant(told.get("at"))
            return None if at is None else Failure(name=path.stem, at=at, reason=str(reason), next_pid=next_pid)
    return None


def _read(line: bytes) -> dict[str, object]:
    try:
        told = json.loads(line)
    except ValueError:
        # Whatever else writes to stderr.
        return {}
    return told if isinstance(told, dict) else {}


def _instant(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
