"""Postgres against the model: one random sequence of operations, and both must agree after each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy import Row, text

from pipeline.domain.ids import BatchId, PackId, PartId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.ranges import count_rows
from pipeline.ports.cycle import CyclePlan, PackDraft
from pipeline.ports.packs import PartDraft, ShardRows, WorkCommit
from storage.cycles import CycleRepository
from storage.multiranges import from_value
from storage.packs import PackRepository
from storage.workers import WorkerRepository
from tests.simulation.conformance import Observation, Setup, check_pack_store
from tests.simulation.worlds import Piece
from tests.storage.world import SHA, World

SEEDS = range(20)
#: Nothing expires and nobody falls silent by itself.
LONG = timedelta(hours=1)

_PACKS = """
    SELECT packs.id, ordinal, lease_token, failures, is_suspect, lease_worker_id,
           CASE WHEN is_convicted AND state IN ('ready', 'retryable') THEN 'convicted' ELSE state END AS shown
      FROM packs ORDER BY packs.id
"""
_SLICES = """
    SELECT pack_id, slices.batch_id, shard_no, rows FROM pack_slices AS slices
      JOIN packs ON packs.id = pack_id JOIN shards ON shards.id = shard_id WHERE state <> 'discarded'
"""
_SHARDS = "SELECT batch_id, shard_no, rows_succeeded, rows_errored FROM shards"
_LEDGER = "SELECT worker_id, start_us, account, amount_micros FROM accruals WHERE amount_micros > 0"
_SPANS = "SELECT worker_id, start_us, stop_us, kind FROM worker_intervals"
_WORKERS = "SELECT id, state, metered_until_us FROM workers"


class PostgresWorld:
    """The repositories on one database, empty when the world begins."""

    def __init__(self, world: World, setup: Setup) -> None:
        self._world = world
        self._ids = {name: world.admit(*shards) for name, shards in setup.batches.items()}
        self._names = {batch_id: name for name, batch_id in self._ids.items()}
        self._shards = {name: world.shard_ids(batch_id) for name, batch_id in self._ids.items()}
        self._part_numbers = count()
        self.packs = PackRepository(world.database, lease_for=LONG)
        self.workers = WorkerRepository(world.database, lease_for=LONG)
        self._cycles = CycleRepository(world.database, silence=LONG)

    def batch_id(self, name: str) -> BatchId:
        return self._ids[name]

    def batch_name(self, batch_id: BatchId) -> str:
        return self._names[batch_id]

    def shard_id(self, name: str, shard_no: int) -> int:
        return self._shards[name][shard_no]

    def dispatch(self, packs: Sequence[PackDraft]) -> None:
        self._cycles.dispatch(self._world.leadership.epoch, CyclePlan(packs=tuple(packs), standings=()))

    def expire(self, pack_id: PackId) -> None:
        self._world.execute(
            "UPDATE packs SET lease_expires_at = now() - interval '1 s' WHERE id = :id AND state = 'leased'", id=pack_id
        )

    def silence(self, worker_id: WorkerId) -> None:
        self._world.execute("UPDATE workers SET heartbeat_at = now() - interval '2 h' WHERE id = :id", id=worker_id)

    def rescue(self) -> None:
        self._cycles.rescue(self._world.leadership.epoch)

    def withdraw(self, batch_id: BatchId) -> None:
        self._world.batches.cancel(batch_id)
        # Not advance_batches: it would end the batches that are done, and the driver knows of no end.
        self._cycles._tidy(self._world.leadership.epoch)

    def convict(self) -> None:
        while (found := self.packs.lease_convicted()) is not None:
            lease = found.lease
            parts = tuple(
                PartDraft(
                    part_id=(part_id := PartId(f"convicted_{next(self._part_numbers)}")),
                    batch_id=piece.batch_id,
                    object_key=f"parts/{part_id}",
                    sha256=SHA,
                    size_bytes=1,
                    shards=(
                        ShardRows(
                            shard_id=piece.shard_id,
                            ranges=piece.ranges,
                            rows_succeeded=0,
                            rows_errored=count_rows(piece.ranges),
                        ),
                    ),
                    input_tokens=0,
                    output_tokens=0,
                )
                for piece in lease.slices
            )
            commit = WorkCommit(pack_id=lease.pack_id, lease_token=lease.lease_token, parts=parts, interval=None)
            self.packs.commit(None, commit)
            self.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    def observe(self) -> Observation:
        with self._world.database.transaction() as connection:
            # A failed pack rests before its next attempt; the driver's time stands still.
            connection.execute(text("UPDATE packs SET available_at = now() WHERE available_at > now()"))
            packs, slices, shards, ledger, spans, workers = (
                connection.execute(text(sql)).all() for sql in (_PACKS, _SLICES, _SHARDS, _LEDGER, _SPANS, _WORKERS)
            )
        pieces: dict[str, list[Piece]] = {}
        for row in slices:
            piece = (self._names[row.batch_id], row.shard_no, from_value(row.rows))
            pieces.setdefault(row.pack_id, []).append(piece)
        return Observation(
            packs=tuple(sorted((_pack_seen(row, pieces.get(row.id, [])) for row in packs), key=repr)),
            shards=tuple(sorted((self._names[batch], *rest) for batch, *rest in shards)),
            ledger=tuple(
                sorted(
                    (worker, start_us, self._names.get(account, account), int(micros))
                    for worker, start_us, account, micros in ledger
                )
            ),
            spans=tuple(sorted(tuple(row) for row in spans)),
            workers=tuple(sorted(tuple(row) for row in workers)),
        )


def _pack_seen(row: Row, pieces: list[Piece]) -> tuple[float, str, tuple[Piece, ...], int, int, bool, str | None]:
    return (
        row.ordinal,
        row.shown,
        tuple(sorted(pieces)),
        row.lease_token,
        row.failures,
        row.is_suspect,
        row.lease_worker_id,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_postgres_keeps_the_protocol_of_the_model(world: World, seed: int) -> None:
    check_pack_store(lambda setup: PostgresWorld(world, setup), seed)
