from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, REDUNDANT, Mutant, first_violation, kill, untested_layers

_SEEDS_OF_REDUNDANT = 40


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_mutant_is_caught(mutant: Mutant) -> None:
    assert kill(mutant) is not None, f"no seed shows {mutant.caught_as}"


@pytest.mark.parametrize("mutant", REDUNDANT, ids=lambda mutant: mutant.name)
def test_a_redundant_layer_alone_is_not_missed(mutant: Mutant) -> None:
    assert first_violation(mutant.layers, range(_SEEDS_OF_REDUNDANT)) is None


def test_every_layer_is_switched_off_by_some_mutant() -> None:
    assert untested_layers() == set()
