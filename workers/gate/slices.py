"""Parts of the evaluation by name, so that a loss on one subject is not hidden by the average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.gate.evidence import Tally, difference_bounds
from workers.gate.outcomes import Outcome
from workers.gate.paired import worse_by_chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One part of the evaluation."""

    name: str
    tally: Tally
    #: The mean of x, as a share, and the interval that holds at every moment with probability 0.95.
    difference: float
    interval: tuple[float, float]
    #: Chance of so many flips for the worse where neither direction is likelier.
    p_value: float
    #: The same, corrected for having looked at every slice: it bounds the chance that any is named worse wrongly.
    p_holm: float


def slices_of(outcomes: Sequence[Outcome]) -> tuple[Slice, ...]:
    """Return the slices, the least likely to be chance first, then the largest loss; none where no item names one."""
    members: dict[str, list[Outcome]] = {}
    for each in outcomes:
        if each.slice is not None and each.x is not None:
            members.setdefault(each.slice, []).append(each)
    names = sorted(members)
    tallies = [tally_of(members[name]) for name in names]
    p_values = [worse_by_chance(tally) for tally in tallies]
    slices = [
        Slice(
            name=name,
            tally=tally,
            difference=tally.difference,
            interval=difference_bounds(tally),
            p_value=p_value,
            p_holm=corrected,
        )
        for name, tally, p_value, corrected in zip(names, tallies, p_values, holm(p_values), strict=True)
    ]
    return tuple(sorted(slices, key=lambda each: (each.p_value, each.difference, each.name)))


def tally_of(outcomes: Sequence[Outcome]) -> Tally:
    """Count the outcomes that were compared."""
    marks = [each.x for each in outcomes if each.x is not None]
    return Tally(worse=marks.count(-1), same=marks.count(0), better=marks.count(1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down correction (1979) of `p_values`, in their order.

    Refusing to believe in chance where the corrected value is at most a is wrong about any of them with
    probability a at most, however they depend on one another.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
