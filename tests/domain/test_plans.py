from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.ids import DEFAULT_TENANT, TenantId
from pipeline.domain.plans import (
    BUILT_IN,
    BUILT_IN_BOOK,
    Plan,
    PlanBook,
    RouteClass,
    TenantTerms,
    Used,
    Wanted,
    month_of,
    next_month,
    refuse_quota,
    refuse_terms,
)
from pipeline.domain.rates import Rate, duration, whole_seconds
from pipeline.domain.tiers import Tier

NOW = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
ACME = TenantId("tnt_acme")
PLAN = Plan(
    name="small",
    requests_per_month=100,
    tokens_per_month=1000,
    tier_ceiling=Tier.BULK,
    enqueued_tokens_max=500,
    rows_max=50,
)
FITTING = Wanted(tenant_id=ACME, tier=Tier.BULK, model="echo", rows_total=50, requests=40, tokens=300)
USED = Used(requests=60, tokens=700, enqueued_tokens=200)


def test_what_just_fits_into_every_limit_is_admitted() -> None:
    assert refuse_terms(PLAN, FITTING) is None
    assert refuse_quota(PLAN, FITTING, USED, now=NOW) is None


@pytest.mark.parametrize(
    ("used", "code"),
    [
        (replace(USED, enqueued_tokens=201), "token_limit_exceeded"),
        (replace(USED, requests=61), "monthly_request_limit_exceeded"),
        (replace(USED, tokens=701), "monthly_token_limit_exceeded"),
    ],
)
def test_one_more_than_what_is_left_is_refused(used: Used, code: str) -> None:
    refusal = refuse_quota(PLAN, FITTING, used, now=NOW)

    assert refusal is not None
    assert refusal.code == code


def test_a_tier_above_the_ceiling_and_a_row_too_many_are_refused_whatever_is_left() -> None:
    above = refuse_terms(PLAN, replace(FITTING, tier=Tier.STANDARD))
    longer = refuse_terms(PLAN, replace(FITTING, rows_total=51))

    assert above is not None
    assert above.code == "tier_not_allowed"
    assert "'bulk', 'nightly'" in above.message
    assert longer is not None
    assert longer.code == "too_many_requests_in_batch"
    assert "50 at most" in longer.message


def test_refusals_of_enqueued_tokens_are_in_openais_words() -> None:
    refusal = refuse_quota(PLAN, FITTING, replace(USED, enqueued_tokens=500), now=NOW)

    assert refusal is not None
    assert refusal.message == (
        "Enqueued token limit reached for echo in organization tnt_acme. Limit: 500 enqueued tokens. "
        "Please try again once some in_progress batches have been completed."
    )


def test_refusals_of_the_month_say_what_is_left_and_when_it_turns() -> None:
    refusal = refuse_quota(PLAN, FITTING, replace(USED, requests=90), now=NOW)
    overdrawn = refuse_quota(PLAN, FITTING, replace(USED, tokens=1200), now=NOW)

    assert refusal is not None
    assert "10 of 100 are left" in refusal.message
    assert "2027-01-01T00:00:00Z" in refusal.message
    # Measured tokens may come to more than what was estimated.
    assert overdrawn is not None
    assert "0 of 1,000 are left" in overdrawn.message


def test_a_plan_without_limits_refuses_nothing() -> None:
    plan = Plan(name="any")
    wanted = replace(FITTING, tier=Tier.URGENT, rows_total=10**9, requests=10**9, tokens=10**15)

    assert not plan.has_quotas
    assert refuse_terms(plan, wanted) is None
    assert refuse_quota(plan, wanted, Used(requests=10**12, tokens=10**15, enqueued_tokens=0), now=NOW) is None
    assert [plan.rate_of(route_class) for route_class in RouteClass] == [None] * 3


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 -- hypothesis wants naive bounds
def test_the_month_holds_the_instant_and_turns_after_it(now: datetime) -> None:
    first, turns_at = month_of(now), next_month(now)

    assert datetime(first.year, first.month, 1, tzinfo=UTC) <= now < turns_at
    assert month_of(turns_at - timedelta(microseconds=1)) == first
    assert month_of(turns_at) == turns_at.date()


