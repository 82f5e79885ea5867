from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.domain.gates import GateVerdict
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import PackReason, PoolReason, Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import LineError
from pipeline.ports.cycle import Backlog, PoolView
from pipeline.ports.explain import BatchFacts, Candidate, Explanation, Scheduling, Waiting
from scheduler.explain.batches import WORST_FIRST, explain_batch
from scheduler.explain.forecast import Forecast
from scheduler.policy import Policy
from tests.scheduler.explain.facts import BATCH, NOW, batch, pool, scheduling, view, worker
from tests.scheduler.world import HOUR_US, NOW_US, backlog, references, snapshot

ROOT = Path(__file__).parents[3]
ENDS = {
    Reason.BAD_INPUT: BatchState.FAILED,
    Reason.QUOTA_REACHED: BatchState.FAILED,
    Reason.RESULTS_LOST: BatchState.FAILED,
    Reason.PROMISE_DECLINED: BatchState.FAILED,
    Reason.DEADLINE_PASSED: BatchState.EXPIRED,
    Reason.USER_CANCELLED: BatchState.CANCELLED,
    Reason.ALL_COMMITTED: BatchState.COMPLETED,
}
MINE = backlog(BATCH, rows=100)


def told(facts: BatchFacts, seen: Scheduling) -> Explanation:
    return explain_batch(facts, seen, Forecast(seen, Policy(pack_rows_min=1)))


def commands(explanation: Explanation) -> list[str]:
    return [change.command for change in explanation.changes if change.command]


def is_sentence(text: str) -> bool:
    return text[0].isupper() and text.endswith(".") and "None" not in text and "  " not in text


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence_and_a_time(reason: Reason) -> None:
    state = ENDS.get(reason, BatchState.IN_PROGRESS)

    explanation = told(batch(view(state, reason)), scheduling(MINE))

    assert is_sentence(explanation.sentence)
    assert explanation.since == NOW - timedelta(minutes=2)
    assert (explanation.reason, explanation.state) == (str(reason), str(state))


@pytest.mark.parametrize("reason", [*Reason, *PackReason, *PoolReason])
def test_every_reason_is_in_the_documentation(reason: str) -> None:
    assert f"`{reason}`" in (ROOT / "docs/explain.md").read_text()


@pytest.mark.parametrize("state", BatchState)
def test_every_state_has_a_sentence_even_before_there_is_a_reason(state: BatchState) -> None:
    explanation = told(batch(view(state, None), reason_at=None), scheduling(MINE))

    assert is_sentence(explanation.sentence)
    assert explanation.since == NOW - timedelta(minutes=3)


def test_the_overview_ranks_every_reason_of_a_batch_on_its_way() -> None:
    assert set(WORST_FIRST) | set(ENDS) == set(Reason)


def test_the_figures_have_the_same_names_in_every_state() -> None:
    names = {
        frozenset(told(batch(view(state, reason)), scheduling(MINE)).figures)
        for state in BatchState
        for reason in (Reason.QUEUED, Reason.ALL_COMMITTED)
    }

    assert len(names) == 1


def others(number: int, **changes: object) -> list[Backlog]:
    return [backlog(f"batch_other_{index}", created_at_us=NOW_US - 2 * HOUR_US, **changes) for index in range(number)]  # type: ignore[arg-type]


def test_who_waits_is_told_behind_whom_and_for_how_much() -> None:
    seen = scheduling(MINE, *others(3), pools=[pool(waiting=Waiting(packs=4, seconds=40.0))])

    explanation = told(batch(), seen)

    assert (
        "in pool cpu behind 3 batches of tier standard, whose next 30 s of work have the better claim"
        in explanation.sentence
    )
    assert explanation.figures["batches_before"] == 3
    assert explanation.figures["starts_in_seconds"] == pytest.approx((30 + 40) / 2)
    assert f"nightrate change {BATCH} --tier urgent" in commands(explanation)
    assert "nightrate worker --pool cpu" in commands(explanation)


def test_who_is_next_is_told_so_and_that_no_tier_would_be_sooner() -> None:
    explanation = told(batch(), scheduling(MINE))

    assert explanation.sentence.startswith("It is next in pool cpu")
    assert not any("--tier" in command for command in commands(explanation))


def test_a_promised_deadline_that_presses_is_next_whoever_came_before() -> None:
    mine = backlog(BATCH, rows=100, promise=Promise.MADE, deadline_at_us=NOW_US + 90_000_000)

    explanation = told(batch(view(deadline_at=NOW + timedelta(seconds=90))), scheduling(mine, *others(3)))

    assert "because its promised deadline is near" in explanation.sentence


