from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.domain.lifecycle import WorkerState
from pipeline.domain.reasons import PoolReason
from pipeline.ports.cycle import Backlog, PoolView
from pipeline.ports.explain import Explanation, PoolFacts, Scheduling, Waiting
from scheduler.explain.forecast import Forecast
from scheduler.explain.pools import explain_pool
from scheduler.policy import Policy
from tests.scheduler.explain.facts import NOW, pool, scheduling, worker
from tests.scheduler.world import HOUR_US, NOW_US, backlog, references, snapshot

BUSY = (worker("wrk_1", packs=1), worker("wrk_2", packs=1))
LEASED = Waiting(packs=2, seconds=20.0, since=NOW - timedelta(seconds=30))
WAITING = Waiting(packs=4, seconds=40.0, since=NOW - timedelta(seconds=50))
ONE = backlog("batch_1", rows=100)
CASES: dict[PoolReason, tuple[PoolFacts, tuple[Backlog, ...]]] = {
    PoolReason.NO_WORKERS: (pool(workers=(), stranded=WAITING, last_worker_at=NOW - timedelta(hours=1)), (ONE,)),
    PoolReason.STARTING: (pool(workers=(worker(state=WorkerState.BOOTING),)), (ONE,)),
    PoolReason.DRAINING: (pool(workers=(worker(must_stop=True),)), (ONE,)),
    PoolReason.STRANDED: (pool(stranded=WAITING, stranded_variants=("model-z",)), ()),
    PoolReason.BLOCKED: (pool(), (ONE,)),
    PoolReason.FULL: (pool(workers=BUSY, leased=LEASED, waiting=WAITING), (ONE,)),
    PoolReason.BUSY: (pool(workers=(BUSY[0], worker("wrk_2")), leased=LEASED), ()),
    PoolReason.FILLING: (pool(), (ONE,)),
    PoolReason.IDLE: (pool(), ()),
}


def told(facts: PoolFacts, *backlogs: Backlog, **changes: object) -> Explanation:
    seen: Scheduling = scheduling(*backlogs, pools=[facts], **changes)
    return explain_pool(facts, seen, Forecast(seen, Policy(pack_rows_min=1)))


@pytest.mark.parametrize("reason", PoolReason)
def test_every_reason_is_told_of_the_pool_that_has_it(reason: PoolReason) -> None:
    facts, backlogs = CASES[reason]
    changes: dict[str, object] = {"has_leader": reason is not PoolReason.BLOCKED}
    if reason in {PoolReason.NO_WORKERS, PoolReason.DRAINING}:
        changes["snapshot"] = snapshot(backlogs, pools=())

    explanation = told(facts, *backlogs, **changes)

    assert explanation.reason == str(reason)
    assert explanation.sentence.endswith(".")
    assert "None" not in explanation.sentence
    assert (explanation.since is None) == (reason in {PoolReason.DRAINING, PoolReason.BLOCKED, PoolReason.FILLING})


def test_a_full_pool_tells_what_waits_and_whose_turn_is_next() -> None:
    facts, _ = CASES[PoolReason.FULL]

    explanation = told(facts, ONE, backlog("batch_2", rows=100, deadline_at_us=NOW_US + HOUR_US))

    assert explanation.sentence == (
        "Each of its 2 workers is busy, and 4 packs (40 s of work) wait; behind them, 2 batches have rows to pack."
    )
    assert explanation.notes["next turn"] == "batch_2 (tier standard, tenant tnt_a)"
    assert explanation.since == WAITING.since


def test_the_workers_that_deadlines_ask_for_are_told() -> None:
    # Three hours of work, half as much again for safety, due in an hour, on 70 % of the workers' time.
    due = backlog("batch_1", rows=3 * 3600, deadline_at_us=NOW_US + HOUR_US)

    explanation = told(pool(), due)

    wanted = explanation.figures["workers_wanted"]
    assert wanted == 7
    assert explanation.changes[-1].sentence == "5 more workers would meet every deadline that can be met (7 in all)"


def test_a_deadline_that_no_number_of_workers_meets_is_told_apart() -> None:
    explanation = told(pool(), backlog("batch_1", rows=3600, deadline_at_us=NOW_US + 10_000_000))

    assert explanation.figures["workers_wanted"] == 0
    assert explanation.notes["deadlines"] == "1 batch is too near its end for any number of workers"


def test_an_idle_pool_names_the_batches_that_may_not_run() -> None:
    explanation = told(pool(), backlog("batch_1", rows=100, is_paused=True))

    assert "1 batch has rows but may not run now" in explanation.sentence
    assert explanation.changes[0].command == "nightrate explain batch_1"


def test_a_variants_rows_count_where_only_the_variant_is_served() -> None:
    serving = PoolView(pool="cpu", workers=2, servings=references(("model-b",)), packs_waiting=0)

    explanation = told(pool(), ONE, snapshot=snapshot([ONE], pools=(serving,)))

    assert explanation.figures["batches_to_pack"] == 0
