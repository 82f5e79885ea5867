from __future__ import annotations

import re
from dataclasses import asdict, replace
from datetime import timedelta

import pytest

from pipeline.domain.ids import TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog
from pipeline.ports.explain import BatchFacts, Explanation, Scheduling, Waiting
from scheduler.explain.batches import explain_batch
from scheduler.explain.forecast import Forecast
from scheduler.explain.tenants import eta_of, for_tenant
from scheduler.policy import Policy
from tests.scheduler.explain.facts import BATCH, NOW, batch, pool, scheduling, view, worker
from tests.scheduler.explain.test_batches import ENDS, MINE, is_sentence
from tests.scheduler.world import HOUR_US, NOW_US, backlog

POLICY = Policy(pack_rows_min=1)


def told(facts: BatchFacts, seen: Scheduling) -> Explanation:
    forecast = Forecast(seen, POLICY)
    return for_tenant(explain_batch(facts, seen, forecast), facts, seen, forecast)


def of_others(number: int) -> list[Backlog]:
    """Return batches of other tenants with the better claim, all but a few rows of which an hour of work is left."""
    return [
        backlog(
            f"batch_other_{index}",
            tenant_id=TenantId(f"tnt_other_{index}"),
            tier=(Tier.URGENT, Tier.STANDARD)[index % 2],
            created_at_us=NOW_US - 2 * HOUR_US,
        )
        for index in range(number)
    ]


def crowded(number: int) -> Scheduling:
    hosts = tuple(worker(f"wrk_secret_{index}") for index in range(2))
    return scheduling(MINE, *of_others(number), pools=[pool(waiting=Waiting(packs=77, seconds=770.0), workers=hosts)])


@pytest.mark.parametrize("reason", Reason)
def test_nothing_of_others_or_of_workers_is_told_for_any_reason(reason: Reason) -> None:
    facts = batch(
        view(ENDS.get(reason, BatchState.IN_PROGRESS), reason),
        hosts=("host-secret",),
        waiting=Waiting(packs=2, seconds=3.0),
        leased=Waiting(packs=1, seconds=3.0),
        failed_packs=1,
        last_error="wrk_secret_1 ran out of memory",
    )

    explanation = told(facts, crowded(53))

    assert is_sentence(explanation.sentence)
    said = repr(asdict(explanation))
    assert not re.search(r"tnt_other|batch_other|secret|wrk_|host|pool|\b53\b|\b77\b|nightrate ", said), said
    assert BATCH in said


def test_how_many_others_there_are_changes_times_and_no_sentence() -> None:
    facts = batch(view(BatchState.IN_PROGRESS, Reason.QUEUED))

    few, many = told(facts, crowded(2)), told(facts, crowded(40))

    assert few.sentence == many.sentence == "It waits for its turn."
    assert few.changes == many.changes


def test_its_own_tenants_batches_of_a_higher_priority_are_told() -> None:
    ahead = [backlog(f"batch_mine_{index}", priority=index + 1) for index in range(2)]

    explanation = told(batch(view(BatchState.IN_PROGRESS, Reason.QUEUED)), scheduling(MINE, *ahead, *of_others(3)))

    assert explanation.sentence == (
        "It waits for its turn, and of its tenant's 2 have a higher priority (up to 2, and this 0)."
    )
    assert any("with priority 2" in change.sentence for change in explanation.changes)


@pytest.mark.parametrize("state", BatchState)
def test_every_state_has_a_sentence(state: BatchState) -> None:
    facts = batch(replace(view(state, None), trouble="s3://secret is away"), reason_at=None)

    explanation = told(facts, crowded(1))

    assert is_sentence(explanation.sentence)
    assert "secret" not in repr(asdict(explanation))


def test_the_end_is_foreseen_only_of_what_is_under_way() -> None:
    seen = crowded(3)
    forecast = Forecast(seen, POLICY)

    eta = eta_of(batch(view(BatchState.IN_PROGRESS, Reason.RUNNING)), seen, forecast)

    assert eta is not None
    assert NOW < eta.earliest < eta.likely < eta.latest
    assert eta.latest - eta.likely - (eta.likely - eta.earliest) <= timedelta(microseconds=1)
    for reason in (Reason.USER_PAUSED, Reason.HELD, Reason.BUDGET_REACHED, Reason.NO_WORKER):
        assert eta_of(batch(view(BatchState.IN_PROGRESS, reason)), seen, forecast) is None
    assert eta_of(batch(view(BatchState.COMPLETED, Reason.ALL_COMMITTED)), seen, forecast) is None
    nobody = scheduling(replace(MINE, model="model-of-nobody"))
    assert eta_of(batch(view(BatchState.IN_PROGRESS, Reason.QUEUED)), nobody, Forecast(nobody, POLICY)) is None
