from __future__ import annotations

import pytest

from tests.bench import bench_encoder_packs as bench
from workers.engine.encoder import costs

QUESTIONS = bench.SETS[0]


def test_a_new_engine_of_which_nothing_is_known_keeps_near_the_best_partition() -> None:
    lengths = bench.lengths_of(QUESTIONS, None, 8000)

    assert bench.figures(QUESTIONS, lengths)["is_met"]


def test_batches_planned_by_a_bad_guess_are_planned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = bench.lengths_of(QUESTIONS, None, 8000)
    monkeypatch.setattr(costs, "_FIXED_SHARE", 1 / 512)

    assert bench.figures(QUESTIONS, lengths)["is_met"]
    monkeypatch.setattr(costs.CostModel, "is_learned", property(lambda _: False))
    assert not bench.figures(QUESTIONS, lengths)["is_met"]


def test_every_set_is_made_up_with_the_mean_and_the_longest_of_what_was_recorded() -> None:
    for source in bench.SETS:
        lengths = bench.lengths_of(source, None, 8000)

        assert sum(lengths) / len(lengths) == pytest.approx(source.mean, rel=0.05)
        assert max(lengths) <= source.longest


def test_batches_of_other_ways_hold_every_text_once() -> None:
    lengths = [7, 3, 9000, 12, 5, 16_000, 1]

    assert [each for batch in bench.by_tokens(lengths) for each in batch] == lengths
    assert all(len(batch) * max(batch) <= bench.TEI_TOKENS for batch in bench.by_tokens(lengths))
    assert [each for batch in bench.by_rows(lengths * 10) for each in batch] == lengths * 10
