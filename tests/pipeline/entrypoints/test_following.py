from __future__ import annotations

import json

import pytest

from pipeline.domain.lifecycle import BatchState
from pipeline.entrypoints.cli.following import JsonDisplay, LineDisplay, Speedometer, follow, progress_line
from tests.pipeline.entrypoints.views import RUNNING, ended, running


def test_speeds_follow_the_last_seconds() -> None:
    speedometer = Speedometer()

    speedometer.measure(running(succeeded=0), now_seconds=0)
    progress = speedometer.measure(running(succeeded=20, output_tokens=100), now_seconds=10)

    assert progress.output_tokens_per_second == 10
    assert progress.eta_seconds == 40
    assert progress_line(progress) == "in_progress · 20/100 rows · 10.0 tok/s · 40.0 s left · $0.00"


def test_old_samples_are_forgotten() -> None:
    speedometer = Speedometer()

    speedometer.measure(running(succeeded=50), now_seconds=0)
    for second in range(100, 130):
        progress = speedometer.measure(running(succeeded=50), now_seconds=second)

    assert progress.eta_seconds is None


def test_lines_come_with_every_change_of_state_and_else_not_too_often() -> None:
    lines: list[str] = []
    now = [0.0]
    display = LineDisplay(lines.append, monotonic=lambda: now[0])
    speedometer = Speedometer()

    for succeeded in (0, 1, 2):
        display.show(speedometer.measure(running(succeeded=succeeded), now_seconds=0))
    now[0] = 5.0
    display.show(speedometer.measure(running(succeeded=3), now_seconds=0))
    display.show(
        speedometer.measure(ended(BatchState.COMPLETED, completed=100, failed=0), now_seconds=0),
    )

    assert [line.split(" · ")[0].split()[-1] for line in lines] == ["in_progress", "in_progress", "completed"]
    assert "3/100 rows" in lines[1]
    assert lines[2].endswith("Every row has its result.")


def test_json_lines_are_documents_and_the_last_one_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    views = iter([RUNNING, RUNNING, ended(BatchState.COMPLETED, completed=100, failed=0)])

    follow(lambda: next(views), JsonDisplay())

    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["state"] for document in documents] == ["in_progress", "completed"]
    assert documents[-1]["rows"]["completed"] == 100
