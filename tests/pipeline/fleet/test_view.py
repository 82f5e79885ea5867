"""What the fleet's policy sees of batches and settings."""

from __future__ import annotations

from pipeline.app.fleet_view import work_of
from pipeline.app.policies import policy_of
from pipeline.config import Settings, TenantSettings
from pipeline.domain.ids import TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.rate_settings import RateCardSettings
from scheduler.prediction.predictions import Predictions
from tests.scheduler.world import HOUR_US, NOW_US, backlog

EU = TenantId("tnt_eu")


def test_a_tenants_rows_run_where_its_regions_are_and_nowhere_that_is_not_known() -> None:
    pools = {
        "paris": {"provider": "aws", "instance_type": "g6.xlarge", "region": "eu-west-3"},
        "ohio": {"provider": "aws", "instance_type": "g6.xlarge", "region": "us-east-2"},
        "cellar": {},
    }
    settings = Settings(
        rate_card=RateCardSettings.model_validate({"pools": pools}),
        tenants={str(EU): TenantSettings(regions=["eu-west-3", "eu-west-1"])},
    )

    policy = policy_of(settings)

    assert [pool for pool in (*pools, "elsewhere") if policy.may_run(EU, pool)] == ["paris"]
    assert all(policy.may_run(TenantId("tnt_other"), pool) for pool in pools)


def test_work_is_told_apart_by_what_it_may_run_on_and_when() -> None:
    due = NOW_US + 5 * HOUR_US
    seen = [
        backlog("batch_a", rows=10, deadline_at_us=due),
        backlog("batch_b", rows=20, deadline_at_us=due + 1_000_000),
        backlog("batch_eu", rows=40, deadline_at_us=due, tenant_id=EU),
        backlog("batch_held", rows=80, deadline_at_us=due, hold_until_us=NOW_US + HOUR_US),
        backlog("batch_promised", rows=160, deadline_at_us=due, promise=Promise.MADE),
        backlog("batch_paused", rows=320, deadline_at_us=due, is_paused=True),
        backlog("batch_broke", rows=640, deadline_at_us=due, reason=Reason.BUDGET_REACHED),
    ]

    work = work_of(seen, Predictions(), now_us=NOW_US, regions={EU: frozenset({"eu-west-3"})})

    found = {(each.regions, each.is_promised, each.from_us > 0): each.size.rows for each in work}
    assert found == {
        (None, False, False): 30,
        (frozenset({"eu-west-3"}), False, False): 40,
        (None, False, True): 80,
        (None, True, False): 160,
    }
