"""Settling: brings the journal to what providers will bill, worker by worker."""

from __future__ import annotations

import logging
import time
from typing import Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.bills import BillSource, WorkerLife, total_of
from pipeline.domain.costs.settling import billed_by_account, settlements
from storage.settlements import SettlementRepository

_LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 60.0
_WORKERS_AT_ONCE: Final = 50
_PASSED_OVER_AT_ONCE: Final = 1000


class Settler:
    """Settles workers that ended, that live for another hour, or whose prices changed. Each settlement can be repeated."""

    def __init__(self, repository: SettlementRepository, bills: BillSource, *, every_seconds: float = 0.0) -> None:
        """Settle by `bills`, not sooner than `every_seconds` after the last time that there was nothing to do."""
        self._repository = repository
        self._bills = bills
        self._every_seconds = every_seconds
        self._settle_at = time.monotonic()
        self._passed_over = -1

    def run_once(self) -> bool:
        """Settle some of what is due; True when there may be more."""
        if time.monotonic() < self._settle_at:
            return False
        revision = self._bills.revision()
        self._pass_over(revision)
        due = self._repository.due(revision=revision, limit=_WORKERS_AT_ONCE)
        posted = sum(self.settle(life, revision=revision) for life in due)
        if posted:
            _LOG.info("settled", extra={"workers": len(due), "settlements": posted})
        has_more = len(due) == _WORKERS_AT_ONCE
        if not has_more:
            self._settle_at = time.monotonic() + self._every_seconds
        return has_more

    def _pass_over(self, revision: int) -> None:
        if not self._bills.is_of_prices or revision == self._passed_over:
            return
        while self._repository.pass_over(revision=revision, limit=_PASSED_OVER_AT_ONCE) == _PASSED_OVER_AT_ONCE:
            pass
        self._passed_over = revision

    def settle(self, life: WorkerLife, *, revision: int | None = None) -> int:
        """Bring what is posted of a life to its bill; return how many transactions that took."""
        revision = self._bills.revision() if revision is None else revision
        bill = self._bills.bill(life)
        posted, number = self._repository.posted(life)
        if Amounts.total(posted.values()) == total_of(bill, life):
            # Nearly all, nearly always; spans are many.
            return self._repository.settle(life, (), revision=revision)
        billed = billed_by_account(bill, life, self._repository.spans(life))
        differences = settlements(bill, life, billed=billed, posted=posted, number=number + 1)
        return self._repository.settle(life, differences, revision=revision)
