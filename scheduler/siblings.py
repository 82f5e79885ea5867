"""Siblings: accounts that take turns, of which most are never looked at.

A heap by start tag, then rank. Who has not been looked at yet is known by rank alone and is assumed to stand at the
least tag that anyone may have; only when that makes it the next is it made an account, with the tag that it really
has. So a cycle that hands out ten turns among a million siblings looks at ten of them, or at those in debt besides.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from typing import Generic, TypeVar

Account = TypeVar("Account")


class Siblings(Generic[Account]):
    """Accounts by turn. Tags and ranks only grow worse, so an entry of the heap may be late: it is corrected on sight."""

    def __init__(
        self,
        unseen: Sequence[int],
        *,
        behind: Collection[int],
        least_tag: float,
        account_of: Callable[[int], Account],
        tag_of: Callable[[Account], float],
        is_spent: Callable[[Account], bool],
    ) -> None:
        """Know them by their ranks, the best first; no tag is below `least_tag` but of those `behind`."""
        self._unseen = [rank for rank in unseen if rank not in behind] if behind else unseen
        self._seen = 0
        self._least_tag = least_tag
        self._account_of = account_of
        self._tag_of = tag_of
        self._is_spent = is_spent
        self._heap = [
            (tag_of(account), rank, account) for rank, account in ((rank, account_of(rank)) for rank in behind)
        ]
        heapq.heapify(self._heap)

    def lowest(self) -> Account | None:
        """Return whose turn it is, or None when none has rows left."""
        heap = self._heap
        while True:
            if self._seen < len(self._unseen):
                rank = self._unseen[self._seen]
                if not heap or (self._least_tag, rank) < heap[0][:2]:
                    self._seen += 1
                    account = self._account_of(rank)
                    heapq.heappush(heap, (self._tag_of(account), rank, account))
                    continue
            elif not heap:
                return None
            tag, rank, account = heap[0]
            if self._is_spent(account):
                heapq.heappop(heap)
            elif (now := self._tag_of(account)) != tag:
                heapq.heapreplace(heap, (now, rank, account))
            else:
                return account

    def drop_lowest(self) -> None:
        """Leave out the one that `lowest` returned last."""
        heapq.heappop(self._heap)
