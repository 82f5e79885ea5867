"""Reusing: what prefixes that were taken from a cache would have cost, and the credit of as much.

A batch costs the time it took, and what was reused took none. So that the saving is told beside that cost, two lines are
posted for each batch of an attempt: what the reused tokens would have cost, and a credit of it. They are of one account,
so no sum by account, batch, worker or supplier changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.transactions import CostCategory, Entry, Transaction, TransactionKind, of_batch
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.money import split_by_weight
from pipeline.domain.shares import UnitCosts

#: The rule, by which the views know the lines: an even one is what was reused, the odd one after it is its credit.
CACHE_CREDIT: Final = "cache_credit_v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptWork:
    """What a batch had of an attempt, as it was accrued."""

    batch_id: BatchId
    rows: int
    input_tokens: int
    output_tokens: int
    #: What was charged for it does not count.
    cost: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSpan:
    """An attempt's place in the journal."""

    pack_id: PackId
    lease_token: int
    worker_id: WorkerId
    start: datetime
    stop: datetime
    currency: str


def cache_credit(
    span: AttemptSpan, works: Sequence[AttemptWork], unit_costs: UnitCosts, tokens_cached: int
) -> Transaction | None:
    """Return the lines of what an attempt reused; None where that comes to nothing.

    Reused tokens are of the batches in proportion to their input. Each would have cost what an input token of its batch
    did, those that cost nothing counted: less than what computing one costs, so that the credit is never too high.
    """
    inputs = [work.input_tokens for work in works]
    reused = split_by_weight(min(tokens_cached, sum(inputs)), inputs) if any(inputs) else [0] * len(works)
    entries: list[Entry] = []
    tokens: dict[str, int] = {}
    for work, count in sorted(zip(works, reused, strict=True), key=lambda each: each[0].batch_id):
        value = _value(work, count, unit_costs)
        if not value:
            continue
        account = of_batch(work.batch_id)
        entries += [Entry(account=account, amounts=value), Entry(account=account, amounts=-value)]
        tokens[work.batch_id] = count
    if not entries:
        return None
    return Transaction(
        key=f"cache:{span.pack_id}:{span.lease_token}",
        kind=TransactionKind.ACCRUAL,
        category=CostCategory.COMPUTE,
        period_start=span.start,
        period_stop=span.stop,
        currency=span.currency,
        entries=tuple(entries),
        worker_id=span.worker_id,
        pack_id=span.pack_id,
        lease_token=span.lease_token,
        method=CACHE_CREDIT,
        detail={"tokens_cached": tokens},
    )


def _value(work: AttemptWork, tokens: int, unit_costs: UnitCosts) -> Amounts:
    weight = (
        work.rows * unit_costs.row_picoseconds
        + work.input_tokens * unit_costs.input_token_picoseconds
        + work.output_tokens * unit_costs.output_token_picoseconds
    )
    reused = tokens * unit_costs.input_token_picoseconds
    return Amounts.costs(lambda name: getattr(work.cost, name) * reused // weight if weight else 0)