def test_months_are_those_of_utc_wherever_the_clock_stands() -> None:
    auckland = timezone(timedelta(hours=13))

    assert month_of(datetime(2027, 1, 1, 12, tzinfo=auckland)) == date(2026, 12, 1)


def test_batches_that_name_no_tier_get_the_best_that_is_not_dearer_than_standard() -> None:
    assert [plan.tier_by_default for plan in BUILT_IN.values()] == [
        Tier.BULK,
        Tier.STANDARD,
        Tier.STANDARD,
        Tier.STANDARD,
    ]


def test_dearer_plans_never_allow_less() -> None:
    free, paid, vip, unlimited = BUILT_IN.values()
    numbers = [name for name in Plan.__dataclass_fields__ if name not in {"name", "tier_ceiling"}]

    for less, more in ((free, paid), (paid, vip), (vip, unlimited)):
        for name in numbers:
            low, high = getattr(less, name), getattr(more, name)
            assert high is None or (low is not None and low <= high), name
        assert set(less.tiers) <= set(more.tiers)


def test_a_tenants_plan_is_the_one_of_the_settings_then_the_stored_one_and_single_limits_win() -> None:
    book = PlanBook(
        plans={**BUILT_IN, "small": PLAN},
        tenants={
            ACME: TenantTerms(plan="small", own={"rows_max": None, "tier_ceiling": Tier.URGENT}),
            TenantId("tnt_other"): TenantTerms(own={"batches_live_max": 3}),
        },
    )

    acme, other = book.plan_of(ACME, "vip"), book.plan_of(TenantId("tnt_other"), "paid")

    assert (acme.name, acme.rows_max, acme.tier_ceiling, acme.tokens_per_month) == ("small", None, Tier.URGENT, 1000)
    assert other == replace(BUILT_IN["paid"], batches_live_max=3)


def test_a_plan_that_is_not_in_the_price_list_any_more_gives_the_least_and_shuts_nobody_out_of_their_own() -> None:
    assert BUILT_IN_BOOK.plan_of(ACME, "gone").name == "free"
    assert BUILT_IN_BOOK.plan_of(DEFAULT_TENANT, "gone").name == "unlimited"


def test_reads_and_writes_have_the_rate_of_requests_and_uploads_their_own() -> None:
    plan = Plan(name="p", requests_per_minute=60, burst=5, uploads_per_minute=7)

    assert plan.rate_of(RouteClass.READS) == plan.rate_of(RouteClass.WRITES) == Rate(per_minute=60, burst=5)
    assert plan.rate_of(RouteClass.UPLOADS) == Rate(per_minute=7, burst=7)
    assert replace(plan, burst=None).rate_of(RouteClass.READS) == Rate(per_minute=60, burst=60)


@pytest.mark.parametrize(
    ("microseconds", "written"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (6_000, "6ms"),
        (999_000, "999ms"),
        (999_001, "1s"),
        (1_000_000, "1s"),
        (59_000_001, "1m0s"),
        (360_000_000, "6m0s"),
        (3_723_000_000, "1h2m3s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(microseconds: int, written: str) -> None:
    assert duration(microseconds) == written


def test_waits_are_rounded_up_to_whole_seconds() -> None:
    assert [whole_seconds(us) for us in (0, 1, 1_000_000, 1_000_001)] == [1, 1, 1, 2]


@given(st.integers(1, 60_000_000))
def test_an_interval_never_lets_more_through_than_the_rate(per_minute: int) -> None:
    interval_us = Rate(per_minute=per_minute, burst=1).interval_us

    assert interval_us * per_minute >= 60_000_000
    assert (interval_us - 1) * per_minute < 60_000_000
