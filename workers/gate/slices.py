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
    #: Chance of so many flips for the worse where neither direction is likelier; None where x is graded, for then every
    #: loss is one.
    p_value: float | None
    #: The same, corrected for having looked at every slice: it bounds the chance that any is named worse wrongly.
    p_holm: float | None


def slices_of(outcomes: Sequence[Outcome], *, is_graded: bool = False) -> tuple[Slice, ...]:
    """Return the slices, the least likely to be chance first, then the largest loss; none where no item names one."""
    members: dict[str, list[Outcome]] = {}
    for each in outcomes:
        if each.slice is not None and each.x is not None:
            members.setdefault(each.slice, []).append(each)
    names = sorted(members)
    tallies = [tally_of(members[name]) for name in names]
    p_values = [] if is_graded else [worse_by_chance(tally) for tally in tallies]
    chances = [None] * len(names) if is_graded else list(zip(p_values, holm(p_values), strict=True))
    slices = [
        Slice(
            name=name,
            tally=tally,
            difference=tally.difference,
            interval=difference_bounds(tally),
            p_value=chance[0] if chance else None,
            p_holm=chance[1] if chance else None,
        )
        for name, tally, chance in zip(names, tallies, chances, strict=True)
    ]
    return tuple(sorted(slices, key=lambda each: (each.p_value or 0.0, each.difference, each.name)))


def tally_of(outcomes: Sequence[Outcome]) -> Tally:
    """Count the outcomes that were compared; a graded x in part as the outcomes beside it."""
    marks = [each.x for each in outcomes if each.x is not None]
    worse, better = sum(-x for x in marks if x < 0), sum(x for x in marks if x > 0)
    return Tally(worse=worse, same=max(0, len(marks) - worse - better), better=better)


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
