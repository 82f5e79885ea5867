"""What was asked for and what it cost, by hour, group and scope."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.domain.ids import ProjectId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.access import Scope
from pipeline.ports.demand import Breakdown, HourlyAmount, TokenError
from storage.demand import DemandRepository
from tests.storage.history import RATE, write_hours
from tests.storage.world import World

START = datetime(2026, 3, 2, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
OURS = Scope(tenant_id=TenantId("tnt_default"))
THEIRS = Scope(tenant_id=TenantId("tnt_other"))


@pytest.fixture
def demand(world: World) -> DemandRepository:
    write_hours(world.database, START, [300, 0, 600])
    write_hours(world.database, START + HOUR, [900], tenant_id="tnt_other", project_id="p2", tier="bulk", model="chat")
    return DemandRepository(world.database)


def by_group(amounts: Iterable[HourlyAmount]) -> dict[tuple[str | None, int], int]:
    return {(each.group, (each.at - START) // HOUR): round(each.amount) for each in amounts if round(each.amount)}


def test_tokens_are_counted_in_the_hour_that_they_were_asked_for(demand: DemandRepository) -> None:
    until = START + 5 * HOUR

    assert by_group(demand.arrivals(START, until)) == {(None, 0): 300, (None, 1): 900, (None, 2): 600}
    assert by_group(demand.arrivals(START + HOUR, START + 2 * HOUR)) == {(None, 1): 900}


def test_tokens_are_told_apart_and_each_sees_its_own(demand: DemandRepository) -> None:
    until = START + 5 * HOUR

    for by, names in (
        (Breakdown.TENANT, ("tnt_default", "tnt_other")),
        (Breakdown.TIER, ("standard", "bulk")),
        (Breakdown.MODEL, ("echo", "chat")),
    ):
        assert by_group(demand.arrivals(START, until, by=by)) == {
            (names[0], 0): 300,
            (names[1], 1): 900,
            (names[0], 2): 600,
        }
    assert by_group(demand.arrivals(START, until, scope=THEIRS)) == {(None, 1): 900}
    no_project = Scope(tenant_id=TenantId("tnt_other"), project_id=ProjectId("p1"))
    assert demand.arrivals(START, until, scope=no_project) == []


def test_costs_fall_into_the_hours_that_workers_lived_in(demand: DemandRepository) -> None:
    found = by_group(demand.costs(START, START + 5 * HOUR, currency="USD"))

    assert found == {(None, 0): RATE, (None, 1): 2 * RATE, (None, 2): RATE}
    assert demand.costs(START, START + 5 * HOUR, currency="EUR") == []


def test_work_costs_what_it_did_and_a_tenant_what_it_is_charged(demand: DemandRepository) -> None:
    until = START + 5 * HOUR

    assert by_group(demand.costs(START, until, currency="USD", by=Breakdown.MODEL)) == {
        ("echo", 0): RATE // 2, ("echo", 1): RATE // 2, ("chat", 1): RATE // 2, ("echo", 2): RATE // 2,
    }  # fmt: skip
    assert by_group(demand.costs(START, until, currency="USD", scope=THEIRS)) == {(None, 1): RATE}


def test_paces_and_errors_of_estimates_are_as_measured(demand: DemandRepository) -> None:
    echo, chat = sorted(demand.paces(START), key=lambda pace: pace.model, reverse=True)

    assert (echo.pool, echo.variant, echo.tokens, echo.work_seconds) == ("local", "echo", 900, 3600.0)
    assert (chat.tokens, chat.work_seconds) == (900, 1800.0)
    assert demand.token_errors(START) == [
        TokenError(model="chat", estimated_tokens=900, actual_tokens=900),
        TokenError(model="echo", estimated_tokens=900, actual_tokens=900),
    ]
    assert demand.paces(START + 9 * HOUR) == []


def test_what_a_models_tokens_are_made_of_is_told_by_tier(demand: DemandRepository) -> None:
    found = {(each.model, each.tier): each for each in demand.compositions(START, START + 5 * HOUR)}

    assert set(found) == {("echo", Tier.STANDARD), ("chat", Tier.BULK)}
    echo = found["echo", Tier.STANDARD]
    assert echo.input_tokens + echo.output_tokens == 900
    assert echo.rows > 0
    assert demand.compositions(START - 2 * HOUR, START) == []
