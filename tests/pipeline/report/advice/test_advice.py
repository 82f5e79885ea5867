"""Advice: each rule by hand, none without evidence, and no money saved twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.tiers import Tier
from pipeline.ports.usage import BatchesUsage, PoolUsage, PrefixUsage, Usage, VariantWord, WorkUsage
from pipeline.report.advice.proposals import AdviceKind, Confidence
from pipeline.report.advice.ranking import Suggestion, advise, spent_micros_per_month

SINCE = datetime(2026, 10, 1, tzinfo=UTC)
UNIT = 1_000_000
HOUR_US = 3_600_000_000


def work(tier: Tier = Tier.STANDARD, cost_micros: int = 100 * UNIT, **given_: object) -> WorkUsage:
    """Return a million tokens of a model, half of them read."""
    plain: dict[str, object] = {
        "model": "m",
        "variant": "m",
        "packs": 100,
        "rows": 1000,
        "input_tokens": 500_000,
        "output_tokens": 500_000,
        "busy_us": HOUR_US,
    }
    return WorkUsage(tier=tier, cost_micros=cost_micros, **(plain | given_))


def batches(tier: Tier = Tier.STANDARD, **given_: object) -> BatchesUsage:
    plain: dict[str, object] = {"model": "m", "batches": 20, "tokens": 1_000_000, "cost_micros": 100 * UNIT}
    return BatchesUsage(tier=tier, **(plain | given_))


def usage(*works: WorkUsage, days: int = 30, **given_: object) -> Usage:
    return Usage(since=SINCE, until=SINCE + timedelta(days=days), currency="USD", works=works, **given_)


def only(found: Usage) -> Suggestion:
    (suggestion,) = advise(found)
    return suggestion


def test_batches_with_most_of_their_window_left_may_go_to_a_tier_that_was_cheaper() -> None:
    slack = batches(window_unused_percent=80.0)
    found = only(usage(work(), work(Tier.BULK, 60 * UNIT), batches=(slack,)))

    assert (found.kind, found.saving_micros_per_month) == (AdviceKind.MOVE_TIER, 40 * UNIT)
    assert found.command == "nightrate submit FILE --tier bulk"
    assert found.evidence == {
        "batches": 20,
        "window_unused_percent": 80.0,
        "cost_micros_per_million_tokens": 100 * UNIT,
        "cost_micros_per_million_tokens_in_bulk": 60 * UNIT,
    }


@pytest.mark.parametrize(
    "slack",
    [
        batches(window_unused_percent=49.9),
        batches(window_unused_percent=None),
        batches(window_unused_percent=80.0, batches=4),
        batches(window_unused_percent=80.0, model="another"),
    ],
)
def test_nothing_is_moved_on_thin_evidence(slack: BatchesUsage) -> None:
    assert advise(usage(work(), work(Tier.BULK, 60 * UNIT), batches=(slack,))) == ()


def test_nothing_is_moved_to_a_tier_that_nobody_used_or_that_was_dearer() -> None:
    slack = (batches(window_unused_percent=80.0),)

    assert advise(usage(work(), batches=slack)) == ()
    assert advise(usage(work(), work(Tier.BULK, 100 * UNIT), batches=slack)) == ()
    assert advise(usage(work(), work(Tier.URGENT, 10 * UNIT), batches=slack)) == ()


def word(variant: str, relative_cost: float, tier: Tier = Tier.STANDARD) -> VariantWord:
    return VariantWord(tier=tier, model="m", variant=variant, relative_cost=relative_cost)


def test_the_cheapest_variant_that_passed_its_gate_is_proposed() -> None:
    found = only(usage(work(), variants=(word("m@int8", 0.75), word("m@int4", 0.5))))

    assert (found.kind, found.saving_micros_per_month) == (AdviceKind.CHEAPER_VARIANT, 50 * UNIT)
    assert "m@int4" in found.sentence
    assert found.confidence is Confidence.LOW


def test_a_variant_is_proposed_against_the_one_that_ran() -> None:
    words = (word("m@int8", 0.75), word("m@int4", 0.6))

    assert only(usage(work(variant="m@int8"), variants=words)).saving_micros_per_month == 20 * UNIT
    assert advise(usage(work(variant="m@int4"), variants=words)) == ()
    assert advise(usage(work(variant="m@unknown"), variants=words)) == ()
    assert advise(usage(work(), variants=(word("m@int4", 0.5, Tier.BULK),))) == ()


def test_steps_with_room_are_a_reason_for_bigger_packs() -> None:
    # A million tokens in a thousand seconds.
    sparse = work(slot_steps_busy=300, slot_steps=1000, busy_us=1_000_000_000, reachable_tokens_per_second=2000.0)

    assert only(usage(sparse)).saving_micros_per_month == 50 * UNIT
    assert only(usage(sparse)).evidence["fill_percent"] == 30.0
    assert advise(usage(replace(sparse, slot_steps_busy=700))) == ()
    assert advise(usage(replace(sparse, packs=19))) == ()
    assert advise(usage(replace(sparse, slot_steps=None))) == ()
    assert advise(usage(replace(sparse, reachable_tokens_per_second=None))) == ()


def test_shared_beginnings_that_missed_the_cache_are_told() -> None:
    cold = work(tokens_prefilled=400_000, tokens_cached=100_000)
    shared = PrefixUsage(tier=Tier.STANDARD, model="m", input_tokens=500_000, shared_tokens=400_000)

    # From 20 % to 80 %, of the half that is read, and of that half again.
    assert only(usage(cold, prefixes=(shared,))).saving_micros_per_month == 15 * UNIT
    assert advise(usage(cold, prefixes=(replace(shared, shared_tokens=140_000),))) == ()
    assert advise(usage(cold)) == ()


def test_the_place_where_the_same_was_cheapest_is_proposed() -> None:
    here, there = (
        work(pool=pool, market="spot", cost_micros=cost) for pool, cost in (("east", 100 * UNIT), ("west", 70 * UNIT))
    )

    found = only(usage(here, there))

    assert (found.kind, found.saving_micros_per_month) == (AdviceKind.CHEAPER_PLACE, 30 * UNIT)
    assert found.command == "nightrate worker --pool west"
    assert advise(usage(here, replace(there, variant="m@int8"))) == ()


def pool(**given_: object) -> PoolUsage:
    """Return four workers over ten days, half of them idle, at 1.00 an hour."""
    plain: dict[str, object] = {
        "pool": "east",
        "market": "on_demand",
        "life_us": 960 * HOUR_US,
        "idle_us": 480 * HOUR_US,
        "cost_micros": 960 * UNIT,
        "idle_cost_micros": 480 * UNIT,
        "hours": 240,
        "workers_always_on": 2,
    }
    return PoolUsage(**(plain | given_))


def test_workers_that_wait_for_work_are_too_many() -> None:
    found = only(usage(days=10, pools=(pool(),)))

    # Two workers' work keeps three busy enough; the fourth's 240 hours of ten days are 720 in thirty.
    assert (found.kind, found.saving_micros_per_month) == (AdviceKind.LESS_IDLE, 720 * UNIT)
    assert found.command == "nightrate up --workers 3"
    assert advise(usage(days=10, pools=(pool(idle_us=100 * HOUR_US),))) == ()
    assert advise(usage(days=10, pools=(pool(life_us=240 * HOUR_US, idle_us=120 * HOUR_US),))) == ()


def test_a_base_that_is_always_there_may_be_committed_to_where_the_discount_is_known() -> None:
    busy = pool(idle_us=0, idle_cost_micros=0)
    paid = work(cost_micros=960 * UNIT, pool="east", market="on_demand")

    found = only(usage(paid, days=10, pools=(busy,), reserved_discount_percent=30.0))

    # Two of four workers, 30 % off, thrice ten days.
    assert (found.kind, found.saving_micros_per_month) == (AdviceKind.RESERVED_BASE, 432 * UNIT)
    assert advise(usage(paid, days=10, pools=(busy,))) == ()
    assert advise(usage(paid, days=10, pools=(replace(busy, hours=100),), reserved_discount_percent=30.0)) == ()
    assert advise(usage(paid, days=10, pools=(replace(busy, market="spot"),), reserved_discount_percent=30.0)) == ()


def test_what_ran_twice_could_have_run_once() -> None:
    found = only(usage(work(), batches=(batches(repeated_batches=3, repeated_cost_micros=25 * UNIT),)))

    assert (found.kind, found.saving_micros_per_month) == (AdviceKind.REPEATED_INPUT, 25 * UNIT)
    assert found.confidence is Confidence.HIGH


def test_tiny_batches_that_cost_more_a_token_are_better_joined() -> None:
    tiny = batches(tiny_batches=12, tiny_tokens=100_000, tiny_cost_micros=28 * UNIT)

    # 72 for 900,000: 8 for 100,000.
    assert only(usage(work(), batches=(tiny,))).saving_micros_per_month == 20 * UNIT
    assert advise(usage(work(), batches=(replace(tiny, tiny_batches=9),))) == ()
    assert advise(usage(work(), batches=(replace(tiny, tiny_cost_micros=10 * UNIT),))) == ()


def test_the_second_suggestion_saves_of_what_the_first_leaves() -> None:
    found = advise(
        usage(
            work(),
            work(Tier.BULK, 60 * UNIT),
            batches=(batches(window_unused_percent=80.0),),
            variants=(word("m@int4", 0.5),),
        )
    )

    variant, tier = found
    assert (variant.kind, variant.saving_micros_per_month) == (AdviceKind.CHEAPER_VARIANT, 50 * UNIT)
    assert (tier.kind, tier.saving_micros_per_month, tier.alone_micros_per_month) == (
        AdviceKind.MOVE_TIER,
        20 * UNIT,
        40 * UNIT,
    )
    assert [each.rank for each in found] == [1, 2]


def test_little_is_not_worth_a_suggestion() -> None:
    assert advise(usage(work(cost_micros=10_000), variants=(word("m@int4", 0.5),))) == ()


COST = st.integers(0, 10**9)


@given(
    costs=st.lists(COST, min_size=4, max_size=4),
    unused=st.floats(0, 100),
    relative=st.floats(0.01, 2),
    repeated=COST,
    idle=st.integers(0, 960),
    discount=st.floats(0, 100),
    days=st.integers(1, 90),
)
def test_all_savings_together_are_never_more_than_was_spent(
    *, costs: list[int], unused: float, relative: float, repeated: int, idle: int, discount: float, days: int
) -> None:
    works = [
        work(tier, cost, pool=place, market="on_demand")
        for cost, (tier, place) in zip(
            costs, [(tier, place) for tier in (Tier.STANDARD, Tier.BULK) for place in ("east", "west")], strict=True
        )
    ]
    slack = batches(
        window_unused_percent=unused, repeated_batches=1, repeated_cost_micros=repeated, cost_micros=sum(costs[:2])
    )
    there = pool(idle_us=idle * HOUR_US, idle_cost_micros=idle * UNIT)
    found = usage(
        *works,
        days=days,
        batches=(slack,),
        variants=(word("m@int4", relative),),
        pools=(there,),
        reserved_discount_percent=discount,
    )

    suggestions = advise(found)

    assert sum(each.saving_micros_per_month for each in suggestions) <= spent_micros_per_month(found)
    assert all(0 < each.saving_micros_per_month <= each.alone_micros_per_month for each in suggestions)
    assert [each.saving_micros_per_month for each in suggestions] == sorted(
        (each.saving_micros_per_month for each in suggestions), reverse=True
    )
    assert all(each.evidence and each.command and each.sentence for each in suggestions)


def test_a_span_without_length_or_use_has_no_advice() -> None:
    assert advise(usage()) == ()
    assert spent_micros_per_month(usage(work(), days=0)) == 0
    assert Decimal(spent_micros_per_month(usage(work(), days=15))) == 200 * UNIT
