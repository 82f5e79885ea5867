"""One machine, one zone: never late, as cheap as the table says, and never cheaper than the optimum."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.fleet.decision_table import build
from scheduler.fleet.jobs import Job, Mode, Moment, after, guarded, is_safe
from scheduler.fleet.optimum import optimum
from scheduler.fleet.replay import ages_of, ride
from scheduler.fleet.spot_policies import DEFAULT, POLICIES, SpotOnly, TablePolicy, UniformProgress
from scheduler.fleet.survival import AGE_EDGES, BUCKETS, Survival, bucket_of

FALLING = np.geomspace(0.3, 0.01, BUCKETS)
SURVIVAL = Survival(run_hazards=FALLING, outage_hazards=FALLING[::-1].copy())


def job(**changes: float) -> Job:
    return Job(
        **{
            "work_seconds": 10 * 600.0,
            "deadline_seconds": 20 * 600.0,
            "tick_seconds": 600.0,
            "startup_seconds": 720.0,
            "spot_price": 1.0,
            "on_demand_price": 3.0,
            **changes,
        }
    )


JOBS = st.builds(
    lambda work, slack, startup, price: job(
        work_seconds=work,
        deadline_seconds=work + startup + slack + 600,
        startup_seconds=startup,
        spot_price=price,
    ),
    work=st.floats(1, 9000),
    slack=st.floats(0, 9000),
    startup=st.sampled_from([0.0, 72.0, 360.0, 599.0, 600.0, 601.0, 720.0, 1500.0]),
    price=st.sampled_from([0.2, 1.0, 2.9, 4.0]),
)


@settings(max_examples=40, deadline=None)
@given(given_job=JOBS, trace=st.lists(st.booleans(), max_size=60), name=st.sampled_from(sorted(POLICIES)))
def test_no_policy_is_late_or_beats_the_optimum_whatever_the_availability(
    given_job: Job, trace: list[bool], name: str
) -> None:
    found = ride(given_job, POLICIES[name](given_job, SURVIVAL), trace)

    assert given_job.is_feasible
    assert not found.is_late
    # The optimum knows start-ups in whole seconds, and all of these are.
    assert found.cost >= optimum(given_job, trace) - 1e-6


@settings(max_examples=40, deadline=None)
@given(given_job=JOBS, data=st.data())
def test_the_table_alone_is_never_late_against_an_adversary_who_sees_its_choices(
    given_job: Job, data: st.DataObject
) -> None:
    table = build(given_job, SURVIVAL)
    work, startup, mode = given_job.work_seconds, 0.0, Mode.IDLE
    slot = given_job.tick_seconds / table.slots_per_tick

    for tick in range(given_job.ticks):
        # Takes spot away as often as it runs; else at will.
        is_there = data.draw(st.booleans()) and mode is not Mode.SPOT
        mode, startup = (Mode.IDLE, 0.0) if mode is Mode.SPOT and not is_there else (mode, startup)
        moment = Moment(
            tick=tick,
            work_left_seconds=work,
            mode=mode,
            startup_left_seconds=startup,
            is_available=is_there,
            age_ticks=data.draw(st.integers(1, 200)),
        )
        choice = table.choice(moment)
        left = (given_job.ticks - tick) * given_job.tick_seconds - work
        if left >= given_job.startup_seconds + 2 * slot:
            assert is_safe(given_job, moment, choice)
        choice = guarded(given_job, moment, choice)
        work, startup = after(given_job, moment, choice)
        mode = choice
        # A microsecond is what sums of seconds may be off by.
        if work <= 1e-6:
            return
    pytest.fail("late")


@settings(max_examples=40, deadline=None)
@given(
    work=st.integers(1, 40),
    slack=st.integers(0, 30),
    startup=st.sampled_from([0, 120, 600, 720, 1320]),
    trace=st.lists(st.booleans(), min_size=7, max_size=7),
)
def test_the_optimum_is_the_best_of_all_that_could_have_been_done(
    work: int, slack: int, startup: int, trace: list[bool]
) -> None:
    tried = job(
        work_seconds=work * 60.0,
        deadline_seconds=min(7 * 600.0, (work + slack) * 60 + startup + 600.0),
        startup_seconds=startup,
    )

    assert optimum(tried, trace) == pytest.approx(_brute_force(tried, trace))


def _brute_force(tried: Job, trace: list[bool]) -> float:
    least = math.inf
    for modes in itertools.product(Mode, repeat=tried.ticks):
        work, startup, mode, cost = tried.work_seconds, 0.0, Mode.IDLE, 0.0
        for tick, choice in enumerate(modes):
            if choice is Mode.SPOT and not trace[tick]:
                break
            moment = Moment(
                tick=tick, work_left_seconds=work, mode=mode, startup_left_seconds=startup, is_available=trace[tick]
            )
            work, startup = after(tried, moment, choice)
            cost, mode = cost + tried.price_of_tick(choice), choice
            if work <= 0:
                least = min(least, cost)
                break
    return least


@pytest.mark.parametrize("startup", [720.0, 600.0, 300.0, 72.0])
def test_the_tables_value_is_the_mean_cost_on_traces_drawn_from_its_own_hazards(startup: float) -> None:
    # The same at all ages: within a bucket of several, the table knows ages only on average.
    flat = Survival(run_hazards=np.full(BUCKETS, 0.08), outage_hazards=np.full(BUCKETS, 0.15))
    tried = job(work_seconds=24 * 600.0, deadline_seconds=40 * 600.0, startup_seconds=startup)
    policy = TablePolicy(build(tried, flat))
    start = Moment(tick=0, work_left_seconds=tried.work_seconds, is_available=True)
    drawn = np.random.default_rng(11)

    costs = [ride(tried, policy, _drawn(drawn, flat, tried.ticks)).cost for _ in range(500)]

    error = np.std(costs) / math.sqrt(len(costs))
    assert abs(np.mean(costs) - policy.table.expected_cost(start)) < 4 * error + 0.02


def test_hazards_by_age_are_worth_knowing() -> None:
    tried = job(work_seconds=24 * 600.0, deadline_seconds=44 * 600.0)
    drawn = np.random.default_rng(5)
    by_age = TablePolicy(build(tried, SURVIVAL))
    mean = Survival(run_hazards=np.full(BUCKETS, 0.08), outage_hazards=np.full(BUCKETS, 0.08))
    blind = TablePolicy(build(tried, mean))
    traces = [_drawn(drawn, SURVIVAL, tried.ticks) for _ in range(200)]

    knowing = np.mean([ride(tried, by_age, trace).cost for trace in traces])

    assert knowing < np.mean([ride(tried, blind, trace).cost for trace in traces])
    assert knowing < np.mean([ride(tried, UniformProgress(tried), trace).cost for trace in traces])


def test_dearer_machines_never_make_a_job_cheaper() -> None:
    start = Moment(tick=0, work_left_seconds=6000.0, is_available=False)
    trace = np.random.default_rng(2).random(20) < 0.5

    values = [build(job(spot_price=price), SURVIVAL).expected_cost(start) for price in (0.5, 1.0, 2.0, 3.5)]
    optima = [optimum(job(on_demand_price=price), trace) for price in (1.0, 2.0, 4.0)]

    assert values == sorted(values)
    assert optima == sorted(optima)


def test_work_is_worth_more_the_less_time_is_left_and_never_more_than_late_work_costs() -> None:
    table = build(job(deadline_seconds=40 * 600.0), SURVIVAL)
    moments = [Moment(tick=tick, work_left_seconds=6000.0, is_available=False, age_ticks=9) for tick in range(0, 28, 4)]

    values = [table.work_value(moment, over_ticks=2) for moment in moments]

    assert values[-1] > values[0] > 0
    assert table.work_value(Moment(tick=30, work_left_seconds=6000.0, is_available=False)) == 3.0


def test_a_job_that_cannot_be_done_in_time_runs_on_demand_and_ends_late() -> None:
    tight = job(work_seconds=20 * 600.0)

    found = ride(tight, POLICIES[DEFAULT](tight, SURVIVAL), [True] * 20)

    assert not tight.is_feasible
    assert found.is_late
    assert set(found.modes) == {Mode.ON_DEMAND}


class Whims:
    """Chooses anything."""

    name = "whims"

    def __init__(self, choices: list[Mode]) -> None:
        self._choices = choices

    def choose(self, moment: Moment) -> Mode:
        return self._choices[moment.tick % len(self._choices)]


@settings(max_examples=100, deadline=None)
@given(
    given_job=JOBS,
    trace=st.lists(st.booleans(), max_size=60),
    choices=st.lists(st.sampled_from(Mode), min_size=1, max_size=12),
)
def test_what_is_guarded_is_never_late_whatever_is_chosen(
    given_job: Job, trace: list[bool], choices: list[Mode]
) -> None:
    assert not ride(given_job, Whims(choices), trace).is_late


def test_spot_is_safe_only_while_it_could_be_lost_and_on_demand_started() -> None:
    # Three ticks are left after this one; a start takes 1.2.
    at = Moment(tick=16, work_left_seconds=2.8 * 600, mode=Mode.SPOT, is_available=True)

    assert is_safe(job(), at, Mode.SPOT)
    assert not is_safe(
        job(), Moment(tick=16, work_left_seconds=2.9 * 600, mode=Mode.SPOT, is_available=True), Mode.SPOT
    )
    assert guarded(job(), at, Mode.IDLE) is Mode.ON_DEMAND


def test_greedy_pays_two_starts_before_the_end_unless_it_runs_on_spot() -> None:
    greedy = POLICIES["greedy"](job(), SURVIVAL)
    waiting = Moment(tick=15, work_left_seconds=2.7 * 600, is_available=False)
    running = Moment(tick=15, work_left_seconds=2.7 * 600, mode=Mode.SPOT, is_available=True)

    assert greedy.choose(waiting) is Mode.ON_DEMAND
    assert greedy.choose(running) is Mode.SPOT
    assert greedy.choose(Moment(tick=13, work_left_seconds=2.7 * 600, is_available=False)) is Mode.IDLE


def test_only_what_is_not_guarded_is_late() -> None:
    found = ride(job(), SpotOnly(job()), [False] * 20, is_guarded=False)

    assert found.is_late
    assert found.cost == 0


def test_a_whole_tick_is_paid_and_a_start_does_nothing() -> None:
    found = ride(job(work_seconds=600.0), POLICIES["greedy"](job(work_seconds=600.0), SURVIVAL), [True] * 20)

    # 12 minutes of start and 10 of work are 3 ticks of 10 minutes at 1.00 an hour.
    assert found.cost == pytest.approx(3 / 6)
    assert found.starts == 1


@pytest.mark.parametrize("wrong", [{"work_seconds": 0}, {"spot_price": -1}, {"startup_seconds": math.nan}])
def test_a_job_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        job(**wrong)


def _drawn(drawn: np.random.Generator, survival: Survival, ticks: int) -> np.ndarray:
    trace, is_there, age = [], True, 1
    for _ in range(ticks):
        trace.append(is_there)
        hazards = survival.run_hazards if is_there else survival.outage_hazards
        ends = drawn.random() < hazards[bucket_of(age)]
        is_there, age = (not is_there, 1) if ends else (is_there, age + 1)
    return np.array(trace)


def test_ages_are_counted_from_each_change() -> None:
    assert ages_of(np.array([True, True, False, False, False, True])).tolist() == [1, 2, 1, 2, 3, 1]
    assert AGE_EDGES[0] == 1
