"""Accounts of a pool's fair queue, and claims to its packs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scheduler.cursor import Cursor
from scheduler.paths import Path

#: Far below any virtual time; the seconds of a deadline since the Unix epoch are added.
_PRESSING_ORDINAL: Final = -1e10


@dataclass(slots=True, kw_only=True, eq=False)
class Account:
    """One node of a pool's tree. Mutable, and lives for one cycle."""

    path: Path
    weight: float
    start_seconds: float
    virtual_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A batch's claim to a pack: its rows, and the accounts from the pool down that pay for them."""

    accounts: tuple[Account, Account, Account, Account]
    #: The account among whose children the batch takes turns: its tenant's, or that of a priority there.
    above: Account
    cursor: Cursor
    #: Out of turn, because the batch's deadline was promised and time is short.
    is_pressing: bool = False


def pressing_ordinal(deadline_at_us: int) -> float:
    """Return the ordinal of packs that must go first: below all others, the first due lowest."""
    return _PRESSING_ORDINAL + deadline_at_us / 1_000_000
