"""Wrong protocols, and what each must be caught at.

A guard behind another guard is tested with the other one off. Those that some seeds alone would
leave standing are listed in `REDUNDANT`, with what stands before them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final

from tests.simulation.harness import run
from tests.simulation.layers import REAL, Layers

SEEDS_MAX: Final = 6_000
_SEEDS_NEARBY: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """The real protocol less some layers."""

    name: str
    layers: Layers
    #: The violation that shows this very fault; others may come with it.
    caught_as: str
    #: Where to look first, to save time; anything may be written here.
    near_seed: int = 0


MUTANTS: Final = (
    Mutant(name="the token is not bumped at a lease", layers=Layers(bumps_token=False), caught_as="token_twice"),
    Mutant(name="a commit needs no token", layers=Layers(fences_commit=False), caught_as="stale_part"),
    Mutant(
        name="a commit needs no token, and rows are not unique",
        layers=Layers(fences_commit=False, rows_unique=False),
        caught_as="doubled_row",
    ),
    Mutant(name="a replayed commit is a new one", layers=Layers(dedups_part=False), caught_as="refused"),
    Mutant(
        name="a replayed commit is a new one, and rows are not unique",
        layers=Layers(dedups_part=False, rows_unique=False, guards_interval=False),
        caught_as="doubled_row",
    ),
    Mutant(name="a replayed commit charges again", layers=Layers(dedups_charge=False), caught_as="refused"),
    Mutant(
        name="a replayed commit charges again under an id of its own",
        layers=Layers(dedups_charge=False, guards_interval=False, keys_ledger=False),
        caught_as="ledger",
    ),
    Mutant(
        name="a retry makes a new commit",
        layers=Layers(retries_same_commit=False),
        caught_as="refused",
    ),
    Mutant(
        name="a retry makes a new commit, and rows are not unique",
        layers=Layers(retries_same_commit=False, rows_unique=False, guards_interval=False),
        caught_as="doubled_row",
    ),
    Mutant(name="a lease asks for committed rows again", layers=Layers(excludes_done=False), caught_as="refused"),
    Mutant(
        name="a lease asks for rows of withdrawn batches",
        layers=Layers(excludes_withdrawn=False),
        caught_as="lease_withdrawn",
    ),
    Mutant(name="a lease may ask for nothing", layers=Layers(discards_empty=False), caught_as="lease_withdrawn"),
    Mutant(
        name="a withdrawn batch is sealed under running rows", layers=Layers(seal_waits=False), caught_as="sealed_part"
    ),
    Mutant(name="idle time is not metered", layers=Layers(meters_idle=False), caught_as="refused"),
    Mutant(
        name="idle time is not metered, and gaps are allowed",
        layers=Layers(meters_idle=False, guards_interval=False),
        caught_as="span_gap",
    ),
    Mutant(name="the tail of a lost worker is forgotten", layers=Layers(closes_tail=False), caught_as="tail"),
    Mutant(
        name="a refused commit charges the tenant", layers=Layers(late_is_waste=False), caught_as="charged_for_nothing"
    ),
    Mutant(name="late work is not metered", layers=Layers(meters_late=False), caught_as="refused"),
    Mutant(name="a zombie's span overlaps its lost tail", layers=Layers(clips_late=False), caught_as="refused"),
    Mutant(
        name="a zombie's span overlaps its lost tail, and overlaps are allowed",
        layers=Layers(clips_late=False, guards_interval=False),
        caught_as="ledger",
    ),
    Mutant(name="a split truncates", layers=Layers(splits_exactly=False), caught_as="ledger"),
    Mutant(
        name="the object comes after the commit", layers=Layers(puts_before_commit=False), caught_as="object_missing"
    ),
    Mutant(
        name="the pack is finished before its last commit",
        layers=Layers(commits_before_finish=False),
        caught_as="unprovoked",
    ),
    Mutant(
        name="the pack is finished before its last commit, and the store believes it",
        layers=Layers(commits_before_finish=False, counts_rows_left=False),
        caught_as="lost_row",
    ),
    Mutant(
        name="a zombie's finish ends its successor's attempt",
        layers=Layers(fences_finish=False),
        caught_as="unprovoked",
        near_seed=905,
    ),
    Mutant(name="preemption counts as a failure", layers=Layers(preemption_is_free=False), caught_as="failure_count"),
    Mutant(name="a failing pack is convicted whole", layers=Layers(bisects=False), caught_as="innocent"),
    Mutant(
        name="failures in company convict a row",
        layers=Layers(convicts_alone=False),
        caught_as="innocent",
        near_seed=90,
    ),
    Mutant(
        name="halves of a failing pack start unsuspected",
        layers=Layers(children_are_suspect=False),
        caught_as="slow_conviction",
    ),
    Mutant(name="workers lease convicted packs", layers=Layers(holds_convicted=False), caught_as="stuck"),
    Mutant(name="a rescue does not finish the attempt", layers=Layers(rescue_finishes=False), caught_as="stuck"),
    Mutant(
        name="a rescue takes a lease that was renewed meanwhile",
        layers=Layers(rescue_rechecks_expiry=False),
        caught_as="live_lease",
        near_seed=1_200,
    ),
    Mutant(
        name="a rescue takes another attempt's lease",
        layers=Layers(rescue_rechecks_expiry=False, rescue_names_token=False),
        caught_as="wrong_lease",
    ),
    Mutant(
        name="a worker that came back is declared lost",
        layers=Layers(lost_rechecks_silence=False),
        caught_as="unprovoked",
    ),
    Mutant(
        name="a lost worker keeps its leases",
        layers=Layers(lost_ends_leases=False),
        caught_as="lost_works",
        near_seed=2_500,
    ),
    Mutant(name="a lost worker comes back to life", layers=Layers(lost_is_final=False), caught_as="resurrected"),
    Mutant(name="a lost worker gets a lease", layers=Layers(refuses_gone_workers=False), caught_as="lost_works"),
    Mutant(
        name="leasing is no sign of life",
        layers=Layers(lease_is_life=False),
        caught_as="unprovoked",
        near_seed=1_630,
    ),
    Mutant(name="a heartbeat extends a lost lease", layers=Layers(renews_by_token=False), caught_as="renewal_lied"),
)

#: Layers that alone may be missing without harm, because another catches the same fault first.
REDUNDANT: Final = (
    Mutant(name="the fence is before it", layers=Layers(rows_unique=False), caught_as=""),
    Mutant(name="the worker's own meter is before it", layers=Layers(guards_interval=False), caught_as=""),
    Mutant(name="the part's id is before it", layers=Layers(keys_ledger=False), caught_as=""),
    Mutant(name="the worker commits first", layers=Layers(counts_rows_left=False), caught_as=""),
    Mutant(name="the recheck of the expiry is before it", layers=Layers(rescue_names_token=False), caught_as=""),
    Mutant(name="the next lease discards what is empty", layers=Layers(sweeps_withdrawn=False), caught_as=""),
)


def kill(mutant: Mutant, seeds_max: int = SEEDS_MAX) -> int | None:
    """Return the first seed found that catches the mutant as it should be, or None."""
    nearby = range(mutant.near_seed, mutant.near_seed + _SEEDS_NEARBY)
    return first_violation(mutant.layers, chain(nearby, range(seeds_max)), mutant.caught_as)


def first_violation(layers: Layers, seeds: Iterable[int], kind: str = "") -> int | None:
    """Return the first of `seeds` that brings a violation (of this kind) about, or None."""
    for seed in seeds:
        if any(kind in {"", found} for found, _ in run(seed, layers).violations):
            return seed
    return None


def untested_layers() -> set[str]:
    """Return the names of layers that no mutant switches off."""
    tested = {name for mutant in MUTANTS for name in Layers.__slots__ if not getattr(mutant.layers, name)}
    tested |= {name for mutant in REDUNDANT for name in Layers.__slots__ if not getattr(mutant.layers, name)}
    return set(Layers.__slots__) - tested


assert REAL not in {mutant.layers for mutant in MUTANTS}
