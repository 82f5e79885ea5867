"""Mixes of machines against trying everything, and which machine a model goes to."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.costs.catalogue import load
from pipeline.domain.costs.prices import Market
from pipeline.domain.tiers import Tier
from pipeline.ports.fleet import PaceSource, UnitPace
from scheduler.fleet.machines import MachineKind, Machines, ModelNeed, PlacePrice, fits, tabled_pace
from scheduler.fleet.mixing import Mix, mix


def brute_force(loads: np.ndarray, prices: np.ndarray, quotas: np.ndarray) -> float | None:
    best: float | None = None
    slices, kinds = loads.shape
    for chosen in itertools.product(range(kinds), repeat=slices):
        used = [sum(loads[each, kind] for each in range(slices) if chosen[each] == kind) for kind in range(kinds)]
        if any(math.isinf(each) for each in used):
            continue
        counts = [math.ceil(each - 1e-6) for each in used]
        if all(count <= quota for count, quota in zip(counts, quotas, strict=True)):
            cost = float(np.dot(counts, prices))
            best = cost if best is None else min(best, cost)
    return best


def instance(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    slices, kinds = int(drawn.integers(1, 6)), int(drawn.integers(1, 4))
    loads = np.where(drawn.random((slices, kinds)) < 0.15, np.inf, drawn.uniform(0.05, 2, (slices, kinds)))
    quotas = np.where(drawn.random(kinds) < 0.3, np.inf, drawn.integers(0, 5, kinds).astype(float))
    return loads, drawn.uniform(0.5, 5, kinds), quotas


def check(found: Mix | None, loads: np.ndarray, prices: np.ndarray, quotas: np.ndarray) -> None:
    if found is None:
        return
    for kind in range(len(prices)):
        used = sum(loads[each, kind] for each in range(len(loads)) if found.kinds[each] == kind)
        assert used <= found.counts[kind] + 1e-6
        assert found.counts[kind] <= quotas[kind]
    assert found.cost == pytest.approx(float(np.dot(found.counts, prices)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_programme_finds_what_trying_everything_finds(seed: int) -> None:
    pytest.importorskip("scipy")
    loads, prices, quotas = instance(seed)

    found = mix(loads, prices, quotas)

    check(found, loads, prices, quotas)
    assert (None if found is None else found.cost) == pytest.approx(brute_force(loads, prices, quotas))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_without_a_solver_what_is_found_fits_and_is_never_cheaper_than_the_best(seed: int) -> None:
    loads, prices, quotas = instance(seed)

    found = mix(loads, prices, quotas, use_solver=False)

    check(found, loads, prices, quotas)
    best = brute_force(loads, prices, quotas)
    assert found is None or (best is not None and found.cost >= best - 1e-6)


def test_where_scipy_is_missing_trial_finds_a_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)

    found = mix(np.array([[0.5, 0.2], [0.5, 0.2]]), np.array([1.0, 3.0]), np.array([np.inf, np.inf]))

    assert found == Mix(counts=(1, 0), kinds=(0, 0), cost=1.0)


def test_two_kinds_win_where_each_is_good_at_its_slices() -> None:
    loads = np.array([[0.9, 6.0], [0.9, 6.0], [4.0, 0.9]])

    found = mix(loads, np.array([1.0, 2.0]), np.array([np.inf, np.inf]))

    assert found == Mix(counts=(2, 1), kinds=(0, 0, 1), cost=4.0)


def test_a_slice_that_nothing_runs_has_no_mix() -> None:
    assert mix(np.array([[np.inf]]), np.array([1.0]), np.array([9.0])) is None
    assert mix(np.array([[3.0]]), np.array([1.0]), np.array([2.0])) is None
    assert mix(np.zeros((0, 1)), np.array([1.0]), np.array([2.0])) == Mix(counts=(0,), kinds=(), cost=0.0)


def test_loads_that_do_not_fit_the_prices_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit 1 prices"):
        mix(np.zeros((2, 2)), np.array([1.0]), np.array([1.0]))


CPU = MachineKind(name="c7i", provider="aws", memory_gib=64.0)
SMALL = MachineKind(name="g4dn", provider="aws", gpu="T4", gpu_memory_gib=16.0, memory_gib=64.0)
LARGE = MachineKind(name="p5", provider="aws", gpu="H100", gpu_memory_gib=640.0, memory_gib=2048.0)


def machines(**paces: float) -> Machines:
    prices = [("c7i", 1.0, "eu"), ("g4dn", 0.5, "eu"), ("g4dn", 0.4, "us"), ("p5", 50.0, "eu")]
    return Machines(
        kinds={each.name: each for each in (CPU, SMALL, LARGE)},
        prices=tuple(
            PlacePrice(kind=kind, market=Market.ON_DEMAND, region=region, micros_per_hour=price * 1e6)
            for kind, price, region in prices
        ),
        tabled={(kind, "model"): tabled_pace(speed) for kind, speed in paces.items()},
    )


def kinds_of(known: Machines, need: ModelNeed, tier: Tier = Tier.BULK) -> list[tuple[str, str]]:
    return [(each.price.kind, each.price.region) for each in known.choices(need, tier)]


def test_a_model_goes_to_the_machine_that_holds_it_at_least_per_token() -> None:
    known = machines(c7i=100.0, g4dn=1000.0, p5=20_000.0)

    assert kinds_of(known, ModelNeed(variant="model", memory_gib=10.0)) == [
        ("g4dn", "us"), ("g4dn", "eu"), ("p5", "eu"), ("c7i", "eu"),
    ]  # fmt: skip
    assert kinds_of(known, ModelNeed(variant="model", memory_gib=100.0)) == [("p5", "eu")]
    assert kinds_of(known, ModelNeed(variant="other", memory_gib=1.0)) == []


def test_rows_that_must_stay_somewhere_go_nowhere_else() -> None:
    known = machines(g4dn=1000.0)

    assert kinds_of(known, ModelNeed(variant="model", memory_gib=1.0, regions=frozenset({"eu"}))) == [("g4dn", "eu")]


def test_a_small_model_may_run_on_cpus_but_for_tiers_that_ask_for_a_gpu() -> None:
    known = machines(c7i=9000.0, g4dn=1000.0)
    need = ModelNeed(variant="model", memory_gib=2.0, gpu_tiers=frozenset({Tier.URGENT}))

    assert kinds_of(known, need)[0] == ("c7i", "eu")
    assert ("c7i", "eu") not in kinds_of(known, need, Tier.URGENT)


def test_what_was_measured_counts_before_what_a_table_says() -> None:
    known = machines(g4dn=1000.0)
    measured = UnitPace(input_token_seconds=0.5, output_token_seconds=0.5)
    both = Machines(kinds=known.kinds, prices=known.prices, measured={("g4dn", "model"): measured}, tabled=known.tabled)

    assert both.pace("g4dn", "model") == measured
    assert known.choices(ModelNeed(variant="model", memory_gib=1.0), Tier.BULK)[0].pace.source is PaceSource.TABLED
    # 1,000 tokens a second at $0.40 an hour.
    assert known.choices(ModelNeed(variant="model", memory_gib=1.0), Tier.BULK)[
        0
    ].million_tokens_micros == pytest.approx(0.4e6 / 3.6)


def test_a_table_without_speed_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens_per_second"):
        tabled_pace(0.0)


def test_the_catalogues_machines_hold_what_their_gpus_have_together() -> None:
    kinds = [MachineKind.of(each) for each in load().hardware.values()]
    need = ModelNeed(variant="model", memory_gib=200.0)

    assert any(each.gpu is None for each in kinds)
    assert any(fits(each, need, Tier.URGENT) and each.gpu is not None for each in kinds)
