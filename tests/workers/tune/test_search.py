from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.tune.search import PROBES_MAX, Probe, Search

Speed = Callable[[int], float | None]


def searched(speed: Speed, *, ceiling: int = 4096, noise: float = 0.0, seed: int = 0) -> Search:
    rng = random.Random(seed)
    search = Search(ceiling=ceiling)
    while (size := search.next_size()) is not None:
        assert 1 <= size <= ceiling
        assert size not in {probe.size for probe in search.probes}
        found = speed(size)
        if found is not None:
            found *= 1 + noise * rng.uniform(-1, 1)
        search.note(Probe(size=size, tokens_per_second=found, noise_share=noise / 2))
    assert len(search.probes) <= PROBES_MAX
    return search


def steps_of(alpha: float, beta: float, *, knee: float = float("inf")) -> Speed:
    """Return the throughput of steps that take alpha + beta·size, and more past the knee, where a cache spills."""
    return lambda size: size / (alpha + beta * (size + 1e-5 * max(0.0, size - knee) ** 2))


def share_of_grid(speed: Speed, ceiling: int) -> float:
    """Return what the search finds as a share of what trying every size from 16 up finds."""
    grid = max(speed(size) or 0.0 for size in range(min(16, ceiling), ceiling + 1))
    return searched(speed, ceiling=ceiling).best().speed / grid


@given(alpha=st.floats(0.1, 100), beta=st.floats(0.01, 1), knee=st.floats(20, 2048), ceiling=st.integers(16, 4096))
@settings(max_examples=300, deadline=None)
def test_it_comes_within_3_percent_of_trying_every_size(alpha: float, beta: float, knee: float, ceiling: int) -> None:
    assert share_of_grid(steps_of(alpha, beta), ceiling) >= 0.97
    assert share_of_grid(steps_of(alpha, beta, knee=knee), ceiling) >= 0.97


@given(alpha=st.floats(0.1, 100), beta=st.floats(0.01, 1), fits=st.integers(20, 2048), ceiling=st.integers(16, 4096))
@settings(max_examples=300, deadline=None)
def test_where_memory_ends_before_the_ceiling_it_comes_within_5_percent(
    alpha: float, beta: float, fits: int, ceiling: int
) -> None:
    plain = steps_of(alpha, beta)

    assert share_of_grid(lambda size: plain(size) if size <= fits else None, ceiling) >= 0.95


@pytest.mark.parametrize("seed", range(20))
def test_noise_below_what_it_says_moves_the_choice_little(seed: int) -> None:
    speed = steps_of(8.0, 0.05, knee=300)
    grid = max(speed(size) or 0.0 for size in range(16, 1025))

    best = searched(speed, ceiling=1024, noise=0.01, seed=seed).best()

    assert (speed(best.size) or 0.0) >= 0.95 * grid


def test_of_equal_ones_the_smallest_is_taken() -> None:
    assert searched(lambda _size: 100.0).best().size == 16


def test_what_does_not_fit_ends_the_doubling_and_is_never_the_answer() -> None:
    search = searched(lambda size: None if size > 100 else float(size))

    assert search.best().size <= 100
    assert search.best().size >= 80
    assert sum(probe.tokens_per_second is None for probe in search.probes) >= 1


def test_where_not_even_the_first_size_fits_smaller_ones_are_tried() -> None:
    assert searched(lambda size: None if size > 4 else float(size)).best().size in {2, 3, 4}


def test_where_nothing_fits_it_says_so() -> None:
    search = searched(lambda _size: None)

    with pytest.raises(ValueError, match="no size ran"):
        search.best()


def test_the_ceiling_is_tried_and_never_passed() -> None:
    sizes = [probe.size for probe in searched(float, ceiling=100).probes]

    assert max(sizes) == 100
