from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.conformance import DisagreementError, Setup, World, check_pack_store
from tests.simulation.layers import Layers
from tests.simulation.model_world import ModelWorld

#: Mutants of the store that any sequence of calls can tell apart, within this many seeds.
_SEEDS_MAX = 120
_VISIBLE = (
    "bumps_token",
    "excludes_done",
    "excludes_withdrawn",
    "refuses_gone_workers",
    "renews_by_token",
    "fences_commit",
    "dedups_part",
    "rows_unique",
    "guards_interval",
    "late_is_waste",
    "splits_exactly",
    "fences_finish",
    "counts_rows_left",
    "preemption_is_free",
    "bisects",
    "children_are_suspect",
    "convicts_alone",
    "holds_convicted",
    "rescue_finishes",
    "lost_ends_leases",
    "closes_tail",
    "lost_is_final",
    "clips_late",
)


def _model(setup: Setup) -> World:
    return ModelWorld(setup.batches)


def _check_many(make_world: Callable[[Setup], World]) -> None:
    for seed in range(_SEEDS_MAX):
        check_pack_store(make_world, seed)


@pytest.mark.parametrize("seed", range(60))
def test_the_model_agrees_with_itself(seed: int) -> None:
    check_pack_store(_model, seed)


@pytest.mark.parametrize("layer", _VISIBLE)
def test_a_store_that_lacks_a_guard_disagrees(layer: str) -> None:
    lacking = Layers(**{layer: False})

    def mutant(setup: Setup) -> World:
        return ModelWorld(setup.batches, lacking)

    with pytest.raises(DisagreementError, match="seed"):
        _check_many(mutant)


def test_an_older_protocol_is_held_to_its_own_rules() -> None:
    older = Layers(convicts_alone=False)

    for seed in range(20):
        check_pack_store(lambda setup: ModelWorld(setup.batches, older), seed, layers=older)
