from __future__ import annotations

from random import Random

import pytest

from pipeline.domain.sketches import ACCURACY, LengthSketch


def lengths_of(seed: int, count: int) -> list[int]:
    random = Random(seed)
    return [max(1, round(random.lognormvariate(4.5, 1.2))) for _ in range(count)]


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9, 0.99, 1.0])
def test_every_quantile_is_right_to_five_percent(share: float) -> None:
    lengths = sorted(lengths_of(1, 5000))
    exact = lengths[max(0, round(share * len(lengths)) - 1)]

    assert LengthSketch.of(lengths).quantile(share) == pytest.approx(exact, rel=ACCURACY * 1.05)


def test_parts_add_up_to_the_whole() -> None:
    parts = [lengths_of(seed, 300) for seed in range(4)]
    whole = LengthSketch.of([length for part in parts for length in part])

    merged = LengthSketch.merged(LengthSketch.of(part).as_plain() for part in parts)

    assert merged.as_plain() == whole.as_plain()
    assert merged.total == 1200


def test_empty_answers_count_as_one_token() -> None:
    sketch = LengthSketch.of([0, 1])

    assert (sketch.quantile(1.0), sketch.mean(), sketch.total) == (1.0, 1.0, 2)


def test_the_mean_is_right_and_cut_where_answers_are() -> None:
    lengths = lengths_of(2, 4000)
    sketch = LengthSketch.of(lengths)

    assert sketch.mean() == pytest.approx(sum(lengths) / 4000, rel=ACCURACY)
    assert sketch.mean(longest=100) == pytest.approx(sum(min(100, each) for each in lengths) / 4000, rel=ACCURACY)


def test_old_answers_count_less() -> None:
    sketch = LengthSketch.of([10] * 100)

    sketch.add(LengthSketch.of([1000] * 100), kept=0.1)

    assert sketch.quantile(0.5) == pytest.approx(1000, rel=ACCURACY)
    assert sketch.total == pytest.approx(110)
