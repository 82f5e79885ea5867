from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.sketches import LengthSketch
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import ShardEstimate, Survey
from pipeline.ports.cycle import EndedPack, EndedShare, PoolView, Snapshot, WorkSize
from pipeline.ports.quotes import TierQuote
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from scheduler.quoting import Asked, expected_tokens, quote
from tests.scheduler.world import NOW_US, backlog, references, snapshot

HOUR = 3600.0
POLICY = Policy(pack_rows_min=1)
#: Two workers at a dollar an hour.
POOL = PoolView(
    pool="cpu", workers=2, servings=references(["model-a"]), packs_waiting=0, rate_micros_per_hour=1_000_000
)


def asked(*, rows: int = 1000, window: float = HOUR, model: str = "model-a") -> Asked:
    """Return a batch whose rows take 200 tokens each: two seconds at the assumed hundred a second."""
    shard = ShardEstimate(rows=rows, input_tokens=100 * rows, output_tokens=100 * rows, template=7)
    survey = Survey(model=model, rows_total=rows, rows_duplicate=0, rows_refused=0, shards=(shard,) if rows else ())
    return Asked(tenant_id=TenantId("tnt_a"), endpoint=Endpoint.CHAT_COMPLETIONS, survey=survey, window_seconds=window)


def seen(*backlogs: object, pools: tuple[PoolView, ...] = (POOL,)) -> Snapshot:
    return snapshot(backlogs, pools=pools)  # type: ignore[arg-type]


def known(*, seconds_a_row: float = 0.5, output_tokens: float = 50.0) -> Predictions:
    """Return predictions of rows that took half a second and answered half their bound."""
    predictions = Predictions()
    for number in range(30):
        rows = 100 + number
        actual = WorkSize(rows=rows, input_tokens=100 * rows, output_tokens=output_tokens * rows)
        share = EndedShare(
            tenant_id=TenantId("tnt_a"), batch_id=BatchId("b"), template=7, predicted_seconds=1.0,
            estimated=WorkSize(rows=rows, input_tokens=100 * rows, output_tokens=100 * rows), actual=actual,
            lengths=LengthSketch.of([round(output_tokens)] * (rows - 10) + [200] * 10).as_plain(),
        )  # fmt: skip
        predictions.learn(
            EndedPack(
                pack_id=PackId(str(number)),
                pool="cpu",
                model="model-a",
                variant="model-a",
                tier=Tier.BULK,
                seconds=seconds_a_row * rows,
                is_clean=True,
                shares=(share,),
            )
        )
    return predictions


def quoted(ask: Asked, world: Snapshot, predictions: Predictions | None = None) -> dict[Tier, TierQuote]:
    found = quote(ask, world, predictions or known(), POLICY, windows=[60.0, HOUR, 24 * HOUR], seed=1, runs=3)
    return {each.tier: each for each in found}


def test_a_quote_is_what_was_learned_on_the_workers_there_are() -> None:
    offer = quoted(asked(rows=1000), seen())[Tier.STANDARD]

    assert offer.variant == "model-a"
    assert offer.is_measured
    assert offer.cost_micros is not None
    assert offer.finish_seconds is not None
    low, high = offer.cost_micros
    # 500 worker-seconds at a dollar an hour, on two workers.
    assert low <= 500 / HOUR * 1e6 * 1.05
    assert high >= 500 / HOUR * 1e6 * 0.95
    assert high < 2 * low
    assert offer.finish_seconds[1] == pytest.approx(250, rel=0.15)
    assert offer.chances == {60.0: 0.0, HOUR: 1.0, 24 * HOUR: 1.0}


def test_equal_questions_get_equal_answers() -> None:
    assert quoted(asked(), seen(backlog("a", rows=500))) == quoted(asked(), seen(backlog("a", rows=500)))


def test_what_is_queued_is_ahead_by_the_weight_of_its_tier() -> None:
    ahead = backlog("ahead", rows=12_000, tier=Tier.STANDARD, tenant_id=TenantId("tnt_b"))

    offers = quoted(asked(rows=1000, window=600.0), seen(ahead))

    middles = [offers[tier].finish_seconds[1] for tier in Tier]  # type: ignore[index]
    assert middles == sorted(middles)
    assert middles[-1] > 2 * middles[0]
    assert (offers[Tier.URGENT].chances[600.0], offers[Tier.NIGHTLY].chances[600.0]) == (1.0, 0.0)


def test_a_window_that_others_were_promised_cannot_be_promised_again() -> None:
    free = quoted(asked(rows=2000, window=HOUR), seen())[Tier.BULK]
    taken = backlog("taken", rows=9000, promise=Promise.MADE, deadline_at_us=NOW_US + round(HOUR * 1e6))
    taken = replace(taken, left=WorkSize(rows=9000, input_tokens=900_000, output_tokens=900_000))

    busy = quoted(asked(rows=2000, window=HOUR), seen(taken))[Tier.BULK]

    assert (free.can_promise, busy.can_promise) == (True, False)
    assert free.promise_seconds is not None
    assert busy.promise_seconds is not None
    assert free.promise_seconds < HOUR < busy.promise_seconds


def test_the_shortest_window_offered_is_one_that_can_be_promised() -> None:
    offer = quoted(asked(rows=2000), seen())[Tier.BULK]
    assert offer.promise_seconds is not None

    enough = quoted(asked(rows=2000, window=offer.promise_seconds + 0.01), seen())[Tier.BULK]
    short = quoted(asked(rows=2000, window=offer.promise_seconds - 1), seen())[Tier.BULK]

    assert (enough.can_promise, short.can_promise) == (True, False)


def test_what_no_live_worker_serves_has_no_quote() -> None:
    offers = quoted(asked(model="model-z"), seen())

    assert all(offer.variant is None and offer.cost_micros is None and not offer.chances for offer in offers.values())
    assert quoted(asked(rows=0), seen())[Tier.BULK].variant is None


def test_before_anything_ran_the_assumption_is_quoted_and_said_to_be_one() -> None:
    offer = quoted(asked(rows=100), replace(seen(), tokens_per_second={}), Predictions())[Tier.STANDARD]

    assert not offer.is_measured
    assert offer.finish_seconds is not None


def test_a_quote_teaches_nothing() -> None:
    predictions = known()
    predictions.stored()

    quoted(asked(), seen(backlog("a", rows=500)), predictions)

    assert predictions.changed() == ()


def test_very_many_batches_ahead_are_taken_together() -> None:
    ahead = [backlog(f"ahead_{n:04d}", rows=10, tenant_id=TenantId(f"t{n % 3}")) for n in range(600)]

    offer = quoted(asked(rows=100), seen(*ahead))[Tier.NIGHTLY]

    assert offer.finish_seconds is not None
    # Fifty worker-seconds at a fifth of two workers.
    assert offer.finish_seconds[1] == pytest.approx(50 * 5 / 2, rel=0.25)


def test_answers_seen_to_rows_like_these_tell_the_tokens_to_expect() -> None:
    expected = expected_tokens(asked(rows=1000).survey, known(output_tokens=50.0))

    assert expected.input_tokens == pytest.approx(100_000, rel=0.05)
    assert expected.output_tokens == pytest.approx(50_000, rel=0.05)
    assert expected.answers_known > 1000
    assert expected.answer_tokens == pytest.approx((50, 200), rel=0.1)


def test_of_a_model_that_nobody_has_run_only_the_estimate_is_known() -> None:
    expected = expected_tokens(asked(rows=10).survey, Predictions())

    assert (expected.input_tokens, expected.output_tokens) == (1000, 1000)
    assert (expected.answers_known, expected.answer_tokens) == (0, None)
