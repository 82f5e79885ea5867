"""A small world on a real Postgres: one tenant, batches without objects, and the repositories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, text

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import (
    DEFAULT_TENANT,
    BatchId,
    FileId,
    PackId,
    WorkerId,
    new_file_id,
    new_pack_id,
    new_part_id,
    new_worker_id,
)
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind
from pipeline.domain.ranges import Ranges, count_rows
from pipeline.domain.shares import TOKENS_ALIKE, UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Admitted, BatchClaim, ShardDraft, Submission
from pipeline.ports.cycle import CyclePlan, PackDraft, SliceDraft
from pipeline.ports.files import FileDraft
from pipeline.ports.objects import StoredObject
from pipeline.ports.packs import Interval, PackLease, PartDraft, ShardRows, WorkCommit, WorkerRegistration
from storage.batches import BatchRepository
from storage.cycles import CycleRepository, Leadership
from storage.database import Database
from storage.files import FileRepository
from storage.packs import PackRepository
from storage.workers import WorkerRepository

SHA = "0" * 64
LEASE = timedelta(seconds=30)


@dataclass(slots=True)
class World:
    """The repositories and shortcuts to fill them."""

    database: Database
    leadership: Leadership
    meters: dict[WorkerId, int] = field(default_factory=dict)

    @property
    def batches(self) -> BatchRepository:
        return BatchRepository(self.database, claim_for=LEASE)

    @property
    def files(self) -> FileRepository:
        return FileRepository(self.database)

    @property
    def packs(self) -> PackRepository:
        return PackRepository(self.database, lease_for=LEASE)

    @property
    def workers(self) -> WorkerRepository:
        return WorkerRepository(self.database, lease_for=LEASE)

    @property
    def cycles(self) -> CycleRepository:
        return CycleRepository(self.database, silence=LEASE)

    def file(self, *, sha256: str = SHA) -> FileId:
        file_id = new_file_id()
        stored = StoredObject(key=f"inputs/{file_id}", size_bytes=1, sha256=sha256)
        self.files.add(FileDraft(file_id=file_id, stored=stored, filename="x.jsonl"))
        return file_id

    def submission(
        self,
        *,
        window: str = "24h",
        tier: Tier = Tier.STANDARD,
        key: str | None = None,
        budget_micros: int | None = None,
    ) -> Submission:
        return Submission(
            tenant_id=DEFAULT_TENANT,
            input_file_id=self.file(),
            endpoint=Endpoint.CHAT_COMPLETIONS,
            completion_window=window,
            tier=tier,
            budget_micros=budget_micros,
            metadata=None,
            idempotency_key=key,
        )

    def submit(self, *, tier: Tier = Tier.STANDARD) -> BatchClaim:
        """Submit a batch and return the claim to take it in."""
        claim = self.batches.first_claim(self.batches.submit(self.submission(tier=tier)))
        assert claim is not None
        return claim

    def admit(self, *shard_rows: int, model: str = "echo", tier: Tier = Tier.STANDARD) -> BatchId:
        """Submit a batch with shards of so many rows, and admit it."""
        claim = self.submit(tier=tier)
        self.batches.admit(claim, admitted(claim.batch_id, *shard_rows, model=model))
        return claim.batch_id

    def shard_ids(self, batch_id: BatchId) -> list[int]:
        return list(self.scalars("SELECT id FROM shards WHERE batch_id = :id ORDER BY shard_no", id=batch_id))

    def pack(
        self, *rows: tuple[BatchId, int, int, int], ordinal: float = 0.0, unit_costs: UnitCosts = TOKENS_ALIKE
    ) -> PackId:
        """Dispatch one pack of (batch, shard id, start, stop) slices."""
        pack_id = new_pack_id()
        draft = PackDraft(
            pack_id=pack_id,
            pool="local",
            model="echo",
            variant="echo",
            endpoint=Endpoint.CHAT_COMPLETIONS,
            tier=Tier.STANDARD,
            ordinal=ordinal,
            predicted_seconds=1.0,
            slices=tuple(
                SliceDraft(batch_id=batch_id, shard_id=shard_id, row_start=start, row_stop=stop)
                for batch_id, shard_id, start, stop in rows
            ),
            unit_costs=unit_costs,
        )
        self.cycles.dispatch(self.leadership.epoch, CyclePlan(packs=(draft,), standings=()))
        return pack_id

    def worker(self, *, rate_micros_per_hour: int = 3_600_000, rates: Amounts | None = None) -> WorkerId:
        worker_id = new_worker_id()
        self.workers.register(
            WorkerRegistration(
                worker_id=worker_id,
                pool="local",
                market="on_demand",
                host="here",
                pid=1,
                variants={"echo": ""},
                rate_micros_per_hour=rate_micros_per_hour,
                currency="USD",
                rates=rates,
            )
        )
        self.meters[worker_id] = 0
        return worker_id

    def lease(self, worker_id: WorkerId) -> PackLease:
        lease = self.packs.lease(worker_id, pool="local", variants=["echo"])
        assert lease is not None
        return lease

    def span(self, worker_id: WorkerId, kind: IntervalKind, duration_us: int) -> Interval:
        start_us = self.meters[worker_id]
        self.meters[worker_id] += duration_us
        return Interval(kind=kind, start_us=start_us, stop_us=start_us + duration_us)

    def work(
        self,
        worker_id: WorkerId,
        lease: PackLease,
        *rows: tuple[BatchId, int, Ranges, int],
        duration_us: int = 1_000_000,
    ) -> WorkCommit:
        """Return a commit of (batch, shard id, ranges, tokens) parts; nothing is written yet."""
        parts = tuple(
            PartDraft(
                part_id=(part_id := new_part_id()),
                batch_id=batch_id,
                object_key=f"parts/{part_id}",
                sha256=SHA,
                size_bytes=1,
                shards=(
                    ShardRows(shard_id=shard_id, ranges=ranges, rows_succeeded=count_rows(ranges), rows_errored=0),
                ),
                input_tokens=tokens,
                output_tokens=0,
            )
            for batch_id, shard_id, ranges, tokens in rows
        )
        interval = self.span(worker_id, IntervalKind.WORK, duration_us)
        return WorkCommit(pack_id=lease.pack_id, lease_token=lease.lease_token, parts=parts, interval=interval)

    def finish_rows(self, batch_id: BatchId, worker_id: WorkerId) -> None:
        """Pack, run and commit every row of a batch of one shard."""
        (shard_id,) = self.shard_ids(batch_id)
        (rows,) = self.scalars("SELECT rows_total FROM shards WHERE id = :id", id=shard_id)
        assert isinstance(rows, int)
        self.pack((batch_id, shard_id, 0, rows))
        lease = self.lease(worker_id)
        self.packs.commit(worker_id, self.work(worker_id, lease, (batch_id, shard_id, ((0, rows),), 8)))
        self.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    def overdue(self, batch_id: BatchId) -> None:
        """Let the batch's completion window end now."""
        self.execute(
            "UPDATE batches SET created_at = now() - interval '2 h', deadline_at = now() - interval '1 h' WHERE id = :id",
            id=batch_id,
        )

    def advance(self) -> int:
        return self.cycles.advance_batches(self.leadership.epoch)

    def expire(self, pack_id: PackId) -> None:
        """Let the pack's lease run out now."""
        self.execute("UPDATE packs SET lease_expires_at = now() - interval '1 s' WHERE id = :id", id=pack_id)

    def execute(self, sql: str, **arguments: object) -> None:
        with self.database.transaction() as connection:
            connection.execute(text(sql), arguments)

    def rows(self, sql: str, **arguments: object) -> list[Row[Any]]:
        with self.database.transaction() as connection:
            return list(connection.execute(text(sql), arguments))

    def scalars(self, sql: str, **arguments: object) -> list[object]:
        with self.database.transaction() as connection:
            return list(connection.execute(text(sql), arguments).scalars())


def admitted(batch_id: BatchId, *shard_rows: int, model: str = "echo", rows_refused: int = 0) -> Admitted:
    """Return intake's outcome for shards of so many rows."""
    shards = tuple(
        ShardDraft(
            shard_no=number,
            model=model,
            object_key=f"{batch_id}/{number}",
            sha256=SHA,
            size_bytes=1,
            rows=rows,
            input_tokens=10 * rows,
            output_tokens=10 * rows,
        )
        for number, rows in enumerate(shard_rows)
    )
    return Admitted(
        rows_total=sum(shard_rows) + rows_refused,
        rows_duplicate=0,
        rows_refused=rows_refused,
        shards=shards,
        rosters=(),
        refusals=None,
    )


@contextmanager
def open_world(database_url: str) -> Iterator[World]:
    database = Database(database_url, away_seconds_max=5.0)
    leadership = Leadership.stand(database, "test")
    assert leadership is not None
    with leadership:
        yield World(database=database, leadership=leadership)
    database.close()
