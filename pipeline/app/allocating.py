"""Allocating: shares the overhead of hours that have ended, where the settings say how."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

from pipeline.domain.costs.transactions import Overhead, SharingRule
from storage.allocations import AllocationRepository

EVERY_SECONDS: Final = 60.0
_HOURS_AT_ONCE: Final = 50


class Allocator:
    """Shares by a rule of the settings; what was shared by another one before stays, unless it is settled again."""

    def __init__(
        self,
        repository: AllocationRepository,
        rule: SharingRule,
        kinds: Collection[Overhead],
        *,
        every_seconds: float = 0.0,
    ) -> None:
        """Share not sooner than `every_seconds` after the last time that there was nothing to do."""
        self._repository = repository
        self._rule = rule
        self._kinds = kinds
        self._every_seconds = every_seconds
        self._share_at = time.monotonic()

    def run_once(self) -> bool:
        """Share some of what is due; True when there may be more."""
        if self._rule is SharingRule.NONE or time.monotonic() < self._share_at:
            return False
        self._repository.open()
        due = self._repository.due(limit=_HOURS_AT_ONCE)
        for pool, hour in due:
            self._repository.share(pool, hour, self._rule, self._kinds)
        has_more = len(due) == _HOURS_AT_ONCE
        if not has_more:
            self._share_at = time.monotonic() + self._every_seconds
        return has_more
