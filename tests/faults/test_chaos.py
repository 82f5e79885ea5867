from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.chaos import Run, run
from tests.faults.plan import Fault, make_plan


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("faults")
    yield folder / "home"
    # Some hundred megabytes; a failed test never comes here with `--pdb`, and pytest keeps the rest.
    shutil.rmtree(folder, ignore_errors=True)


def test_a_batch_under_fire_ends_by_itself_as_a_quiet_one_does(home: Path) -> None:
    plan = make_plan(11, kills=2, postgres_kills=1)

    report = run(Run(seed=11, rows=1500, plan=plan, home=home, quiet_seconds=10.0, seconds_max=180.0))

    assert report.violations == []


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_twenty_thousand_rows_survive_ten_kills_of_each_process(home: Path, seed: int) -> None:
    plan = make_plan(seed, kills=10, postgres_kills=2)

    report = run(Run(seed=seed, rows=20_000, plan=plan, home=home, quiet_seconds=75.0, seconds_max=600.0))

    assert report.violations == []


def test_a_plan_depends_on_its_seed_alone() -> None:
    assert make_plan(3, kills=10, postgres_kills=2) == make_plan(3, kills=10, postgres_kills=2)
    assert make_plan(3, kills=10, postgres_kills=2) != make_plan(4, kills=10, postgres_kills=2)


@pytest.mark.parametrize("kills", [1, 2, 3, 10])
def test_a_plan_kills_each_process_at_least_as_often_as_asked(kills: int) -> None:
    plan = make_plan(5, kills=kills, postgres_kills=2)

    assert all(count >= kills for kind, count in plan.kills().items() if kind != "postgres")
    assert plan.kills()["postgres"] == 2
    assert any(event.fault is Fault.WORKER_PAUSED for event in plan.events)
