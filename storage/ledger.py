"""The ledger's writes: a worker's span and the transaction that charges it, always together.

The database holds the rest: spans follow one another without a gap, their price is the telescoping
one, and a span's transaction owes its price (see 0001_guards.sql, 0019_journal.sql).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import Connection, Row, text

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.charging import ChargeTerms
from pipeline.domain.costs.hourly import metered
from pipeline.domain.costs.transactions import (
    CostCategory,
    Entry,
    Overhead,
    Transaction,
    TransactionKind,
    of_batch,
    of_overhead,
    of_revenue,
    of_supplier,
)
from pipeline.domain.errors import LeaseLostError, NotFoundError
from pipeline.domain.ids import BatchId, WorkerId
from pipeline.domain.lifecycle import IntervalKind, WorkerState
from pipeline.domain.shares import SplitRule, UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.packs import Interval, WorkCommit
from storage.journal import post

_METER = text("""
    SELECT id, pool, state, started_at, metered_until_us, currency, rate_micros_per_hour, list_rate_micros_per_hour,
           contracted_rate_micros_per_hour, billed_rate_micros_per_hour, on_demand_rate_micros_per_hour
      FROM workers WHERE id = :worker_id FOR NO KEY UPDATE
""")

_TERMS = text("""
    SELECT id, tier, charge_multiplier_ppm, input_token_price_picos, output_token_price_picos
      FROM batches WHERE id = ANY(:batch_ids)
""")

_ADD_INTERVAL = text("""
    INSERT INTO worker_intervals (worker_id, start_us, stop_us, kind, pack_id, lease_token, model, variant,
                                  tokens, rate_micros_per_hour, cost_micros, split_rule)
    VALUES (:worker_id, :start_us, :stop_us, :kind, CAST(:pack_id AS text), :lease_token,
            (SELECT model FROM packs WHERE id = CAST(:pack_id AS text)),
            (SELECT variant FROM packs WHERE id = CAST(:pack_id AS text)), :tokens, :rate_micros_per_hour, :cost_micros,
            CAST(:split_rule AS text))
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meter:
    """A worker's meter, locked."""

    worker_id: WorkerId
    pool: str
    state: WorkerState
    started_at: datetime
    metered_until_us: int
    currency: str
    rates: Amounts

    @classmethod
    def locked(cls, connection: Connection, worker_id: WorkerId) -> Self:
        row = connection.execute(_METER, {"worker_id": worker_id}).one_or_none()
        if row is None:
            raise NotFoundError(f"worker {worker_id} is not registered")
        return cls(
            worker_id=worker_id,
            pool=row.pool,
            state=WorkerState(row.state),
            started_at=row.started_at,
            metered_until_us=row.metered_until_us,
            currency=row.currency,
            rates=rates_of(row),
        )

    def cost(self, interval: Interval) -> Amounts:
        """Return what that span of its life costs."""
        return metered(self.rates, interval.start_us, interval.stop_us)

    def charged(self, interval: Interval, cost: Amounts, entries: Sequence[Entry], **more: Any) -> Transaction:  # noqa: ANN401 -- fields of a transaction
        return Transaction(
            key=f"interval:{self.worker_id}:{interval.start_us}",
            kind=TransactionKind.ACCRUAL,
            category=CostCategory.COMPUTE,
            period_start=self.started_at + timedelta(microseconds=interval.start_us),
            period_stop=self.started_at + timedelta(microseconds=interval.stop_us),
            currency=self.currency,
            entries=(*entries, Entry(account=of_supplier(self.pool), amounts=-cost)),
            worker_id=self.worker_id,
            start_us=interval.start_us,
            **more,
        )


def rates_of(worker: Row[Any]) -> Amounts:
    """Return what an hour of a worker costs."""
    return Amounts(
        list_micros=worker.list_rate_micros_per_hour,
        contracted_micros=worker.contracted_rate_micros_per_hour,
        effective_micros=worker.rate_micros_per_hour,
        billed_micros=worker.billed_rate_micros_per_hour,
        on_demand_micros=worker.on_demand_rate_micros_per_hour,
    )