def test_without_a_leading_scheduler_that_is_the_reason_and_the_first_thing_to_change() -> None:
    explanation = told(batch(), scheduling(MINE, has_leader=False, leader=None))

    assert "none leads" in explanation.sentence
    assert commands(explanation)[0] == "nightrate up"


def test_a_batch_whose_last_worker_has_just_gone_is_not_told_to_be_in_line() -> None:
    seen = scheduling(MINE, snapshot=snapshot([MINE], pools=()))

    assert told(batch(), seen).sentence == "No worker that lives now serves it; the next cycle looks at it."


def test_a_running_batch_between_two_packs_is_told_that_more_come() -> None:
    assert told(batch(view(reason=Reason.RUNNING)), scheduling(MINE)).sentence == (
        "It is about to run: the next cycle packs more of its rows."
    )


def test_a_running_batch_tells_where_and_with_whom_it_shares() -> None:
    facts = batch(
        view(reason=Reason.RUNNING), leased=Waiting(packs=2), waiting=Waiting(packs=1), hosts=("host-1", "host-2")
    )

    explanation = told(facts, scheduling(MINE, *others(1), *(each for each in others(3, tier=Tier.BULK)[1:])))

    assert explanation.sentence == (
        "It runs: 2 packs run on host-1, host-2, 1 more waits; pool cpu is shared with 3 batches (2 bulk, 1 standard)."
    )


@pytest.mark.parametrize(
    ("promise", "hours", "said"),
    [
        (Promise.MADE, 24, "promised, so it goes before all others when time gets short; likely met"),
        (Promise.DECLINED, 24, "not promised, though it could be by now; likely met"),
        (Promise.PENDING, 24, "not promised yet: the next cycle answers; likely met"),
    ],
)
def test_the_deadline_is_told_with_its_promise(promise: Promise, hours: int, said: str) -> None:
    mine = backlog(BATCH, rows=100, promise=promise)

    explanation = told(batch(view(promise=promise, deadline_at=NOW + timedelta(hours=hours))), scheduling(mine))

    assert explanation.notes["deadline"].endswith(said)


def test_a_declined_deadline_is_told_with_the_earliest_that_could_be_promised() -> None:
    # An hour of work for each of two workers, wanted in ten minutes.
    mine = backlog(BATCH, rows=7200, deadline_at_us=NOW_US + HOUR_US // 6)
    declined = view(promise=Promise.DECLINED, deadline_at=NOW + timedelta(minutes=10))

    explanation = told(batch(declined), scheduling(mine))

    promisable = explanation.figures["promisable_at"]
    assert explanation.figures["deadline_outlook"] == "unlikely"
    # Half as long again as predicted, on the 70 % of two workers that may be promised.
    assert promisable == NOW + timedelta(seconds=7200 * 1.5 / 1.4 + 80, microseconds=1)
    assert "not promised: the earliest that could be is" in explanation.notes["deadline"]
    assert any(command.startswith(f"nightrate change {BATCH} --deadline ") for command in commands(explanation))


def test_what_is_held_back_is_told_when_it_must_start() -> None:
    mine = backlog(BATCH, rows=3600, deadline_at_us=NOW_US + HOUR_US, hold_until_us=NOW_US + 2 * HOUR_US)
    held = view(reason=Reason.HELD, deadline_at=NOW + timedelta(hours=1), hold_until=NOW + timedelta(hours=2))

    explanation = told(batch(held), scheduling(mine))

    assert "to be safe for its deadline it starts by" in explanation.sentence
    assert commands(explanation)[0] == f"nightrate change {BATCH} --hold-until none"


def test_a_spent_budget_is_told_with_one_that_should_do() -> None:
    # A hundred seconds of work at 3.60 an hour, and a fifth more for safety.
    dear = PoolView(
        pool="cpu", workers=1, servings=references(["model-a"]), packs_waiting=0, rate_micros_per_hour=3_600_000
    )
    seen = scheduling(MINE, snapshot=snapshot([MINE], pools=(dear,)))
    spent = view(reason=Reason.BUDGET_REACHED, cost_micros=500_000, budget_micros=500_000, rows_succeeded=40)

    explanation = told(batch(spent), seen)

    assert explanation.sentence.startswith(
        "It was charged $0.50 of its budget of $0.50, so nothing new starts; 60 rows are left"
    )
    assert commands(explanation)[0] == f"nightrate change {BATCH} --max-cost 0.63"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"paused_at": None}, Reason.USER_PAUSED), ({"hold_until": None}, Reason.HELD), ({}, Reason.BUDGET_REACHED)],
)
def test_what_was_changed_since_the_last_cycle_is_not_told_as_if_it_still_were_so(
    changes: dict[str, object], reason: Reason
) -> None:
    assert "the next cycle looks at it" in told(batch(view(reason=reason, **changes)), scheduling(MINE)).sentence


