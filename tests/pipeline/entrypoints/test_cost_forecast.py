"""`nightrate cost forecast`: tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from storage.database import Database
from tests.pipeline.entrypoints.line import at_home
from tests.pipeline.entrypoints.line import run as run_command
from tests.storage.history import write_hours


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    at_home(tmp_path, monkeypatch, database_url=database_url)


@pytest.fixture
def history(database_url: str) -> None:
    database = Database(database_url)
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
    write_hours(database, start, [7000] * 71 + [70_000])
    database.close()


run = partial(run_command, "cost", "forecast")


@pytest.mark.usefixtures("history")
def test_people_get_a_table_with_a_chart_and_are_told_what_is_odd(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--hours", "3", "--by", "model") == 0

    shown = capsys.readouterr()
    assert "█" in shown.out
    for wanted in ("HOUR", "MODEL", "echo", "POOL", "local", "spent this month", "by the month's end"):
        assert wanted in shown.out
    assert "Demand in the hour from" in shown.err


@pytest.mark.usefixtures("history")
def test_programs_get_json_and_csv(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--hours", "3", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert run("--hours", "3", "--by", "tier", "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    assert (document["hours"], len(document["tokens"][0]["hours"]), len(document["workers"])) == (3, 3, 1)
    assert [(row["what"], row["group"]) for row in rows[::3]] == [
        ("tokens", ""), ("tokens", "standard"), ("cost", ""), ("cost", "standard"), ("workers", "local/echo"),
    ]  # fmt: skip
    assert all(float(row["p10"]) <= float(row["p50"]) <= float(row["p90"]) for row in rows)


def test_without_history_it_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0

    shown = capsys.readouterr()
    assert "No forecast of tokens: there are 0 minutes of history; a forecast needs 3 hours at least." in shown.err
    assert shown.out.startswith("spent this month  $0.00")


def test_what_cannot_be_told_apart_by_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--by", "colour") == 2

    assert "--by takes tier, model, tenant" in capsys.readouterr().err
