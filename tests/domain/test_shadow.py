from __future__ import annotations

import json

import pytest

from pipeline.domain.ids import BatchId
from pipeline.domain.shadow import Watch, is_chosen
from pipeline.domain.wealth import Bounds

LOSS: Bounds = (-1.0, 0.0)
ROWS = [
    (BatchId(f"batch_{batch}"), shard, position) for batch in "abcd" for shard in (0, 1) for position in range(2500)
]


def watched(*xs: float, margin: float = 1.0) -> Watch:
    watch = Watch(margin_points=margin)
    for x in xs:
        watch = watch.plus(x, LOSS, tokens=7)
    return watch


def test_about_the_share_asked_for_is_chosen_and_for_a_row_always_the_same() -> None:
    chosen = [row for row in ROWS if is_chosen(*row, 0.01)]

    assert 140 < len(chosen) < 260
    assert [row for row in ROWS if is_chosen(*row, 0.01)] == chosen
    assert {batch for batch, _, _ in chosen} == {batch for batch, _, _ in ROWS}


def test_a_larger_share_chooses_the_same_rows_and_more() -> None:
    assert {row for row in ROWS if is_chosen(*row, 0.01)} < {row for row in ROWS if is_chosen(*row, 0.02)}


def test_no_row_is_chosen_for_nothing_and_every_row_for_all() -> None:
    assert not any(is_chosen(*row, 0.0) for row in ROWS)
    assert all(is_chosen(*row, 1.0) for row in ROWS)


def test_a_watch_of_a_healthy_variant_is_never_beyond_however_long_it_goes_on() -> None:
    watch = Watch(margin_points=1.0)
    for n in range(3000):
        watch = watch.plus(-0.03 if n % 5 == 0 else 0.0, LOSS, tokens=7)
        assert not watch.is_beyond
    assert watch.mean_points == pytest.approx(-0.6)


def test_a_watch_of_a_broken_variant_is_beyond_after_few_answers_and_says_why() -> None:
    watch = watched(*[-0.2] * 6)

    assert watch.is_beyond
    assert watch.sentence == (
        "In production: 6 answers that its reference judged lose 20.00 points on average, which is shown to be more than 1."
    )


def test_one_terrible_answer_is_not_yet_a_broken_variant() -> None:
    assert not watched(-1.0, margin=3.0).is_beyond


def test_a_watch_survives_being_stored() -> None:
    watch = watched(-0.25, -0.5)

    assert Watch.from_plain(json.loads(json.dumps(watch.as_plain()))) == watch