def test_a_batch_whose_packs_may_cost_the_rest_of_its_budget_is_told_to_wait_for_them() -> None:
    mine = replace(MINE, budget_micros=100_000, reserved_micros=99_000, rows_in_flight=50)
    dear = PoolView(
        pool="cpu", workers=1, servings=references(["model-a"]), packs_waiting=0, rate_micros_per_hour=7_200_000
    )
    running = batch(view(reason=Reason.RUNNING), leased=Waiting(packs=2), hosts=("host-1",))

    explanation = told(running, scheduling(mine, snapshot=snapshot([mine], pools=(dear,))))

    assert explanation.sentence == (
        "It runs: 2 packs run on host-1; they may cost all that its budget leaves, so nothing new starts until one has"
        " ended."
    )
    assert commands(explanation)[0] == f"nightrate change {BATCH} --max-cost none"


def test_a_budget_that_leaves_less_than_a_row_costs_is_told_as_such() -> None:
    seen = scheduling(MINE)
    nearly = view(reason=Reason.BUDGET_REACHED, cost_micros=499_999, budget_micros=500_000)

    assert "and what is left may not pay for another row" in told(batch(nearly), seen).sentence


# --- nobody serves it --------------------------------------------------------------------------


def test_that_no_worker_lives_is_told_with_how_to_start_one() -> None:
    explanation = told(batch(view(reason=Reason.NO_WORKER)), scheduling(pools=[]))
    nothing_runs = told(batch(view(reason=Reason.NO_WORKER)), scheduling(pools=[], has_leader=False))

    assert explanation.sentence == nothing_runs.sentence == "No worker is alive, so nothing can run model-a."
    # A second `up` would leave the workers as they are.
    assert commands(explanation) == ["nightrate worker", "nightrate down && nightrate up --workers 1"]
    assert commands(nothing_runs) == ["nightrate up"]


def test_that_no_worker_serves_the_model_is_told_with_what_they_serve_and_what_one_said() -> None:
    facts = batch(view(reason=Reason.NO_WORKER), last_error="there is no model at /m")

    explanation = told(facts, scheduling(pools=[pool(workers=(worker(variants=frozenset({"echo"})),))]))

    assert explanation.sentence == (
        "The only live worker does not serve model-a; it serves echo (pool cpu). "
        "A worker that tried it said: there is no model at /m."
    )


@pytest.mark.parametrize(
    ("verdict", "said", "has_qualify"),
    [
        (None, "was not qualified for tier standard yet", True),
        (GateVerdict.UNDECIDED, "was tried for tier standard without a result either way", True),
        (GateVerdict.REJECTED, "was rejected for tier standard", False),
    ],
)
def test_a_variant_that_the_tier_may_not_run_on_is_told_with_what_would_let_it(
    verdict: GateVerdict | None, said: str, *, has_qualify: bool
) -> None:
    near = Candidate(variant="model-a@int8", pools=("cpu",), verdict=verdict, tiers=frozenset({Tier.BULK}))
    seen = scheduling(pools=[pool(workers=(worker(variants=frozenset({"model-a@int8"})),))])

    explanation = told(batch(view(reason=Reason.NO_WORKER), candidates=(near,)), seen)

    assert explanation.sentence == f"No live worker serves model-a itself, and model-a@int8 (pool cpu) {said}."
    assert ("nightrate models qualify model-a@int8" in commands(explanation)) == has_qualify
    assert f"nightrate change {BATCH} --tier bulk" in commands(explanation)


# --- after it ran ------------------------------------------------------------------------------


def test_a_failed_batch_tells_its_first_bad_line() -> None:
    bad = LineError(code="invalid_json_line", message="This is no JSON.", param=None, line=3)
    failed = view(BatchState.FAILED, Reason.BAD_INPUT, errors=(bad,), errors_total=7)

    explanation = told(batch(failed), scheduling())

    assert explanation.sentence == (
        "7 lines of its input are wrong: line 3: This is no JSON; nothing ran and nothing was charged."
    )


def test_packs_that_failed_are_told_with_what_the_last_one_said() -> None:
    facts = batch(view(reason=Reason.RUNNING), waiting=Waiting(packs=2), failed_packs=2, last_error="out of memory")

    assert (
        told(facts, scheduling(MINE)).notes["retries"] == "2 packs failed and run again; the last said: out of memory"
    )
