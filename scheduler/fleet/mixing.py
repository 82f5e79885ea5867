"""Which mix of machines does all the work for least: an integer programme, and a greedy answer where there is no solver.

As Melange has it (Griggs et al., 2024): every slice of the work goes to one kind; a kind's loads, in workers, are no more than
its machines; the machines' prices are what is least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scheduler.columns import Floats, Integers

_SLOP: Final = 1e-6
#: The solver stops here with the best it has.
_SECONDS_MAX: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Machines by kind, and the kind that each slice goes to."""

    counts: tuple[int, ...]
    kinds: tuple[int, ...]
    cost: float


def mix(loads: Floats, prices: Floats, quotas: Floats, *, use_solver: bool = True) -> Mix | None:
    """Return the cheapest mix, or None where no mix does all of the work within the quotas.

    `loads[slice, kind]` are workers of a kind that a slice keeps busy, infinite where the kind cannot or may not run it;
    `quotas` how many of each kind there may be. Without a solver, what is found may be dearer, or not be found.
    """
    if loads.ndim != 2 or loads.shape[1] != len(prices) or len(prices) != len(quotas):  # noqa: PLR2004 - a table
        raise ValueError(f"loads of shape {loads.shape} do not fit {len(prices)} prices and {len(quotas)} quotas")
    if not len(loads):
        return Mix(counts=(0,) * len(prices), kinds=(), cost=0.0)
    if np.isinf(loads).all(axis=1).any():
        return None
    greedy = _greedy(loads, prices, quotas)
    if not use_solver:
        return greedy
    try:
        from scipy.optimize import milp  # noqa: F401 - whether it is there
    except ImportError:
        return greedy
    solved = _solved(loads, prices, quotas)
    found = [each for each in (solved, greedy) if each is not None]
    return min(found, key=lambda each: each.cost) if found else None


def _mix(kinds: Sequence[int] | Integers, loads: Floats, prices: Floats) -> Mix:
    used = np.zeros(len(prices))
    np.add.at(used, np.asarray(kinds), loads[np.arange(len(loads)), kinds])
    counts = np.ceil(used - _SLOP)
    return Mix(
        counts=tuple(int(each) for each in counts),
        kinds=tuple(int(each) for each in kinds),
        cost=float(counts @ prices),
    )


def _solved(loads: Floats, prices: Floats, quotas: Floats) -> Mix | None:
    from scipy.optimize import Bounds, LinearConstraint, milp

    slices, kinds = loads.shape
    can = np.isfinite(loads)
    finite = np.where(can, loads, 0.0)
    # Slice by kind, row after row, and then the machines of each kind.
    size = slices * kinds + kinds
    once = np.zeros((slices, size))
    fits = np.zeros((kinds, size))
    for each in range(slices):
        once[each, each * kinds : (each + 1) * kinds] = 1
        for kind in range(kinds):
            fits[kind, each * kinds + kind] = finite[each, kind]
    fits[:, slices * kinds :] = -np.eye(kinds)
    # Whoever has the same price as another: fewer loads are better, by too little to change a count.
    cost = np.concatenate([1e-9 * finite.ravel(), prices])
    most = np.where(np.isfinite(quotas), quotas, np.ceil(finite.sum(axis=0)) + 1)
    found = milp(
        cost,
        constraints=[LinearConstraint(once, 1, 1), LinearConstraint(fits, -np.inf, 0)],
        integrality=np.ones(size),
        bounds=Bounds(np.zeros(size), np.concatenate([can.ravel().astype(float), most])),
        options={"time_limit": _SECONDS_MAX, "mip_rel_gap": 1e-6},
    )
    if found.x is None:
        return None
    chosen = np.argmax(found.x[: slices * kinds].reshape(slices, kinds), axis=1)
    made = _mix(chosen, loads, prices)
    return made if all(count <= quota for count, quota in zip(made.counts, quotas, strict=True)) else None


def _greedy(loads: Floats, prices: Floats, quotas: Floats) -> Mix | None:
    """Return slices placed one by one, the heaviest first, where they add least, and then moved while that saves."""
    slices = len(loads)
    chosen = np.full(slices, -1)
    used = np.zeros(len(prices))
    with np.errstate(invalid="ignore"):
        weight = np.min(np.where(np.isfinite(loads), loads * prices, np.inf), axis=1)
    for each in np.argsort(-weight, kind="stable"):
        kind = _best(loads[each], prices, quotas, used)
        if kind is None:
            return None
        chosen[each] = kind
        used[kind] += loads[each, kind]
    cost = _mix(chosen, loads, prices).cost
    for _ in range(slices * len(prices)):
        moves = [
            (_mix(moved, loads, prices), moved)
            for each in range(slices)
            for kind in range(len(prices))
            if kind != chosen[each] and math.isfinite(loads[each, kind])
            for moved in [np.where(np.arange(slices) == each, kind, chosen)]
        ]
        fitting = [
            (made, moved)
            for made, moved in moves
            if made.cost < cost - _SLOP and all(n <= most for n, most in zip(made.counts, quotas, strict=True))
        ]
        if not fitting:
            break
        made, chosen = min(fitting, key=lambda each: each[0].cost)
        cost = made.cost
    return _mix(chosen, loads, prices)


def _best(row: Floats, prices: Floats, quotas: Floats, used: Floats) -> int | None:
    best: tuple[float, float, int] | None = None
    for kind, load in enumerate(row):
        if math.isinf(load) or math.ceil(used[kind] + load - _SLOP) > quotas[kind]:
            continue
        added = (math.ceil(used[kind] + load - _SLOP) - math.ceil(used[kind] - _SLOP)) * prices[kind]
        # What is paid for by others already still takes its part of it.
        option = (added, load * prices[kind], kind)
        best = option if best is None or option < best else best
    return None if best is None else best[2]
