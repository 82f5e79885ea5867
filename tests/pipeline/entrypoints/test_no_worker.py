from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.entrypoints.cli.own_stack import NoWorkerError, NoWorkerGuard
from storage.overview import WorkerView
from tests.pipeline.entrypoints.views import RUNNING

ECHO = WorkerView(
    worker_id=WorkerId("wrk_1"),
    pool="local",
    host="here",
    pid=1,
    state=WorkerState.READY,
    variant=None,
    variants=("echo",),
    uptime_seconds=1.0,
    silent_seconds=0.0,
)


def watch(seconds: int, workers: list[WorkerView]) -> None:
    """Look once a second for so long."""
    now = [0.0]
    guard = NoWorkerGuard(lambda: workers, logs=Path("logs"), monotonic=lambda: now[0])
    for second in range(seconds):
        now[0] = float(second)
        guard.check(RUNNING)


def test_a_worker_of_the_model_is_waited_for_as_long_as_it_takes() -> None:
    watch(1000, [ECHO])


def test_workers_of_other_models_end_the_wait_soon() -> None:
    other = replace(ECHO, variants=("other",))

    watch(8, [other])
    with pytest.raises(NoWorkerError, match="echo"):
        watch(20, [other])


def test_workers_may_take_their_time_to_boot() -> None:
    watch(60, [])
    with pytest.raises(NoWorkerError):
        watch(200, [])
