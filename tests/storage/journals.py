"""Random journals, seeded: balanced transactions as workers, sharing, settlements and reversals post them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.charging import ChargeTerms
from pipeline.domain.costs.hourly import metered
from pipeline.domain.costs.reusing import CACHE_CREDIT
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
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.money import split_by_weight
from pipeline.domain.tiers import Tier
from storage.database import Database
from storage.journal import post

MODELS = ("chat", "embed")
POOLS = (("spot-a", "spot", "g6.xlarge", 1_000_000), ("base", "on_demand", "g6.2xlarge", 3_000_000))
TEAMS = ("search", "ads", "it's")


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What was made."""

    first_day: date
    last_day: date
    batch_ids: Sequence[BatchId]
    tenant_ids: Sequence[str]


def write_journal(
    database: Database,
    seed: int,
    *,
    days: int = 40,
    last_day: date = date(2026, 11, 20),
    batches: int = 12,
    transactions: int = 160,
) -> Journal:
    """Post a random journal of so many days, through the statement that everybody posts by."""
    return _Writer(database, seed, days=days, last_day=last_day).write(batches, transactions)


class _Writer:
    def __init__(self, database: Database, seed: int, *, days: int, last_day: date) -> None:
        self.database = database
        self.seed = seed
        self.random = random.Random(seed)
        self.days = days
        self.start = datetime.combine(last_day - timedelta(days=days - 1), datetime.min.time(), UTC)
        self.last_day = last_day
        self.lives = dict.fromkeys((WorkerId(f"wrk_{seed}_{n}") for n in range(len(POOLS) * 2)), 0)

    def write(self, batches: int, transactions: int) -> Journal:
        tenant_ids = [f"tnt_{self.seed}_{n}" for n in range(3)]
        with self.database.transaction() as connection:
            for tenant_id in tenant_ids:
                self._tenant(connection, tenant_id)
            batch_ids = [self._batch(connection, n, tenant_ids[n % 3]) for n in range(batches)]
            for number, worker_id in enumerate(self.lives):
                self._worker(connection, worker_id, POOLS[number % len(POOLS)])
        for number in range(transactions):
            with self.database.transaction() as connection:
                self._transaction(connection, number, batch_ids)
        return Journal(first_day=self.start.date(), last_day=self.last_day, batch_ids=batch_ids, tenant_ids=tenant_ids)

    def _tenant(self, connection: Connection, tenant_id: str) -> None:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES (:id, :id)"), {"id": tenant_id})
        connection.execute(
            text(
                "INSERT INTO projects (id, tenant_id, name, is_default) VALUES ('p' || CAST(:id AS text), CAST(:id AS text), 'main', true)"
            ),
            {"id": tenant_id},
        )

    def _batch(self, connection: Connection, number: int, tenant_id: str) -> BatchId:
        batch_id = BatchId(f"batch_{self.seed}_{number:04d}")
        at = self.start + timedelta(days=self.random.randrange(self.days), hours=self.random.randrange(24))
        tier = self.random.choice(list(Tier))
        labels = {"team": self.random.choice(TEAMS), "env": "prod"} if self.random.random() < 0.8 else None
        connection.execute(
            text("""
                INSERT INTO batches (id, tenant_id, project_id, state, endpoint, completion_window, tier, budget_micros,
                                     charge_multiplier_ppm, labels, input_file_id, created_at, deadline_at,
                                     in_progress_at)
                VALUES (:id, CAST(:tenant_id AS text), 'p' || CAST(:tenant_id AS text), 'in_progress', '/v1/chat/completions', '24h', :tier, :budget,
                        :ppm, CAST(:labels AS jsonb), 'x', CAST(:at AS timestamptz),
                        CAST(:at AS timestamptz) + interval '1 day', CAST(:at AS timestamptz))
            """),
            {
                "id": batch_id,
                "tenant_id": tenant_id,
                "tier": tier,
                "budget": self.random.choice([None, 5_000_000]),
                "ppm": self.random.choice([1_000_000, 1_500_000]),
                "labels": None if labels is None else _json(labels),
                "at": at,
            },
        )
        connection.execute(
            text("""
                INSERT INTO shards (batch_id, shard_no, model, object_key, sha256, size_bytes, rows_total,
                                    input_tokens_estimated, output_tokens_estimated)
                VALUES (CAST(:id AS text), 0, :model, CAST(:id AS text), '', 1, 10, 1, 1)
            """),
            {"id": batch_id, "model": MODELS[number % 2]},
        )
        connection.execute(
            text("""
                INSERT INTO packs (id, pool, model, variant, endpoint, tier, state, ordinal, predicted_seconds, ended_at)
                VALUES ('pack_' || CAST(:id AS text), 'spot-a', CAST(:model AS text), CAST(:model AS text) || '@int8', '/v1/chat/completions', :tier, 'committed', 1, 1,
                        :at)
            """),
            {"id": batch_id, "model": MODELS[number % 2], "tier": tier, "at": at},
        )
        return batch_id

    def _worker(self, connection: Connection, worker_id: WorkerId, pool: tuple[str, str, str, int]) -> None:
        name, market, kind, rate = pool
        connection.execute(
            text("""
                INSERT INTO workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour,
                                     list_rate_micros_per_hour, contracted_rate_micros_per_hour,
                                     billed_rate_micros_per_hour, on_demand_rate_micros_per_hour, currency, provider,
                                     instance_type, region, zone, started_at, uptime_us)
                VALUES (:id, :pool, :market, 'h', 1, 'ready', '{}', CAST(:rate AS bigint), CAST(:rate AS bigint) + 7,
                        CAST(:rate AS bigint) + 3, CAST(:rate AS bigint) - 1, CAST(:rate AS bigint) * 3, 'USD',
                        'aws', :kind, 'us-east-1', 'us-east-1a', :at, 0)
            """),
            {"id": worker_id, "pool": name, "market": market, "kind": kind, "rate": rate, "at": self.start},
        )

    def _transaction(self, connection: Connection, number: int, batch_ids: Sequence[BatchId]) -> None:
        kind = self.random.random()
        if kind < 0.75:
            self._interval(connection, batch_ids)
        elif kind < 0.85:
            self._plain(connection, number, batch_ids)
        elif kind < 0.88:
            self._reuse(connection, number, batch_ids)
        elif kind < 0.93:
            self._settlement(connection, number)
        else:
            self._reversal(connection, number)

    def _interval(self, connection: Connection, batch_ids: Sequence[BatchId]) -> None:
        worker_id = self.random.choice(list(self.lives))
        start_us = self.lives[worker_id]
        stop_us = start_us + self.random.choice([1, 999_999, 3_600_000_000, 200_000_000_007])
        self.lives[worker_id] = stop_us
        row = connection.execute(text("SELECT * FROM workers WHERE id = :id"), {"id": worker_id}).one()
        rates = Amounts(
            list_micros=row.list_rate_micros_per_hour,
            contracted_micros=row.contracted_rate_micros_per_hour,
            effective_micros=row.rate_micros_per_hour,
            billed_micros=row.billed_rate_micros_per_hour,
            on_demand_micros=row.on_demand_rate_micros_per_hour,
        )
        cost = metered(rates, start_us, stop_us)
        is_work = self.random.random() < 0.7
        mine = sorted(self.random.sample(list(batch_ids), self.random.randint(1, 3))) if is_work else []
        pack_id = f"pack_{mine[0]}" if mine else None
        overhead = self.random.choice([Overhead.IDLE, Overhead.BOOT, Overhead.LOAD, Overhead.PREEMPTED])
        connection.execute(
            text("""
                INSERT INTO worker_intervals (worker_id, start_us, stop_us, kind, pack_id, model, variant,
                                              rate_micros_per_hour, cost_micros)
                SELECT :worker_id, :start_us, :stop_us, :kind, CAST(:pack_id AS text), model, variant, :rate, :cost
                  FROM (VALUES (1)) AS one LEFT JOIN packs ON packs.id = CAST(:pack_id AS text)
            """),
            {
                "worker_id": worker_id,
                "start_us": start_us,
                "stop_us": stop_us,
                "kind": "work" if is_work else str(overhead),
                "pack_id": pack_id,
                "rate": rates.effective_micros,
                "cost": cost.effective_micros,
            },
        )
        entries = self._worked(connection, mine, cost) if mine else [Entry(account=of_overhead(overhead), amounts=cost)]
        post(
            connection,
            Transaction(
                key=f"interval:{worker_id}:{start_us}",
                kind=TransactionKind.ACCRUAL,
                category=CostCategory.COMPUTE,
                period_start=self.start + timedelta(microseconds=start_us),
                period_stop=self.start + timedelta(microseconds=stop_us),
                currency="USD",
                entries=(*entries, Entry(account=of_supplier(row.pool), amounts=-cost)),
                worker_id=worker_id,
                start_us=start_us,
                pack_id=None if pack_id is None else PackId(pack_id),
                method="predicted_cost_v1" if mine else None,
            ),
        )

    def _worked(self, connection: Connection, batch_ids: Sequence[BatchId], cost: Amounts) -> list[Entry]:
        weights = [self.random.randint(0, 5) for _ in batch_ids]
        split = {name: split_by_weight(getattr(cost, name), weights) for name in COST_NAMES}
        entries, revenue = [], 0
        for number, batch_id in enumerate(batch_ids):
            share = Amounts(**{name: split[name][number] for name in COST_NAMES})
            terms: Any = connection.execute(
                text("SELECT charge_multiplier_ppm FROM batches WHERE id = :id"), {"id": batch_id}
            ).scalar_one()
            charged = ChargeTerms(multiplier_ppm=terms).charge_micros(
                effective_micros=share.effective_micros, input_tokens=0, output_tokens=0
            )
            revenue += charged
            entries.append(
                Entry(
                    account=of_batch(batch_id),
                    amounts=share + Amounts(charged_micros=charged),
                    row_count=self.random.randint(1, 50),
                    input_tokens=self.random.randint(0, 9_000),
                    output_tokens=self.random.randint(0, 5_000),
                )
            )
        return [*entries, Entry(account=of_revenue(Tier.BULK), amounts=Amounts(charged_micros=-revenue))]

    def _moment(self) -> datetime:
        return self.start + timedelta(seconds=self.random.randrange(self.days * 86_400))

    def _plain(self, connection: Connection, number: int, batch_ids: Sequence[BatchId]) -> None:
        """Overhead shared over batches, or storage: what is no worker's time."""
        at, amount = self._moment(), Amounts.cost(self.random.randint(1, 99_999))
        is_shared = self.random.random() < 0.6
        from_account = of_overhead(Overhead.IDLE) if is_shared else of_supplier("s3")
        to_account = of_batch(self.random.choice(batch_ids)) if is_shared else of_overhead(Overhead.STORAGE)
        post(
            connection,
            Transaction(
                key=f"plain:{self.seed}:{number}",
                kind=TransactionKind.ALLOCATION if is_shared else TransactionKind.ACCRUAL,
                category=CostCategory.COMPUTE if is_shared else CostCategory.STORAGE,
                period_start=at,
                period_stop=at + timedelta(hours=1),
                currency="USD",
                entries=(
                    Entry(account=to_account, amounts=amount),
                    Entry(account=from_account, amounts=-amount),
                ),
                method="proportional_v1" if is_shared else None,
                detail={"pool": "base"} if is_shared else {},
                source="a price list",
            ),
        )

    def _reuse(self, connection: Connection, number: int, batch_ids: Sequence[BatchId]) -> None:
        """Input tokens from a cache, and their credit."""
        at, value = self._moment(), Amounts.cost(self.random.randint(1, 9_999))
        lines = [
            Entry(account=of_batch(batch_id), amounts=each)
            for batch_id in self.random.sample(list(batch_ids), 2)
            for each in (value, -value)
        ]
        post(
            connection,
            Transaction(
                key=f"cache:{self.seed}:{number}",
                kind=TransactionKind.ACCRUAL,
                category=CostCategory.COMPUTE,
                period_start=at,
                period_stop=at,
                currency="USD",
                entries=tuple(lines),
                worker_id=WorkerId(self.random.choice(list(self.lives))),
                method=CACHE_CREDIT,
            ),
        )

    def _settlement(self, connection: Connection, number: int) -> None:
        worker_id = self.random.choice(list(self.lives))
        at, amount = self._moment(), Amounts.cost(self.random.randint(-9_999, 9_999))
        pool = connection.execute(text("SELECT pool FROM workers WHERE id = :id"), {"id": worker_id}).scalar_one()
        post(
            connection,
            Transaction(
                key=f"settlement:{self.seed}:{number}",
                kind=TransactionKind.SETTLEMENT,
                category=CostCategory.COMPUTE,
                period_start=at,
                period_stop=at,
                currency="USD",
                worker_id=worker_id,
                entries=(
                    Entry(account=of_overhead(Overhead.MINIMUM), amounts=amount),
                    Entry(account=of_supplier(pool), amounts=-amount),
                ),
            ),
        )

    def _reversal(self, connection: Connection, number: int) -> None:
        found = connection.execute(
            text("""
                SELECT id, period_start, period_stop, method FROM transactions
                 WHERE key LIKE 'plain:' || CAST(:seed AS text) || ':%'
                   AND id NOT IN (SELECT reverses_id FROM transactions WHERE reverses_id IS NOT NULL) LIMIT 1
            """),
            {"seed": str(self.seed)},
        ).one_or_none()
        if found is None:
            return
        lines = connection.execute(
            text("SELECT * FROM entries WHERE transaction_id = :id ORDER BY line"), {"id": found.id}
        ).all()
        posted = Transaction(
            key="",
            kind=TransactionKind.ALLOCATION,
            category=CostCategory.COMPUTE,
            period_start=found.period_start,
            period_stop=found.period_stop,
            currency="USD",
            method=found.method,
            entries=tuple(
                Entry(
                    account=line.account,
                    amounts=Amounts(**{name: getattr(line, name) for name in (*COST_NAMES, "charged_micros")}),
                )
                for line in lines
            ),
        )
        post(connection, reversal(posted, found.id, key=f"reversal:{self.seed}:{number}"))


def reversal(posted: Transaction, transaction_id: int, *, key: str) -> Transaction:
    """Return what undoes a posted transaction, line by line: what an operator may have posted by hand."""
    return Transaction(
        key=key,
        kind=TransactionKind.REVERSAL,
        category=posted.category,
        period_start=posted.period_start,
        period_stop=posted.period_stop,
        currency=posted.currency,
        entries=tuple(
            Entry(
                account=entry.account,
                amounts=-entry.amounts,
                row_count=-entry.row_count,
                input_tokens=-entry.input_tokens,
                output_tokens=-entry.output_tokens,
            )
            for entry in posted.entries
        ),
        worker_id=posted.worker_id,
        pack_id=posted.pack_id,
        lease_token=posted.lease_token,
        reverses_id=transaction_id,
        method=posted.method,
        source=posted.source,
    )


def _json(labels: dict[str, str]) -> str:
    import json

    return json.dumps(labels)
