from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from workers.gate.evidence import above
from workers.gate.trial import Comparison, Reason, SequentialTest, Verdict


def stream(count: int, *, worse: float, better: float, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return [-1 if (u := rng.random()) < worse else 1 if u > 1 - better else 0 for _ in range(count)]


def after(marks: Sequence[float], margins: tuple[float, ...] = (3.0,), **more: Comparison) -> SequentialTest:
    test = SequentialTest(margins, **more)
    for x in marks:
        test.push(x)
    return test


def test_a_variant_that_changes_nothing_is_accepted() -> None:
    (decision,) = after([0] * 500).decisions()

    assert decision.verdict is Verdict.ACCEPTED
    assert decision.reason is Reason.WITHIN_MARGIN
    assert 90 < decision.items < 250


def test_a_variant_that_loses_much_is_rejected_early_at_every_margin() -> None:
    decisions = after(stream(2000, worse=0.12, better=0.02), (1.0, 2.0, 3.0)).decisions()

    assert {(each.verdict, each.reason) for each in decisions} == {(Verdict.REJECTED, Reason.WORSE)}
    assert max(each.items for each in decisions) < 500


def test_too_few_items_are_said_to_be_too_few() -> None:
    (decision,) = after([0] * 50).decisions()

    assert decision.verdict is Verdict.UNDECIDED
    assert decision.reason is Reason.TOO_FEW_ITEMS
    assert decision.items == 50


def test_no_item_leaves_everything_undecided() -> None:
    assert after([]).decisions()[0].verdict is Verdict.UNDECIDED


def test_a_verdict_stays_when_later_items_say_otherwise() -> None:
    test = after([0] * 300)
    for _ in range(300):
        test.push(-1)

    assert test.decisions()[0].verdict is Verdict.ACCEPTED
    assert test.log_beyond(3.0) > test.threshold


def test_what_is_shown_within_a_narrow_margin_is_shown_within_a_wide_one() -> None:
    narrow, wide = after(stream(9000, worse=0.02, better=0.02), (1.0, 3.0)).decisions()

    assert narrow.verdict is wide.verdict is Verdict.ACCEPTED
    assert wide.items <= narrow.items


@pytest.mark.parametrize("cut", [0, 1, 137, 399])
def test_a_stored_test_goes_on_as_if_it_had_never_stopped(cut: int) -> None:
    marks = stream(400, worse=0.03, better=0.02)
    whole = after(marks, (1.0, 3.0))

    stored = json.loads(json.dumps(after(marks[:cut], (1.0, 3.0)).as_plain()))
    continued = SequentialTest.from_plain(stored)
    for x in marks[cut:]:
        continued.push(x)

    assert continued.as_plain() == whole.as_plain()
    assert continued.decisions() == whole.decisions()


def test_a_different_answer_is_not_taken_for_a_worse_one() -> None:
    marks = [-1 if index % 50 == 0 else 0 for index in range(1, 3001)]

    by_agreement = after(marks, comparison=Comparison.AGREEMENT).decisions()[0]
    by_correctness = after(marks, comparison=Comparison.CORRECTNESS).decisions()[0]

    assert by_agreement.verdict is Verdict.ACCEPTED
    assert by_correctness.items < by_agreement.items


def test_answers_that_differ_beyond_the_margin_say_that_expected_ones_are_wanted() -> None:
    (decision,) = after(stream(800, worse=0.3, better=0.0), comparison=Comparison.AGREEMENT).decisions()

    assert decision.verdict is Verdict.REJECTED
    assert decision.reason is Reason.DIFFERS


def test_agreement_cannot_be_better_than_the_reference() -> None:
    with pytest.raises(ValueError, match="more than its own"):
        SequentialTest((1.0,), comparison=Comparison.AGREEMENT).push(1)


@pytest.mark.parametrize("margins", [(), (0.0,), (100.0,), (-1.0, 2.0)])
def test_margins_outside_the_scale_are_refused(margins: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="margins"):
        SequentialTest(margins)


def test_an_alpha_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        SequentialTest((1.0,), alpha=1.0)


def test_every_reason_has_its_sentence() -> None:
    assert all(reason.sentence.endswith(".") for reason in Reason)


def test_a_small_graded_loss_is_accepted_and_a_large_one_rejected_in_few_items() -> None:
    by_likelihood = {"comparison": Comparison.LIKELIHOOD}
    (healthy,) = after([-0.002] * 1000, (1.0,), **by_likelihood).decisions()
    (broken,) = after([-0.08] * 400, (1.0,), **by_likelihood).decisions()

    assert (healthy.verdict, healthy.reason) == (Verdict.ACCEPTED, Reason.WITHIN_MARGIN)
    assert (broken.verdict, broken.reason) == (Verdict.REJECTED, Reason.BEYOND)
    assert broken.items < 10
    assert healthy.items > 300


def test_no_answer_is_likelier_to_the_reference_than_its_own_choice() -> None:
    with pytest.raises(ValueError, match="more than its own"):
        SequentialTest((1.0,), comparison=Comparison.LIKELIHOOD).push(0.1)


def test_a_stored_test_of_graded_losses_goes_on_as_if_it_had_never_stopped() -> None:
    rng = random.Random(4)
    losses = [-(rng.random() ** 6) for _ in range(300)]
    whole = after(losses, (1.0, 3.0), comparison=Comparison.LIKELIHOOD)

    stored = json.loads(json.dumps(after(losses[:100], (1.0, 3.0), comparison=Comparison.LIKELIHOOD).as_plain()))
    continued = SequentialTest.from_plain(stored)
    for x in losses[100:]:
        continued.push(x)

    assert continued.as_plain() == whole.as_plain()


def test_a_graded_x_counted_in_part_claims_no_more_than_there_is() -> None:
    test = after([-0.05, -0.3, 0.0, -0.01] * 20, comparison=Comparison.LIKELIHOOD)

    assert above(test.tally, -0.03) <= test.log_within(3.0) + 1e-9
