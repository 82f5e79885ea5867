"""What packs carry to be paid for by: the costs that their seconds were predicted with."""

from __future__ import annotations

from random import Random

import pytest

from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.shares import UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import EndedPack, EndedShare, WorkSize
from scheduler.cycle import decide
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from tests.scheduler.world import backlog, pack_ids, plan_of, snapshot


def learned(*, packs: int) -> Predictions:
    """Return what such packs teach of which a row takes 10 ms, an input token 0.4 ms, an output token 5 ms."""
    random, predictions = Random(1), Predictions()
    for _ in range(packs):
        rows = random.randint(64, 512)
        inputs, outputs = rows * random.randint(20, 400), rows * random.randint(4, 128)
        size = WorkSize(rows=rows, input_tokens=inputs, output_tokens=outputs)
        share = EndedShare(
            tenant_id=TenantId("tnt_a"), batch_id=BatchId("batch_a"), template=0, predicted_seconds=1.0,
            estimated=size, actual=size, lengths={},
        )  # fmt: skip
        predictions.learn(
            EndedPack(
                pack_id=PackId("pack_a"), pool="cpu", model="model-a", variant="model-a", tier=Tier.STANDARD,
                seconds=0.01 * rows + 0.0004 * inputs + 0.005 * outputs, is_clean=True, shares=(share,),
            )
        )  # fmt: skip
    return predictions


def test_before_anything_ran_tokens_cost_alike_and_rows_nothing() -> None:
    (pack, *_) = plan_of(snapshot([backlog("batch_a")])).packs

    # 100 tokens a second.
    assert pack.unit_costs == UnitCosts(
        row_picoseconds=0, input_token_picoseconds=10**10, output_token_picoseconds=10**10
    )


def test_a_pack_carries_the_costs_that_its_seconds_were_predicted_with() -> None:
    plan = decide(snapshot([backlog("batch_a")]), Policy(), pack_ids(), learned(packs=100))

    (pack, *_) = plan.packs
    assert pack.unit_costs.row_picoseconds == pytest.approx(0.01 * 1e12, rel=0.2)
    assert pack.unit_costs.input_token_picoseconds == pytest.approx(0.0004 * 1e12, rel=0.05)
    assert pack.unit_costs.output_token_picoseconds == pytest.approx(0.005 * 1e12, rel=0.05)
