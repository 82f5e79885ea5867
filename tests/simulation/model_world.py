"""The model as a world of the conformance driver."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from pipeline.domain.ids import BatchId, PackId, PartId, TenantId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, PackState
from pipeline.domain.ranges import count_rows
from pipeline.ports.cycle import PackDraft
from pipeline.ports.packs import PackStore, PartDraft, ShardRows, WorkCommit, WorkerStore
from tests.simulation.layers import REAL, Layers
from tests.simulation.records import Pack, Rows, ranges_of_mask
from tests.simulation.rescuing import SchedulerStore
from tests.simulation.worlds import Observation, Piece

_TENANT: Final = TenantId("tnt_default")


class _Guided(SchedulerStore):
    """A model that follows another's choice between packs of one ordinal."""

    #: What the other one leased, in the model's shard ids.
    preferred: Rows | None = None

    def first_waiting(self, pool: str, variants: Collection[str]) -> Pack | None:
        first = super().first_waiting(pool, variants)
        if first is None:
            return None
        for pack in self.packs.values():
            is_waiting = pack.state in {PackState.READY, PackState.RETRYABLE} and not pack.is_held
            if is_waiting and pack.ordinal == first.ordinal and self.rows_left(pack.rows) == self.preferred:
                return pack
        return first


class ModelWorld:
    """`World` around a `ModelStore`; its clock stands at 0."""

    def __init__(self, batches: Mapping[str, tuple[int, ...]], layers: Layers = REAL) -> None:
        self._store = _Guided(layers)
        self._shards: dict[tuple[str, int], int] = {}
        for name, shards in batches.items():
            self._store.add_batch(_TENANT, BatchId(name))
            for shard_no, rows in enumerate(shards):
                shard_id = self._shards[name, shard_no] = len(self._shards) + 1
                self._store.add_shard(shard_id, BatchId(name), shard_no, rows)

    @property
    def packs(self) -> PackStore:
        return self._store

    @property
    def workers(self) -> WorkerStore:
        return self._store

    def batch_id(self, name: str) -> BatchId:
        return BatchId(name)

    def batch_name(self, batch_id: BatchId) -> str:
        return batch_id

    def shard_id(self, name: str, shard_no: int) -> int:
        return self._shards[name, shard_no]

    def prefer(self, pieces: Sequence[Piece] | None) -> None:
        """Lease these rows next, if they are a right choice."""
        self._store.preferred = None
        if pieces is not None:
            self._store.preferred = {
                self._shards[name, shard_no]: sum((1 << stop) - (1 << start) for start, stop in ranges)
                for name, shard_no, ranges in pieces
            }

    def dispatch(self, packs: Sequence[PackDraft]) -> None:
        for pack in packs:
            self._store.dispatch(pack)

    def expire(self, pack_id: PackId) -> None:
        self._store.packs[pack_id].lease_expires_at = -1

    def silence(self, worker_id: WorkerId) -> None:
        self._store.workers[worker_id].seen_at = -self._store.silence_us - 1

    def rescue(self) -> None:
        self._store.rescue(0)

    def withdraw(self, batch_id: BatchId) -> None:
        self._store.withdraw(batch_id)

    def convict(self) -> None:
        store = self._store
        for pack_id in store.held():
            lease = store.lease_held(pack_id)
            assert lease is not None
            piece = lease.slices[0]
            rows = ShardRows(
                shard_id=piece.shard_id, ranges=piece.ranges, rows_succeeded=0, rows_errored=count_rows(piece.ranges)
            )
            part = PartDraft(
                part_id=PartId(f"part_{pack_id}_{lease.lease_token}"),
                batch_id=piece.batch_id,
                object_key=f"parts/{pack_id}-{lease.lease_token}",
                sha256="0" * 64,
                size_bytes=1,
                shards=(rows,),
                input_tokens=0,
                output_tokens=0,
            )
            commit = WorkCommit(pack_id=pack_id, lease_token=lease.lease_token, parts=(part,), interval=None)
            store.commit(None, commit)
            store.finish(pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    def observe(self) -> Observation:
        store = self._store
        return Observation(
            packs=tuple(sorted(map(self._pack_seen, store.packs.values()), key=repr)),
            shards=tuple(
                (shard.batch.batch_id, shard.shard_no, shard.rows_succeeded, shard.rows_errored)
                for shard in store.shards.values()
            ),
            ledger=tuple(
                sorted(
                    (worker_id, start_us, account, micros)
                    for (worker_id, start_us, account, _), micros in store.ledger.items()
                    if micros
                )
            ),
            spans=tuple(
                sorted(
                    (worker.worker_id, span.start_us, span.stop_us, span.kind.value)
                    for worker in store.workers.values()
                    for span in worker.spans
                )
            ),
            workers=tuple(
                sorted((one.worker_id, one.state.value, one.metered_until_us) for one in store.workers.values())
            ),
        )

    def _pack_seen(self, pack: Pack) -> tuple[float, str, tuple[Piece, ...], int, int, bool, str | None]:
        shards = self._store.shards
        pieces: tuple[Piece, ...] = ()
        if pack.state is not PackState.DISCARDED:
            pieces = tuple(
                sorted(
                    (shards[shard_id].batch.batch_id, shards[shard_id].shard_no, ranges_of_mask(mask))
                    for shard_id, mask in pack.rows.items()
                )
            )
        state = "convicted" if pack.is_held else pack.state.value
        return pack.ordinal, state, pieces, pack.lease_token, pack.failures, pack.is_suspect, pack.lease_worker
