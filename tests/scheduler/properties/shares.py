"""What the accounts of a world's pools got, and how far apart siblings came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.domain.tiers import WEIGHTS, Tier
from scheduler.policy import Policy
from tests.scheduler.properties.cast import Path
from tests.scheduler.properties.world import World

#: Rounding, in seconds.
EPSILON = 1e-6


def weight(path: Path) -> float:
    """Return an account's weight among its siblings: only tiers differ."""
    return float(WEIGHTS[Tier(path[0])]) if len(path) == 1 else 1.0


def lead(path: Path, policy: Policy) -> float:
    """Return how far ahead of its turn the account may be served: a pack is filled up within one tier only."""
    return 0.0 if len(path) == 1 else policy.top_up_lead_seconds


def accounts(world: World) -> dict[Path, list[Path]]:
    """Return the children of every account."""
    found: dict[Path, set[Path]] = {}
    for batch in world.batches.values():
        for depth in range(3):
            found.setdefault(batch.path[:depth], set()).add(batch.path[: depth + 1])
    return {parent: sorted(children) for parent, children in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One pack of a pool, or what one cycle settled: who got what among siblings."""

    at: float
    got: dict[Path, float]
    is_pack: bool
    #: Children with rows that could be packed all through the cycle, and not ahead by a guard's doing.
    waiting: frozenset[Path]


def steps(world: World, pool: str, parent: Path) -> Iterator[Step]:
    """Yield what befell the children of an account in one pool.

    A child that pressed is not `waiting` from then on: it was served out of turn and pays that back first.
    """
    depth = len(parent) + 1
    ahead: set[Path] = set()
    for each in world.rounds:
        settled = _sums([(path, seconds) for name, path, seconds in each.corrections if name == pool], parent)
        mine = [dispatch for dispatch in each.dispatches if dispatch.pool == pool]
        ahead |= {path[:depth] for dispatch in mine if dispatch.is_pressing for path in dispatch.charges}
        waiting = _below(each.before[pool], parent) & _below(each.after[pool], parent) - ahead
        yield Step(at=each.at, got=settled, is_pack=False, waiting=waiting)
        for dispatch in mine:
            yield Step(at=each.at, got=_sums(dispatch.charges.items(), parent), is_pack=True, waiting=waiting)


def largest(packs: Iterable[Step], child: Path) -> float:
    """Return the most that the child was charged for one pack."""
    return max((step.got.get(child, 0.0) for step in packs if step.is_pack), default=0.0)


def gain(packs: Iterable[Step], ahead: Path, behind: Path, *, since: float = 0.0) -> float:
    """Return the most that one gained on the other, in weighted seconds, over any span in which both waited."""
    level = lowest = gained = 0.0
    for step in packs:
        if step.at < since or not {ahead, behind} <= step.waiting:
            level = lowest = 0.0
            continue
        level += step.got.get(ahead, 0.0) / weight(ahead) - step.got.get(behind, 0.0) / weight(behind)
        lowest = min(lowest, level)
        gained = max(gained, level - lowest)
    return gained


def bound(packs: list[Step], one: Path, other: Path, policy: Policy) -> float:
    """Return 2Q + U_f/w_f + U_g/w_g."""
    charges = largest(packs, one) / weight(one) + largest(packs, other) / weight(other)
    return 2 * lead(one, policy) + charges + EPSILON


def _sums(amounts: Iterable[tuple[Path, float]], parent: Path) -> dict[Path, float]:
    """Return the sums of what lies below each child of an account."""
    depth = len(parent)
    found: dict[Path, float] = {}
    for path, seconds in amounts:
        if path[:depth] == parent:
            found[path[: depth + 1]] = found.get(path[: depth + 1], 0.0) + seconds
    return found


def _below(paths: Iterable[Path], parent: Path) -> frozenset[Path]:
    depth = len(parent)
    return frozenset(path[: depth + 1] for path in paths if path[:depth] == parent)