def record_work(connection: Connection, worker_id: WorkerId, commit: WorkCommit, unit_costs: UnitCosts) -> None:
    """Charge the commit's span to the batches of its parts, by what their rows were to cost in the pack."""
    interval = commit.interval
    assert interval is not None
    assert interval.kind is IntervalKind.WORK
    meter = _Meter.locked(connection, worker_id)
    works = commit.works()
    cost = meter.cost(interval)
    _add_interval(
        connection,
        meter,
        interval,
        cost,
        pack_id=commit.pack_id,
        lease_token=commit.lease_token,
        tokens=sum(inputs + outputs for _, inputs, outputs in works.values()),
        split_rule=SplitRule.PREDICTED_COST,
    )
    entries = _work_entries(connection, works, _shares(cost, works, unit_costs))
    charged = meter.charged(
        interval,
        cost,
        entries,
        pack_id=commit.pack_id,
        lease_token=commit.lease_token,
        method=SplitRule.PREDICTED_COST,
    )
    post(connection, charged)


def _shares(
    cost: Amounts, works: Mapping[BatchId, tuple[int, int, int]], unit_costs: UnitCosts
) -> dict[BatchId, Amounts]:
    split = {micros: unit_costs.split(micros, works) for micros in {getattr(cost, name) for name in COST_NAMES}}
    return {
        batch_id: Amounts(**{name: split[getattr(cost, name)][batch_id] for name in COST_NAMES}) for batch_id in works
    }


def _work_entries(
    connection: Connection, works: Mapping[BatchId, tuple[int, int, int]], shares: Mapping[BatchId, Amounts]
) -> list[Entry]:
    """Return a debit of each batch, with what it is charged, and the credit of revenue for the charges."""
    entries: list[Entry] = []
    revenue: Counter[Tier] = Counter()
    for batch in connection.execute(_TERMS, {"batch_ids": sorted(works)}):
        rows, inputs, outputs = works[batch.id]
        share = shares[batch.id]
        charged = terms_of(batch).charge_micros(
            effective_micros=share.effective_micros, input_tokens=inputs, output_tokens=outputs
        )
        revenue[Tier(batch.tier)] += charged
        entries.append(
            Entry(
                account=of_batch(batch.id),
                amounts=replace(share, charged_micros=charged),
                row_count=rows,
                input_tokens=inputs,
                output_tokens=outputs,
            )
        )
    credited = [
        Entry(account=of_revenue(tier), amounts=Amounts(charged_micros=-sum_)) for tier, sum_ in revenue.items()
    ]
    return sorted(entries, key=lambda entry: entry.account) + credited


def terms_of(batch: Row[Any]) -> ChargeTerms:
    """Return what is charged for a batch."""
    return ChargeTerms(
        multiplier_ppm=batch.charge_multiplier_ppm,
        input_token_picos=batch.input_token_price_picos,
        output_token_picos=batch.output_token_price_picos,
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
    meter = _Meter.locked(connection, worker_id)
    if interval.stop_us <= meter.metered_until_us:
        return
    if meter.state is WorkerState.LOST:
        if interval.kind is not IntervalKind.LATE:
            raise LeaseLostError(f"worker {worker_id} was declared lost")
        interval = replace(interval, start_us=max(interval.start_us, meter.metered_until_us))
    cost = meter.cost(interval)
    _add_interval(connection, meter, interval, cost)
    post(connection, meter.charged(interval, cost, [Entry(account=of_overhead(Overhead(interval.kind)), amounts=cost)]))


def _add_interval(
    connection: Connection,
    meter: _Meter,
    interval: Interval,
    cost: Amounts,
    *,
    pack_id: str | None = None,
    lease_token: int | None = None,
    tokens: int = 0,
    split_rule: SplitRule | None = None,
) -> None:
    connection.execute(
        _ADD_INTERVAL,
        {
            "worker_id": meter.worker_id,
            "start_us": interval.start_us,
            "stop_us": interval.stop_us,
            "kind": interval.kind,
            "pack_id": pack_id,
            "lease_token": lease_token,
            "tokens": tokens,
            "rate_micros_per_hour": meter.rates.effective_micros,
            "cost_micros": cost.effective_micros,
            "split_rule": split_rule,
        },
    )
