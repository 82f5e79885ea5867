"""Packs and commits as the driver draws them, in the ids of one world."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import PackId, PartId
from pipeline.domain.ranges import ranges_of
from pipeline.domain.shares import UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import PackDraft, SliceDraft
from pipeline.ports.packs import Interval, PackLease, PartDraft, ShardRows, WorkCommit
from tests.simulation.worlds import Piece, World


def pieces(world: World, lease: PackLease) -> tuple[Piece, ...]:
    """Return what the lease asks for, in the driver's names."""
    return tuple((world.batch_name(piece.batch_id), piece.shard_no, piece.ranges) for piece in lease.slices)


def lease_seen(world: World, lease: PackLease) -> tuple[object, ...]:
    """Return what two leases are compared by."""
    return lease.lease_token, lease.model, lease.endpoint, pieces(world, lease)


def draft(
    world: World, pack_id: PackId, pool: str, model: str, ordinal: float, rows: Sequence[tuple[str, int, int]]
) -> PackDraft:
    """Return a pack of these rows (batch name, shard number, row), in their order."""
    spans: dict[tuple[str, int], list[int]] = {}
    for name, shard_no, row in rows:
        spans.setdefault((name, shard_no), []).append(row)
    slices = tuple(
        SliceDraft(
            batch_id=world.batch_id(name),
            shard_id=world.shard_id(name, shard_no),
            row_start=found[0],
            row_stop=found[-1] + 1,
        )
        for (name, shard_no), found in spans.items()
    )
    return PackDraft(
        pack_id=pack_id,
        pool=pool,
        model=model,
        variant=model,
        endpoint=Endpoint.CHAT_COMPLETIONS,
        tier=Tier.STANDARD,
        ordinal=ordinal,
        predicted_seconds=1.0,
        slices=slices,
        unit_costs=UnitCosts(row_picoseconds=7, input_token_picoseconds=2, output_token_picoseconds=20),
    )


def work_commit(
    world: World, lease: PackLease, rows: Sequence[tuple[str, int, int]], span: Interval, unique: str
) -> WorkCommit:
    """Return a commit of these rows, one part for each batch."""
    by_batch: dict[str, list[tuple[int, int]]] = {}
    for name, shard_no, row in rows:
        by_batch.setdefault(name, []).append((shard_no, row))
    parts = tuple(_part(world, name, found, f"{unique}_{name}") for name, found in by_batch.items())
    return WorkCommit(pack_id=lease.pack_id, lease_token=lease.lease_token, parts=parts, interval=span)


def _part(world: World, name: str, rows: Sequence[tuple[int, int]], unique: str) -> PartDraft:
    by_shard: dict[int, list[int]] = {}
    for shard_no, row in rows:
        by_shard.setdefault(shard_no, []).append(row)
    shards = tuple(
        ShardRows(
            shard_id=world.shard_id(name, shard_no),
            ranges=ranges_of(found),
            rows_succeeded=len(found),
            rows_errored=0,
        )
        for shard_no, found in by_shard.items()
    )
    return PartDraft(
        part_id=PartId(f"part_{unique}"),
        batch_id=world.batch_id(name),
        object_key=f"parts/{unique}",
        sha256="0" * 64,
        size_bytes=1,
        shards=shards,
        input_tokens=3 * len(rows) + 1,
        # Batches differ in the length of their answers, so that it shows what a split goes by.
        output_tokens=len(rows) * (ord(name[-1]) % 5),
    )
