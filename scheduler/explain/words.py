"""Words that explanations share: approximate figures, instants, lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from pipeline.domain.figures import counted, duration, moment
from pipeline.domain.tiers import Tier

_MINUTE: Final = 60
_NAMED_MAX: Final = 3


def about(seconds: float) -> str:
    """Return an estimated duration, no more precise than it is."""
    if seconds < 1:
        return "less than a second"
    return f"{seconds:.0f} s" if seconds < _MINUTE else duration(seconds)


def when(at: datetime, now: datetime) -> str:
    """Return an instant and how far it is away."""
    seconds = (at - now).total_seconds()
    away = f"in {about(seconds)}" if seconds >= 0 else f"{about(-seconds)} ago"
    return f"{moment(at)}, {away}"


def clock(at: datetime, now: datetime) -> str:
    """Return an instant without its date where it is less than a day away."""
    near = abs((at - now).total_seconds()) < 86_400 // 2
    return at.astimezone().strftime("%H:%M:%S") if near else moment(at)


def instant(at: datetime) -> str:
    """Return an instant as commands take it, to the minute."""
    return at.astimezone().isoformat(timespec="minutes")


def named(names: Iterable[str]) -> str:
    """Return the first few names of a list, and how many more there are."""
    known = sorted(names)
    more = len(known) - _NAMED_MAX
    shown = ", ".join(known[:_NAMED_MAX])
    return f"{shown} and {more:,} more" if more > 0 else shown


def of_tiers(tiers: Sequence[tuple[Tier, int]]) -> str:
    """Return batches by tier: `3 batches of tier standard`, `4 batches (3 standard, 1 urgent)`."""
    batches = sum(number for _, number in tiers)
    noun = "batch" if batches == 1 else "batches"
    if len(tiers) == 1:
        return f"{batches:,} {noun} of tier {tiers[0][0]}"
    return f"{batches:,} {noun} ({', '.join(f'{number:,} {tier}' for tier, number in tiers)})"


def packs(number: int) -> str:
    """Return a number of packs."""
    return counted(number, "pack")


def verb(number: int, one: str, many: str) -> str:
    """Return the form of a verb that agrees with a number."""
    return one if number == 1 else many
