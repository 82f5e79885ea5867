"""Admission: a promise as a condition, answered by the cycle, and counter-offers by the quote."""

from __future__ import annotations

from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog
from pipeline.ports.quotes import TierQuote
from scheduler.admission import judge_admission
from tests.scheduler.world import HOUR_US, NOW_US, backlog, plan_of, snapshot

#: A second each: two workers' seven tenths of an hour hold some five thousand, at one and a half times.
FITS, TOO_MANY = 1_000, 10_000


def asking(name: str, *, rows: int, **changes: object) -> Backlog:
    return backlog(
        name, rows=rows, promise=Promise.PENDING, must_promise=True, deadline_at_us=NOW_US + HOUR_US, **changes
    )


def test_what_is_promised_starts_once_that_is_stored_and_not_before() -> None:
    plan = plan_of(snapshot([asking("batch_a", rows=FITS)]))

    assert plan.promises == (("batch_a", Promise.MADE),)
    assert (plan.packs, plan.refused) == ((), ())
    assert [standing.reason for standing in plan.standings] == [Reason.QUEUED]


def test_what_cannot_be_promised_is_refused_with_the_earliest_deadline_that_can() -> None:
    plan = plan_of(snapshot([asking("batch_a", rows=TOO_MANY)]))

    assert plan.packs == ()
    ((batch_id, earliest_us),) = plan.refused
    assert batch_id == "batch_a"
    assert earliest_us is not None
    assert earliest_us > NOW_US + HOUR_US
    accepted = backlog(
        "batch_a", rows=TOO_MANY, promise=Promise.PENDING, must_promise=True, deadline_at_us=earliest_us + 1_000_000
    )
    assert plan_of(snapshot([accepted])).promises == (("batch_a", Promise.MADE),)


def test_what_no_worker_serves_is_refused_at_once() -> None:
    plan = plan_of(snapshot([asking("batch_a", rows=1, model="model-z")]))

    assert plan.refused == (("batch_a", None),)


def test_two_that_fit_only_one_by_one_are_not_both_promised() -> None:
    half = [asking(f"batch_{n}", rows=2_500, created_at_us=NOW_US + n) for n in range(2)]

    plan = plan_of(snapshot(half))

    assert plan.promises == (("batch_0", Promise.MADE), ("batch_1", Promise.DECLINED))
    assert [batch_id for batch_id, _ in plan.refused] == ["batch_1"]


def test_a_batch_without_the_condition_is_never_refused() -> None:
    plan = plan_of(
        snapshot([backlog("batch_a", rows=TOO_MANY, promise=Promise.PENDING, deadline_at_us=NOW_US + HOUR_US)])
    )

    assert plan.promises == (("batch_a", Promise.DECLINED),)
    assert plan.refused == ()
    assert plan.packs


def quoted(tier: Tier, *, cost: int = 100, promise: float | None = 600.0, can: bool = True) -> TierQuote:
    return TierQuote(
        tier=tier, variant="model-a", cost_micros=(cost // 2, cost), currency="USD", finish_seconds=(1.0, 2.0, 3.0),
        chances={}, can_promise=can, promise_seconds=promise,
    )  # fmt: skip


def test_a_batch_that_can_be_promised_within_its_budget_is_likely_to_be_admitted() -> None:
    admission = judge_admission([quoted(Tier.STANDARD)], tier=Tier.STANDARD, budget_micros=100)

    assert admission.is_likely
    assert judge_admission([quoted(Tier.STANDARD)], tier=Tier.STANDARD, budget_micros=None).is_likely


def test_a_refusal_names_the_window_and_the_price_that_would_do_and_tiers_that_ask_for_less() -> None:
    quotes = [
        quoted(Tier.URGENT, cost=300, can=False),
        quoted(Tier.STANDARD, cost=200, can=False),
        quoted(Tier.BULK, cost=90),
        TierQuote(
            tier=Tier.NIGHTLY, variant=None, cost_micros=None, currency="USD", finish_seconds=None, chances={},
            can_promise=False, promise_seconds=None,
        ),
    ]  # fmt: skip

    admission = judge_admission(quotes, tier=Tier.STANDARD, budget_micros=100)

    assert not admission.is_likely
    assert admission.asked is not None
    assert (admission.asked.window_seconds, admission.asked.budget_micros) == (600.0, 200)
    assert [(offer.tier, offer.is_as_asked) for offer in admission.others] == [(Tier.BULK, True)]


def test_a_tier_that_nobody_serves_is_refused_with_those_that_are_served() -> None:
    admission = judge_admission([quoted(Tier.BULK)], tier=Tier.STANDARD, budget_micros=None)

    assert admission.asked is None
    assert [offer.tier for offer in admission.others] == [Tier.BULK]
