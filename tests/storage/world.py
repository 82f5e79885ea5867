"""A small world on a real Postgres: one tenant, batches without objects, and the repositories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import (
    DEFAULT_TENANT,
    BatchId,
    PackId,
    WorkerId,
    new_file_id,
    new_pack_id,
    new_part_id,
    new_worker_id,
)
from pipeline.domain.lifecycle import IntervalKind
from pipeline.domain.ranges import Ranges, count_rows
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Admitted, BatchClaim, ShardDraft, Submission
from pipeline.ports.cycle import CyclePlan, PackDraft, SliceDraft
from pipeline.ports.objects import StoredObject
from pipeline.ports.packs import Interval, PackLease, PartDraft, ShardRows, WorkCommit, WorkerRegistration
from storage.batches import BatchRepository
from storage.cycles import CycleRepository, Leadership
from storage.database import Database
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
    def packs(self) -> PackRepository:
        return PackRepository(self.database, lease_for=LEASE)

    @property
    def workers(self) -> WorkerRepository:
        return WorkerRepository(self.database, lease_for=LEASE)

    @property
    def cycles(self) -> CycleRepository:
        return CycleRepository(self.database, silence=LEASE)

    def submit(self, *, window: str = "24h", tier: Tier = Tier.STANDARD, key: str | None = None) -> BatchClaim:
        """Submit a batch and return the claim to take it in."""
        file_id = new_file_id()
        stored = StoredObject(key=f"inputs/{file_id}", size_bytes=1, sha256=SHA)
        self.batches.add_file(DEFAULT_TENANT, stored, file_id=file_id, filename="x.jsonl")
        view = self.batches.submit(
            Submission(
                tenant_id=DEFAULT_TENANT,
                input_file_id=file_id,
                endpoint=Endpoint.CHAT_COMPLETIONS,
                completion_window=window,
                tier=tier,
                budget_micros=None,
                metadata=None,
                idempotency_key=key,
            )
        )
        claim = self.batches.first_claim(view)
        assert claim is not None
        return claim

    def admit(self, *shard_rows: int, model: str = "echo", tier: Tier = Tier.STANDARD) -> BatchId:
        """Submit a batch with shards of so many rows, and admit it."""
        claim = self.submit(tier=tier)
        shards = tuple(
            ShardDraft(
                shard_no=number,
                model=model,
                object_key=f"{claim.batch_id}/{number}",
                sha256=SHA,
                size_bytes=1,
                rows=rows,
                input_tokens=10 * rows,
                output_tokens=10 * rows,
            )
            for number, rows in enumerate(shard_rows)
        )
        self.batches.admit(
            claim,
            Admitted(
                rows_total=sum(shard_rows), rows_duplicate=0, rows_refused=0, shards=shards, rosters=(), refusals=None
            ),
        )
        return claim.batch_id

    def shard_ids(self, batch_id: BatchId) -> list[int]:
        return list(self.scalars("SELECT id FROM shards WHERE batch_id = :id ORDER BY shard_no", id=batch_id))

    def pack(self, *rows: tuple[BatchId, int, int, int], ordinal: float = 0.0) -> PackId:
        """Dispatch one pack of (batch, shard id, start, stop) slices."""
        pack_id = new_pack_id()
        draft = PackDraft(
            pack_id=pack_id,
            pool="local",
            model="echo",
            endpoint=Endpoint.CHAT_COMPLETIONS,
            tier=Tier.STANDARD,
            ordinal=ordinal,
            predicted_seconds=1.0,
            slices=tuple(
                SliceDraft(batch_id=batch_id, shard_id=shard_id, row_start=start, row_stop=stop)
                for batch_id, shard_id, start, stop in rows
            ),
        )
        self.cycles.dispatch(self.leadership.epoch, CyclePlan(packs=(draft,), standings=()))
        return pack_id

    def worker(self, *, rate_micros_per_hour: int = 3_600_000) -> WorkerId:
        worker_id = new_worker_id()
        self.workers.register(
            WorkerRegistration(
                worker_id=worker_id,
                pool="local",
                market="on_demand",
                host="here",
                pid=1,
                models=("echo",),
                rate_micros_per_hour=rate_micros_per_hour,
                currency="USD",
            )
        )
        self.meters[worker_id] = 0
        return worker_id

    def lease(self, worker_id: WorkerId) -> PackLease:
        lease = self.packs.lease(worker_id, pool="local", models=["echo"])
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

    def expire(self, pack_id: PackId) -> None:
        """Let the pack's lease run out now."""
        self.execute("UPDATE packs SET lease_expires_at = now() - interval '1 s' WHERE id = :id", id=pack_id)

    def execute(self, sql: str, **arguments: object) -> None:
        with self.database.transaction() as connection:
            connection.execute(text(sql), arguments)

    def scalars(self, sql: str, **arguments: object) -> list[object]:
        with self.database.transaction() as connection:
            return list(connection.execute(text(sql), arguments).scalars())


@contextmanager
def open_world(database_url: str) -> Iterator[World]:
    database = Database(database_url, away_seconds_max=5.0)
    leadership = Leadership.stand(database, "test")
    assert leadership is not None
    with leadership:
        yield World(database=database, leadership=leadership)
    database.close()
