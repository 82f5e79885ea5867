"""What requests for machines tell of capacity."""

from __future__ import annotations

import pytest

from scheduler.fleet.sightings import Sighting, history_of, learned

TICK = 600.0
TICK_US = 600_000_000


def seen(start: float, stop: float, *, there: bool) -> Sighting:
    """Return a sighting from one tick to another."""
    return Sighting(from_us=round(start * TICK_US), to_us=round(stop * TICK_US), is_available=there)


def test_a_machine_that_ran_and_was_taken_is_a_run_of_its_length() -> None:
    history = history_of(
        [seen(2, 6, there=True), seen(6, 6.01, there=False)], from_us=0, now_us=10 * TICK_US, tick_seconds=TICK
    )

    assert history.runs.at_risk == [1, 1, 1, 1]
    assert history.runs.ended == [0, 0, 0, 1]


def test_a_machine_that_runs_still_has_ended_nothing_and_what_nobody_saw_is_not_counted() -> None:
    history = history_of([seen(6, 12, there=True)], from_us=0, now_us=10 * TICK_US, tick_seconds=TICK)

    assert sum(history.runs.at_risk) == 3
    assert sum(history.runs.ended) == 0
    assert history.outages.at_risk == []
    assert history.is_available
    assert history.age_ticks == 4


def test_a_tick_in_which_some_were_had_and_some_refused_is_one_without_capacity() -> None:
    history = history_of(
        [seen(1.5, 1.6, there=False), seen(0, 4, there=True)], from_us=0, now_us=4 * TICK_US, tick_seconds=TICK
    )

    assert (history.runs.at_risk, history.runs.ended, history.outages.ended) == ([2], [1], [1])


@pytest.mark.parametrize("length", [2, 40])
def test_offers_whose_machines_are_taken_often_are_known_by_it(length: int) -> None:
    spells = [seen(start, start + length, there=True) for start in range(0, 1000, length + 1)]
    gaps = [seen(spell.to_us / TICK_US, spell.to_us / TICK_US + 1, there=False) for spell in spells]

    survivals = learned({"mine": [*spells, *gaps], "unseen": []}, from_us=0, now_us=1000 * TICK_US, tick_seconds=TICK)

    assert set(survivals) == {"mine"}
    assert survivals["mine"].left_ticks(1, is_available=True) == pytest.approx(length, rel=0.2)


def test_nothing_is_learned_from_nothing() -> None:
    assert learned({"unseen": []}, from_us=0, now_us=TICK_US, tick_seconds=TICK) == {}
