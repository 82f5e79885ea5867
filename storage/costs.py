"""What things cost: a batch's bill, the overhead beside it, and whether the books add up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from pipeline.domain.ids import BatchId, WorkerId
from pipeline.domain.lifecycle import IntervalKind
from storage.database import Database

_BATCH_COST = text("""
    SELECT coalesce(sum(effective_micros), 0) AS amount_micros, coalesce(sum(input_tokens + output_tokens), 0) AS tokens,
           coalesce((SELECT currency FROM transactions WHERE transactions.id = min(transaction_id)), 'USD') AS currency
      FROM entries WHERE batch_id = :batch_id
""")

_OVERHEAD = text("""
    SELECT spans.kind, sum(effective_micros) AS amount_micros, sum(stop_us - spans.start_us) AS duration_us,
           min(currency) AS currency
      FROM worker_intervals AS spans JOIN transactions USING (worker_id, start_us)
      JOIN entries ON transaction_id = transactions.id AND account LIKE 'overhead:%'
     WHERE CAST(:since AS timestamptz) IS NULL OR transactions.created_at >= :since
     GROUP BY spans.kind ORDER BY amount_micros DESC, spans.kind
""")

_ALL_OVERHEAD = text("""
    -- By account, for what is settled, shared or adjusted has no span of its own. Of the sums by day, and of what is
    -- newer than they are: a journal of years is not read for it.
    SELECT kind, currency, CAST(sum(effective_micros) AS bigint) AS amount_micros
      FROM cost_day_sums WHERE batch_id IS NULL
     GROUP BY kind, currency HAVING sum(effective_micros) <> 0 ORDER BY amount_micros DESC, kind, currency
""")

_RECONCILE = text("""
    -- The price of a worker's metered life is the floor of rate times time, and its charges must sum to it:
    -- spans telescope, so no rounding of theirs can explain a difference.
    SELECT workers.id AS worker_id,
           div(rate_micros_per_hour::numeric * metered_until_us, 3600000000) AS expected_micros,
           coalesce(charged.amount_micros, 0) AS charged_micros
      FROM workers
      LEFT JOIN (SELECT worker_id, sum(-effective_micros) AS amount_micros
                   FROM transactions JOIN entries ON transaction_id = transactions.id AND account LIKE 'supplier:%'
                  WHERE kind = 'accrual' GROUP BY worker_id) AS charged
             ON charged.worker_id = workers.id
     WHERE div(rate_micros_per_hour::numeric * metered_until_us, 3600000000) <> coalesce(charged.amount_micros, 0)
     ORDER BY workers.id
""")

_SPENT = text("""
    -- What is owed to suppliers is what batches and overhead are debited: a transaction balances.
    SELECT currency, CAST(sum(effective_micros) AS bigint) AS amount_micros
      FROM cost_day_sums GROUP BY currency ORDER BY currency
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCost:
    """What a batch has cost so far; what is charged for it is in its view."""

    amount_micros: int
    tokens: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverheadTime:
    """What one kind of time that no batch pays for has cost."""

    kind: IntervalKind
    duration_us: int
    amount_micros: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverheadSum:
    """What one kind of overhead has cost in all, settlements and what was shared of it counted."""

    kind: str
    amount_micros: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A worker whose charges do not sum to the price of its metered life."""

    worker_id: WorkerId
    expected_micros: int
    charged_micros: int


class CostRepository:
    """Reads the ledger; writes nothing."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    def batch_cost(self, batch_id: BatchId) -> BatchCost:
        """Return what the batch was charged so far; nothing for a batch that never ran."""
        row = self._database.run(lambda connection: connection.execute(_BATCH_COST, {"batch_id": batch_id}).one())
        return BatchCost(amount_micros=int(row.amount_micros), tokens=int(row.tokens), currency=row.currency)

    def overhead_since(self, since: datetime | None) -> list[OverheadTime]:
        """Return what the time that no batch pays for has cost since then, or ever, the dearest kind first."""
        rows = self._database.run(lambda connection: connection.execute(_OVERHEAD, {"since": since}).all())
        return [
            OverheadTime(
                kind=IntervalKind(row.kind),
                duration_us=int(row.duration_us),
                amount_micros=int(row.amount_micros),
                currency=row.currency,
            )
            for row in rows
        ]

    def overhead(self) -> list[OverheadSum]:
        """Return what is nobody's of `spent`, the dearest kind first."""
        rows = self._database.run(lambda connection: connection.execute(_ALL_OVERHEAD).all(), is_look=True)
        return [OverheadSum(kind=row.kind, amount_micros=int(row.amount_micros), currency=row.currency) for row in rows]

    def spent(self) -> dict[str, int]:
        """Return all that anything has cost, in micro-units by currency."""
        rows = self._database.run(lambda connection: connection.execute(_SPENT).all(), is_look=True)
        return {row.currency: int(row.amount_micros) for row in rows}

    def reconcile(self) -> list[Mismatch]:
        """Return the workers whose books do not add up: none, always."""
        rows = self._database.run(lambda connection: connection.execute(_RECONCILE).all(), is_look=True, is_long=True)
        return [
            Mismatch(
                worker_id=WorkerId(row.worker_id),
                expected_micros=int(row.expected_micros),
                charged_micros=int(row.charged_micros),
            )
            for row in rows
        ]
