from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.embedded.failures import last_failures

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STARTED = {"event": "process_started", "pid": 7}
FAILED = {"event": "process_failed", "at": AT.isoformat(), "reason": "no price is known of lunar.xlarge"}
CRASHED = {"event": "process_crashed", "at": AT.isoformat(), "traceback": "Traceback\n  File\nValueError: what"}
STOPPED = {"event": "process_stopped"}


def log(folder: Path, *lines: object, name: str = "worker-1") -> None:
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / f"{name}.log").write_text("\n".join(written) + "\n")


def test_why_a_worker_does_not_stay_up_is_in_its_log(tmp_path: Path) -> None:
    log(tmp_path, STARTED, "not JSON", FAILED)
    log(tmp_path, STARTED, FAILED, name="scheduler")

    (failure,) = last_failures(tmp_path, prefix="worker-")

    assert (failure.name, failure.at, failure.reason) == ("worker-1", AT, FAILED["reason"])
    assert failure.next_pid is None


def test_a_crash_is_told_by_its_last_line(tmp_path: Path) -> None:
    log(tmp_path, STARTED, CRASHED)

    assert [each.reason for each in last_failures(tmp_path, prefix="worker-")] == ["ValueError: what"]


def test_a_process_that_was_started_since_is_named(tmp_path: Path) -> None:
    log(tmp_path, {"event": "process_started", "pid": 6}, FAILED, STARTED, {"event": "worker_registered"})

    assert [each.next_pid for each in last_failures(tmp_path, prefix="worker-")] == [7]


@pytest.mark.parametrize("lines", [[], [STARTED], [STARTED, STOPPED], [FAILED, STARTED, STOPPED], ["[]", "{"]])
def test_who_works_or_was_told_to_stop_has_not_failed(tmp_path: Path, lines: list[object]) -> None:
    log(tmp_path, *lines)

    assert last_failures(tmp_path, prefix="worker-") == []
