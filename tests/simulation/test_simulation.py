"""Many seeds of the real protocol.

`NIGHTRATE_SIMULATION_SEEDS` (default 2000) and `NIGHTRATE_SIMULATION_FIRST` (default 0) choose the
seeds; `python -m tests.simulation.run` runs more of them on all cores.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.simulation import run as command
from tests.simulation.harness import run
from tests.simulation.records import mask_of, ranges_of_mask
from tests.simulation.run import Tally, run_many

_SEEDS = int(os.environ.get("NIGHTRATE_SIMULATION_SEEDS", "2000"))
_FIRST = int(os.environ.get("NIGHTRATE_SIMULATION_FIRST", "0"))


@pytest.fixture(scope="module")
def tally() -> Tally:
    return run_many(range(_FIRST, _FIRST + _SEEDS))


def test_no_fault_breaks_an_invariant(tally: Tally) -> None:
    shown = "\n".join(
        f"python -m tests.simulation.run --seed {seed} --trace   # {kind}: {detail}"
        for seed, kind, detail in tally.violations[:10]
    )
    assert not tally.violations, f"replay with\n{shown}"


def test_every_fault_and_its_answer_happens_sometimes(tally: Tally) -> None:
    assert tally.never() == []


def test_a_seed_replays_to_the_letter() -> None:
    first, second = run(7, traced=True), run(7, traced=True)

    assert first == second
    assert first.trace


def test_the_command_prints_its_result_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = command.main(["--seeds", "20", "--jobs", "1", "--json"])

    summary = json.loads(capsys.readouterr().out)
    assert (summary["seeds"], summary["violations"]) == (20, 0)
    assert status == (1 if summary["never"] else 0)


def test_the_command_replays_one_seed(capsys: pytest.CaptureFixture[str]) -> None:
    status = command.main(["--seed", "3", "--trace"])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert json.loads(lines[-1])["seed"] == 3
    assert len(lines) > 2


@pytest.mark.parametrize("ranges", [(), ((0, 1),), ((2, 5),), ((0, 2), (3, 4), (7, 9))])
def test_masks_and_ranges_are_the_same_rows(ranges: tuple[tuple[int, int], ...]) -> None:
    assert ranges_of_mask(mask_of(ranges)) == ranges
