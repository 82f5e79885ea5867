"""Random histories of workers, packs, crashes, preemptions, retries, prices, settlements, allocations and invoices."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from infra.invoices import cur
from infra.invoices.tables import sha256_of
from pipeline.app.allocating import Allocator
from pipeline.app.invoice_import import InvoiceFile, InvoiceImporter
from pipeline.app.settling import Settler
from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.bills import total_of
from pipeline.domain.costs.transactions import Overhead, SharingRule
from pipeline.domain.errors import LeaseLostError
from pipeline.domain.ids import BatchId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, WorkerEnd, WorkerState
from pipeline.ports.meters import AttemptMeters
from pipeline.ports.packs import PackLease
from storage.allocations import AllocationRepository
from storage.database import Database
from storage.settlements import SettlementRepository
from tests.infra.invoices.cur_file import line, write_csv
from tests.storage.bills import HOUR_US, SECOND_US, SteppedBills, Steps
from tests.storage.world import World

_ROWS = 12
_COSTS = ", ".join(f"sum({name})" for name in COST_NAMES)
_OVERHEADS = [kind for kind in IntervalKind if kind not in {IntervalKind.WORK, IntervalKind.LOST}]


class Twice(Database):
    """Applies what it is asked to twice now and then, as happens when the answer to a commit is lost."""

    chance: random.Random

    def run(self, work: Callable[[Connection], Any], *, is_look: bool = False, is_long: bool = False) -> Any:  # noqa: ANN401 -- as the original
        if not is_look and self.chance.random() < 0.3:
            super().run(work)
        return super().run(work, is_look=is_look, is_long=is_long)


@dataclass
class History:
    """One random history, and what must hold of it whatever happened."""

    world: World
    folder: Path
    seed: int
    bills: SteppedBills = field(default_factory=SteppedBills)
    alive: list[WorkerId] = field(default_factory=list)
    workers: list[WorkerId] = field(default_factory=list)
    leases: dict[WorkerId, PackLease] = field(default_factory=dict)
    done: dict[BatchId, int] = field(default_factory=dict)
    #: What was said, to be said again.
    messages: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.database = Twice(self.world.database.url)
        self.database.chance = random.Random(self.seed)
        self.settlements = SettlementRepository(self.database)
        self.rule = self.chance.choice([SharingRule.PROPORTIONAL, SharingRule.EVEN])

    def close(self) -> None:
        self.database.close()

    def run(self, steps: int) -> None:
        self.start()
        doings = [self.idle, self.work, self.work]
        seldom = [self.start, self.preempt, self.fail, self.crash, self.end, self.reprice, self.settle, self.share]
        seldom += [self.take_bill, self.again]
        for _ in range(steps):
            self.chance.choice([*doings, *doings, *seldom])()
        while self.alive:
            self.end()
        self.settle()
        self.share()

    def start(self) -> None:
        rates = Amounts(
            **{
                name: self.chance.randrange(10**10)
                for name in (
                    "list_micros",
                    "contracted_micros",
                    "effective_micros",
                    "billed_micros",
                    "on_demand_micros",
                )
            }
        )
        worker = self.world.worker(rates=rates, rate_micros_per_hour=rates.effective_micros)
        started = datetime.now(UTC) - timedelta(hours=self.chance.randrange(4, 30), seconds=self.chance.randrange(3600))
        self.world.execute(
            "UPDATE workers SET started_at = :at, provider = 'aws', provider_id = :machine, market = 'spot' WHERE id = :id",
            at=started,
            machine=f"i-{worker}",
            id=worker,
        )
        self.alive.append(worker)
        self.workers.append(worker)

    def idle(self) -> None:
        for worker in self.some():
            longest = self.chance.choice([SECOND_US, 100 * SECOND_US, HOUR_US])
            span = self.world.span(worker, self.chance.choice(_OVERHEADS), self.chance.randrange(1, longest))
            self.say(partial(self.world.workers.meter, worker, span))

    def work(self) -> None:
        for worker in self.some():
            lease = self.leases.get(worker) or self.lease(worker)
            rows = []
            for piece in lease.slices:
                start = self.done[piece.batch_id]
                stop = self.chance.randrange(start, _ROWS + 1)
                if stop > start:
                    rows.append((piece.batch_id, piece.shard_id, ((start, stop),), self.chance.randrange(500)))
                    self.done[piece.batch_id] = stop
            if rows:
                commit = self.world.work(worker, lease, *rows, duration_us=self.chance.randrange(1, 10**9))
                self.say(partial(self.world.packs.commit, worker, commit))
            if all(self.done[piece.batch_id] == _ROWS for piece in lease.slices):
                used = AttemptMeters(tokens_cached=self.chance.choice([None, 0, 7, 10**4]))
                self.world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED, None, used)
                del self.leases[worker]

    def lease(self, worker: WorkerId) -> PackLease:
        self.world.execute("UPDATE packs SET available_at = now() - interval '1 s' WHERE ended_at IS NULL")
        if not self.world.scalars("SELECT 1 FROM packs WHERE state IN ('ready', 'retryable')"):
            batches = [self.world.admit(_ROWS) for _ in range(self.chance.randrange(1, 3))]
            self.done |= dict.fromkeys(batches, 0)
            self.world.pack(*((batch, self.world.shard_ids(batch)[0], 0, _ROWS) for batch in batches))
        self.leases[worker] = self.world.lease(worker)
        return self.leases[worker]

    def hand_back(self, worker: WorkerId, outcome: AttemptOutcome, kind: IntervalKind) -> None:
        lease = self.leases.pop(worker, None)
        if lease is not None:
            self.world.packs.finish(lease.pack_id, lease.lease_token, outcome, "it did")
        span = self.world.span(worker, kind, self.chance.randrange(1, 10**8))
        self.say(partial(self.world.workers.meter, worker, span))

    def preempt(self) -> None:
        for worker in self.some():
            self.hand_back(worker, AttemptOutcome.PREEMPTED, IntervalKind.PREEMPTED)
            self.stop(worker, WorkerEnd.INTERRUPTED)

    def fail(self) -> None:
        for worker in self.some():
            if worker in self.leases and self.chance.random() < 0.3:
                # More failures than these would halve the pack.
                self.hand_back(worker, AttemptOutcome.PREEMPTED, IntervalKind.RETRIED)

    def crash(self) -> None:
        for worker in self.some():
            self.leases.pop(worker, None)
            self.world.execute(
                """UPDATE workers SET heartbeat_at = now() - interval '1 h', uptime_us = metered_until_us + :tail
                    WHERE id = :id""",
                tail=self.chance.randrange(10**8),
                id=worker,
            )
            self.world.cycles.rescue(self.world.leadership.epoch)
            self.alive.remove(worker)

    def end(self) -> None:
        for worker in self.some():
            self.hand_back(worker, AttemptOutcome.PREEMPTED, IntervalKind.DRAIN)
            self.stop(worker, WorkerEnd.STOPPED)

    def stop(self, worker: WorkerId, cause: WorkerEnd) -> None:
        for state in (WorkerState.READY, WorkerState.DRAINING, WorkerState.STOPPED):
            self.world.workers.enter(worker, state, end=cause)
        self.alive.remove(worker)

    def reprice(self) -> None:
        worker = self.chance.choice(self.workers)
        ages = sorted(self.chance.sample(range(1, 4 * HOUR_US), self.chance.randrange(3)))
        steps: Steps = [(age, tuple(self.chance.randrange(10**10) for _ in COST_NAMES)) for age in (0, *ages)]
        self.bills.change(worker, steps)

    def settle(self) -> None:
        settler = Settler(self.settlements, self.bills)
        while settler.run_once():
            pass
        for life in self.settlements.lives(self.workers):
            if self.chance.random() < 0.5:
                self.say(partial(settler.settle, life))

    def share(self) -> None:
        kinds = (Overhead.IDLE, Overhead.BOOT)
        self.say(Allocator(AllocationRepository(self.database), self.rule, kinds).run_once)

    def take_bill(self, *, of_all: bool = False) -> dict[WorkerId, int]:
        """Import an invoice made up for some workers; return what each was billed, in micro-units."""
        lines, billed = [], {}
        for life in self.settlements.lives(self.workers):
            if not (of_all or (life.is_over and self.chance.random() < 0.5)):
                continue
            # Every hour that it touches: one that ends after midnight is invoiced on both days.
            first = life.started_at.replace(minute=0, second=0, microsecond=0)
            hours = (life.stopped_at - first) // timedelta(hours=1) + 1
            billed[life.worker_id] = 0
            for hour in range(hours):
                micros = self.chance.randrange(10**9)
                billed[life.worker_id] += micros
                start = first + timedelta(hours=hour)
                lines.append(
                    line(
                        f"{micros // 10**6}.{micros % 10**6:06d}",
                        start=start,
                        resource=f"i-{life.worker_id}",
                        pricing_public_on_demand_cost=self.chance.choice(["", "1.25"]),
                    )
                )
        if not lines:
            return {}
        self.chance.shuffle(lines)
        lines.append(line(f"{self.chance.random():.9f}", kind="Tax", start=datetime.now(UTC)))
        path = write_csv(self.folder / f"{self.chance.randrange(10**9)}.csv", lines)
        file = InvoiceFile(paths=[path], provider=cur.PROVIDER, format=cur.FORMAT, lines=cur.lines, sha256=sha256_of)
        importer = InvoiceImporter(self.database, self.bills, "USD")
        self.say(partial(importer.run, file, within_percent=Decimal(1)))
        return billed

    def say(self, message: Callable[[], object]) -> None:
        self.messages.append(message)
        message()
        if self.chance.random() < 0.3:
            self.say_again(message)

    def again(self) -> None:
        # An invoice of before would, rightly, be another version of what came since.
        old = [each for each in self.messages if "run" not in str(getattr(each, "func", each))]
        if old:
            self.say_again(self.chance.choice(old))

    def say_again(self, message: Callable[[], object]) -> None:
        before = self.size()
        # Said too late it is refused, and nothing is recorded.
        with suppress(LeaseLostError):
            message()
        assert self.size() == before, f"a message said again was recorded again: {message}"

    def size(self) -> object:
        return self.world.rows("SELECT (SELECT count(*) FROM transactions), (SELECT count(*) FROM entries)")

    def some(self) -> list[WorkerId]:
        return [self.chance.choice(self.alive)] if self.alive else []

    def check(self) -> None:
        """Hold what must hold once all is settled and shared."""
        unbalanced = self.world.rows(f"""
            SELECT transaction_id FROM entries GROUP BY 1
            HAVING ({_COSTS}, sum(charged_micros)) IS DISTINCT FROM (0, 0, 0, 0, 0, 0)
        """)  # noqa: S608 -- names of columns
        assert not unbalanced
        for standing in self.settlements.standings():
            bill = total_of(self.bills.bill(standing.life), standing.life)
            assert standing.posted == bill, f"{standing.life} has {standing.posted}, its bill is {bill}"
        self.check_sides()
        self.check_shares()
        self.check_bills()

    def check_sides(self) -> None:
        """Debits are credits: batches and overhead together are what suppliers are owed."""
        (row,) = self.world.rows(f"""
            SELECT {_COSTS.replace(")", ") FILTER (WHERE account ~ '^(batch|overhead)')")},
                   {_COSTS.replace(")", ") FILTER (WHERE account LIKE 'supplier%')")} FROM entries
        """)  # noqa: S608 -- names of columns
        assert [int(each) for each in row[:5]] == [-int(each) for each in row[5:]]

    def check_shares(self) -> None:
        """Where batches ran, nothing is left of an ended hour's idle time."""
        left = self.world.rows(f"""
            SELECT hour, account, {_COSTS} FROM (
                SELECT date_trunc('hour', period_start, 'UTC') AS hour, entries.*,
                       bool_or(batch_id IS NOT NULL AND kind <> 'allocation')
                         OVER (PARTITION BY date_trunc('hour', period_start, 'UTC')) AS has_batches
                  FROM transactions JOIN entries ON transaction_id = transactions.id
                 WHERE category = 'compute' AND kind <> 'adjustment') AS hours
              JOIN allocation_hours USING (hour)
             WHERE has_batches AND account IN ('overhead:idle', 'overhead:boot')
             GROUP BY 1, 2 HAVING ({_COSTS}) IS DISTINCT FROM (0, 0, 0, 0, 0)
        """)  # noqa: S608 -- names of columns
        assert not left, f"not shared: {left}"

    def check_bills(self) -> None:
        """With all days invoiced, a worker's entries are its invoice; and the next invoice undoes the last."""
        for _ in range(2):
            billed = self.take_bill(of_all=True)
            for standing in self.settlements.standings():
                owed = standing.posted.billed_micros + standing.adjusted.billed_micros
                assert owed == billed[standing.life.worker_id], standing
        self.check_sides()
