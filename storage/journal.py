"""The journal's one write: a transaction with its entries, once for each key.

The database holds that it balances, that it is never changed, and that its entries came with it (0019_journal.sql).
"""

from __future__ import annotations

from typing import Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.costs.amounts import NAMES
from pipeline.domain.costs.transactions import Transaction

_ADD: Final = text("""
    INSERT INTO transactions (key, kind, category, period_start, period_stop, worker_id, start_us, pack_id, lease_token,
                              reverses_id, method, source, detail, currency)
    VALUES (:key, :kind, :category, :period_start, :period_stop, :worker_id, :start_us, :pack_id, :lease_token,
            :reverses_id, :method, :source, CAST(:detail AS jsonb), :currency)
    ON CONFLICT (key) DO NOTHING RETURNING id
""")

_ADD_ENTRIES: Final = text("""
    INSERT INTO entries (transaction_id, line, account, batch_id, list_micros, contracted_micros, effective_micros,
                         billed_micros, on_demand_micros, charged_micros, row_count, input_tokens, output_tokens)
    SELECT :transaction_id, line - 1, account, batch_id, list_micros, contracted_micros, effective_micros,
           billed_micros, on_demand_micros, charged_micros, row_count, input_tokens, output_tokens
      FROM unnest(CAST(:account AS text[]), CAST(:batch_id AS text[]), CAST(:list_micros AS bigint[]),
                  CAST(:contracted_micros AS bigint[]), CAST(:effective_micros AS bigint[]),
                  CAST(:billed_micros AS bigint[]), CAST(:on_demand_micros AS bigint[]),
                  CAST(:charged_micros AS bigint[]), CAST(:row_count AS bigint[]), CAST(:input_tokens AS bigint[]),
                  CAST(:output_tokens AS bigint[])) WITH ORDINALITY
        AS lines (account, batch_id, list_micros, contracted_micros, effective_micros, billed_micros, on_demand_micros,
                  charged_micros, row_count, input_tokens, output_tokens, line)
""")


def post(connection: Connection, transaction: Transaction) -> int | None:
    """Write the transaction within the caller's; return its id, or None where one with its key is there already."""
    transaction_id: int | None = connection.execute(
        _ADD,
        {
            "key": transaction.key,
            "kind": transaction.kind,
            "category": transaction.category,
            "period_start": transaction.period_start,
            "period_stop": transaction.period_stop,
            "worker_id": transaction.worker_id,
            "start_us": transaction.start_us,
            "pack_id": transaction.pack_id,
            "lease_token": transaction.lease_token,
            "reverses_id": transaction.reverses_id,
            "method": transaction.method,
            "source": transaction.source,
            "detail": orjson.dumps(dict(transaction.detail)).decode(),
            "currency": transaction.currency,
        },
    ).scalar_one_or_none()
    if transaction_id is None:
        return None
    entries = transaction.entries
    connection.execute(
        _ADD_ENTRIES,
        {
            "transaction_id": transaction_id,
            "account": [entry.account for entry in entries],
            "batch_id": [entry.batch_id for entry in entries],
            **{name: [getattr(entry.amounts, name) for entry in entries] for name in NAMES},
            **{
                name: [getattr(entry, name) for entry in entries]
                for name in ("row_count", "input_tokens", "output_tokens")
            },
        },
    )
    return transaction_id
