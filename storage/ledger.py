"""The ledger's writes: a worker's span and its charges, always together.

The database holds the rest: spans follow one another without a gap, their price is the telescoping
one, and a span's charges sum to its price (see 0001_guards.sql).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, text

from pipeline.domain.errors import LeaseLostError, NotFoundError
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import IntervalKind, WorkerState
from pipeline.domain.money import metered_cost_micros
from pipeline.domain.shares import SplitRule, UnitCosts
from pipeline.ports.packs import Interval, WorkCommit

_METER = text("""
    SELECT state, metered_until_us, rate_micros_per_hour, currency FROM workers
     WHERE id = :worker_id FOR NO KEY UPDATE
""")

_ADD_INTERVAL = text("""
    INSERT INTO worker_intervals (worker_id, start_us, stop_us, kind, pack_id, lease_token, model, variant,
                                  tokens, rate_micros_per_hour, cost_micros, split_rule)
    VALUES (:worker_id, :start_us, :stop_us, :kind, CAST(:pack_id AS text), :lease_token,
            (SELECT model FROM packs WHERE id = CAST(:pack_id AS text)),
            (SELECT variant FROM packs WHERE id = CAST(:pack_id AS text)), :tokens, :rate_micros_per_hour, :cost_micros,
            CAST(:split_rule AS text))
""")

_ADD_ENTRY = text("""
    INSERT INTO ledger (worker_id, start_us, account, batch_id, kind, row_count, input_tokens, output_tokens, tokens,
                        amount_micros, currency)
    VALUES (:worker_id, :start_us, :account, :batch_id, :kind, :row_count, :input_tokens, :output_tokens, :tokens,
            :amount_micros, :currency)
""")


def record_work(connection: Connection, worker_id: WorkerId, commit: WorkCommit, unit_costs: UnitCosts) -> None:
    """Charge the commit's span to the batches of its parts, by what their rows were to cost in the pack."""
    interval = commit.interval
    assert interval is not None
    assert interval.kind is IntervalKind.WORK
    works = commit.works()
    cost_micros, currency = _add_interval(
        connection,
        worker_id,
        interval,
        pack_id=commit.pack_id,
        lease_token=commit.lease_token,
        tokens=sum(inputs + outputs for _, inputs, outputs in works.values()),
        split_rule=SplitRule.PREDICTED_COST,
    )
    amounts = unit_costs.split(cost_micros, works)
    connection.execute(
        _ADD_ENTRY,
        [
            {
                "worker_id": worker_id,
                "start_us": interval.start_us,
                "account": batch_id,
                "batch_id": batch_id,
                "kind": interval.kind,
                "row_count": rows,
                "input_tokens": inputs,
                "output_tokens": outputs,
                "tokens": inputs + outputs,
                "amount_micros": amounts[batch_id],
                "currency": currency,
            }
            for batch_id, (rows, inputs, outputs) in works.items()
        ],
    )


def unit_costs_of(pack: Row[Any]) -> UnitCosts:
    """Return what the pack's time is split by."""
    return UnitCosts(
        row_picoseconds=pack.row_picoseconds,
        input_token_picoseconds=pack.input_token_picoseconds,
        output_token_picoseconds=pack.output_token_picoseconds,
    )


def record_overhead(connection: Connection, worker_id: WorkerId, interval: Interval) -> None:
    """Charge a span that no batch pays for to its own overhead account; repeating it changes nothing.

    A worker that was declared lost may still report late work, which counts from where its life was
    closed; anything else of a lost worker raises `LeaseLostError`.
    """
    assert interval.kind is not IntervalKind.WORK
    meter = _meter_of(connection, worker_id)
    if interval.stop_us <= meter.metered_until_us:
        return
    if meter.state == WorkerState.LOST:
        if interval.kind is not IntervalKind.LATE:
            raise LeaseLostError(f"worker {worker_id} was declared lost")
        interval = replace(interval, start_us=max(interval.start_us, meter.metered_until_us))
    cost_micros, currency = _add_interval(connection, worker_id, interval)
    connection.execute(
        _ADD_ENTRY,
        {
            "worker_id": worker_id,
            "start_us": interval.start_us,
            "account": f"overhead:{interval.kind}",
            "batch_id": None,
            "kind": interval.kind,
            "row_count": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "tokens": 0,
            "amount_micros": cost_micros,
            "currency": currency,
        },
    )


def _meter_of(connection: Connection, worker_id: WorkerId) -> Row[Any]:
    meter = connection.execute(_METER, {"worker_id": worker_id}).one_or_none()
    if meter is None:
        raise NotFoundError(f"worker {worker_id} is not registered")
    return meter


def _add_interval(
    connection: Connection,
    worker_id: WorkerId,
    interval: Interval,
    *,
    pack_id: str | None = None,
    lease_token: int | None = None,
    tokens: int = 0,
    split_rule: SplitRule | None = None,
) -> tuple[int, str]:
    meter = _meter_of(connection, worker_id)
    cost_micros = metered_cost_micros(meter.rate_micros_per_hour, interval.start_us, interval.stop_us)
    connection.execute(
        _ADD_INTERVAL,
        {
            "worker_id": worker_id,
            "start_us": interval.start_us,
            "stop_us": interval.stop_us,
            "kind": interval.kind,
            "pack_id": pack_id,
            "lease_token": lease_token,
            "tokens": tokens,
            "rate_micros_per_hour": meter.rate_micros_per_hour,
            "cost_micros": cost_micros,
            "split_rule": split_rule,
        },
    )
    return cost_micros, meter.currency
