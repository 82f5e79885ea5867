"""Cache credits in Postgres: what an attempt reused, posted with what it used."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.reusing import AttemptSpan, AttemptWork, cache_credit
from pipeline.domain.ids import BatchId, PackId, WorkerId
from storage.journal import post
from storage.ledger import unit_costs_of

_UNIT_COSTS: Final = text("""
    SELECT row_picoseconds, input_token_picoseconds, output_token_picoseconds FROM packs WHERE id = :pack_id
""")

#: Of the attempt's spans, what each batch had; what was settled of them later does not count.
WORKED: Final = text("""
    SELECT batch_id, worker_id, currency, min(period_start) AS start, max(period_stop) AS stop,
           sum(row_count) AS row_count, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
           sum(list_micros) AS list_micros, sum(contracted_micros) AS contracted_micros,
           sum(effective_micros) AS effective_micros, sum(billed_micros) AS billed_micros,
           sum(on_demand_micros) AS on_demand_micros
      FROM transactions JOIN entries ON entries.transaction_id = transactions.id
     WHERE pack_id = :pack_id AND lease_token = :lease_token AND start_us IS NOT NULL AND batch_id IS NOT NULL
     GROUP BY batch_id, worker_id, currency
""")


def credit_reuse(connection: Connection, pack_id: PackId, lease_token: int, tokens_cached: int) -> None:
    """Post what an attempt that has ended reused, within the caller's transaction; repeating it changes nothing."""
    found = connection.execute(WORKED, {"pack_id": pack_id, "lease_token": lease_token}).all()
    if not found:
        return
    span = AttemptSpan(
        pack_id=pack_id,
        lease_token=lease_token,
        worker_id=WorkerId(found[0].worker_id),
        start=min(row.start for row in found),
        stop=max(row.stop for row in found),
        currency=found[0].currency,
    )
    works = [
        AttemptWork(
            batch_id=BatchId(row.batch_id),
            rows=int(row.row_count),
            input_tokens=int(row.input_tokens),
            output_tokens=int(row.output_tokens),
            cost=Amounts(**{name: int(getattr(row, name)) for name in COST_NAMES}),
        )
        for row in found
    ]
    unit_costs = unit_costs_of(connection.execute(_UNIT_COSTS, {"pack_id": pack_id}).one())
    credit = cache_credit(span, works, unit_costs, tokens_cached)
    if credit is not None:
        post(connection, credit)
