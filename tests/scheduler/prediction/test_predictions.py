from __future__ import annotations

import pytest

from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.sketches import LengthSketch
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import EndedPack, EndedShare, LearnedKind, WorkSize
from scheduler.prediction.predictions import Predictions

ESTIMATED = WorkSize(rows=100, input_tokens=10_000, output_tokens=20_000)


def ended(
    *, template: int = 7, outputs: float = 5000, seconds: float = 10.0, is_clean: bool = True, model: str = "m"
) -> EndedPack:
    """Return a pack of a hundred rows, estimated at 200 output tokens each."""
    share = EndedShare(
        tenant_id=TenantId("tnt_a"),
        batch_id=BatchId("batch_a"),
        template=template,
        predicted_seconds=20.0,
        estimated=ESTIMATED,
        actual=WorkSize(rows=100, input_tokens=8000, output_tokens=outputs),
        lengths=LengthSketch.of([round(outputs / 100)] * 100).as_plain(),
    )
    return EndedPack(
        pack_id=PackId("pack_a"), pool="cpu", model=model, variant=f"{model}@int8", tier=Tier.BULK, seconds=seconds,
        is_clean=is_clean, shares=(share,),
    )  # fmt: skip


def test_a_template_that_answers_shorter_than_its_bound_is_learned() -> None:
    known = Predictions()
    for _ in range(20):
        known.learn(ended(template=7, outputs=5000))
        known.learn(ended(template=8, outputs=15_000))

    assert known.size(ESTIMATED, model="m", template=7).output_tokens == pytest.approx(5000, rel=0.05)
    assert known.size(ESTIMATED, model="m", template=8).output_tokens == pytest.approx(15_000, rel=0.05)
    assert known.size(ESTIMATED, model="m", template=7).input_tokens == pytest.approx(8000, rel=0.02)


def test_a_new_template_is_taken_for_the_model_s_average_and_a_new_model_for_its_estimate() -> None:
    known = Predictions()
    for _ in range(20):
        known.learn(ended(template=7, outputs=5000))
        known.learn(ended(template=8, outputs=15_000))

    assert known.size(ESTIMATED, model="m", template=9).output_tokens == pytest.approx(10_000, rel=0.1)
    assert known.size(ESTIMATED, model="other", template=7) == ESTIMATED


def test_lengths_are_the_template_s_and_else_the_model_s() -> None:
    known = Predictions()
    known.learn(ended(template=7, outputs=5000))
    known.learn(ended(template=8, outputs=15_000))

    assert known.lengths("m", 7).quantile(0.9) == pytest.approx(50, rel=0.06)
    assert known.lengths("m", 9).quantile(0.9) == pytest.approx(150, rel=0.06)
    assert not known.lengths("other", 7).counts


def test_only_packs_that_ran_through_at_once_tell_the_pace() -> None:
    known = Predictions()
    known.learn(ended(is_clean=False))
    assert not known.is_measured("m@int8", "cpu")

    known.learn(ended())

    assert known.is_measured("m@int8", "cpu")
    # The first had nothing to be predicted from; the second was as the first, for what it was expected to be.
    known.learn(ended(seconds=20.0))
    (ratio,) = known.ratios("m@int8", "cpu")
    assert ratio == pytest.approx(2.0, rel=0.25)


def test_what_changed_is_told_until_it_is_stored_and_recalled_as_it_was() -> None:
    known = Predictions()
    known.learn(ended())

    told = known.changed()
    assert {(entry.kind, entry.subject, entry.detail) for entry in told} == {
        (LearnedKind.PACE, "m@int8", "cpu"), (LearnedKind.TOKENS, "m", ""), (LearnedKind.TOKENS, "m", "7"),
    }  # fmt: skip
    assert known.changed() == told
    known.stored()
    assert known.changed() == ()

    again = Predictions.recalled(told)
    assert again.size(ESTIMATED, model="m", template=7) == known.size(ESTIMATED, model="m", template=7)
    assert again.ratios("m@int8", "cpu") == known.ratios("m@int8", "cpu")
