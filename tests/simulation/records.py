"""What the model's tables hold. Sets of rows are integers: bit n is row n of the shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, PackId, PartId, TenantId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, PackState, WorkerState
from pipeline.domain.ranges import Ranges
from pipeline.domain.shares import UnitCosts

#: Shard id → rows.
Rows = dict[int, int]


@lru_cache(maxsize=8192)
def mask_of(ranges: Ranges) -> int:
    mask = 0
    for start, stop in ranges:
        mask |= ((1 << (stop - start)) - 1) << start
    return mask


@lru_cache(maxsize=8192)
def ranges_of_mask(mask: int) -> Ranges:
    found: list[tuple[int, int]] = []
    position = 0
    while mask:
        skipped = (mask & -mask).bit_length() - 1
        mask >>= skipped
        length = (~mask & (mask + 1)).bit_length() - 1
        found.append((position + skipped, position + skipped + length))
        mask >>= length
        position += skipped + length
    return tuple(found)


def count(rows: Rows) -> int:
    return sum(mask.bit_count() for mask in rows.values())


@dataclass(slots=True)
class Batch:
    batch_id: BatchId
    tenant_id: TenantId
    is_withdrawn: bool = False
    #: Its result files are made from the parts it has now.
    is_sealed: bool = False


@dataclass(slots=True)
class Shard:
    shard_id: int
    batch: Batch
    shard_no: int
    rows_total: int
    #: Rows with a committed part.
    done: int = 0
    rows_succeeded: int = 0
    rows_errored: int = 0


@dataclass(slots=True)
class Pack:
    pack_id: PackId
    pool: str
    model: str
    endpoint: Endpoint
    ordinal: float
    rows: Rows
    unit_costs: UnitCosts
    is_suspect: bool = False
    state: PackState = PackState.READY
    lease_token: int = 0
    lease_worker: WorkerId | None = None
    lease_expires_at: int = 0
    failures: int = 0
    #: Failed attempts that asked for one row only.
    lone_failures: int = 0
    #: Waits for the convictor.
    is_held: bool = False
    attempt: Attempt | None = None


@dataclass(slots=True)
class Attempt:
    pack_id: PackId
    lease_token: int
    worker_id: WorkerId | None
    #: The rows the lease asked for.
    asked: Rows
    outcome: AttemptOutcome | None = None


@dataclass(slots=True)
class Part:
    part_id: PartId
    batch_id: BatchId
    object_key: str
    sha256: str
    rows: Rows
    rows_errored: int
    worker_id: WorkerId | None
    #: Start of the worker's span that paid for it.
    start_us: int | None
    # What only an observer knows: whether the commit should have been refused.
    was_stale: bool
    was_sealed: bool


@dataclass(slots=True)
class Span:
    kind: IntervalKind
    start_us: int
    stop_us: int


@dataclass(slots=True)
class WorkerRecord:
    worker_id: WorkerId
    rate_micros_per_hour: int
    seen_at: int
    variants: tuple[str, ...] = ()
    state: WorkerState = WorkerState.BOOTING
    metered_until_us: int = 0
    #: Last uptime it reported.
    uptime_us: int = 0
    spans: list[Span] = field(default_factory=list)
    #: Sum of its ledger entries, kept by the observer.
    charged_micros: int = 0
    was_lost: bool = False
