"""The ports a worker needs of the truth: leasing packs, committing parts, metering its life.

Each refusal is by fencing token. Durations of leases run on the database's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, PackId, PartId, TenantId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, WorkerEnd, WorkerState
from pipeline.domain.ranges import Ranges
from pipeline.domain.retry import Verdict
from pipeline.ports.meters import AttemptMeters


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedSlice:
    """Rows of one shard that the lease asks for; rows with a committed part are left out."""

    tenant_id: TenantId
    batch_id: BatchId
    shard_id: int
    shard_no: int
    object_key: str
    sha256: str
    ranges: Ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class PackLease:
    """A time-boxed exclusive right to run one pack."""

    pack_id: PackId
    #: Grows with each lease of the pack; every write names it.
    lease_token: int
    model: str
    #: What runs it: a variant of the model.
    variant: str
    endpoint: Endpoint
    slices: tuple[LeasedSlice, ...]
    #: An attempt at these rows has failed before. Such a pack is run alone, so that it alone is to blame.
    has_failed: bool = False
    #: How long the pack had been waiting for a lease, in microseconds.
    waited_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conviction:
    """A lease of rows to be errored, and what the last attempt at them that failed ended with."""

    lease: PackLease
    outcome: AttemptOutcome
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """Which rows of one shard a part holds."""

    shard_id: int
    ranges: Ranges
    rows_succeeded: int
    rows_errored: int
    #: What the rows took; nothing where no engine ran them.
    input_tokens: int = 0
    output_tokens: int = 0
    #: Output tokens of those that succeeded, as `pipeline.domain.sketches` tells them.
    output_lengths: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRow:
    """A row of a part that is to be judged by its variant's reference (`pipeline.domain.shadow`)."""

    shard_id: int
    position: int
    #: Which of the part's result lines, from 0.
    line_no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDraft:
    """A part that is in the object store and not yet committed; all rows belong to one batch."""

    part_id: PartId
    batch_id: BatchId
    object_key: str
    sha256: str
    size_bytes: int
    shards: tuple[ShardRows, ...]
    input_tokens: int
    output_tokens: int
    shadow_rows: tuple[ShadowRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A span of a worker's life, in microseconds since it started; spans follow without a gap."""

    kind: IntervalKind
    start_us: int
    stop_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCommit:
    """One commit: parts of one attempt, and the span of work they took."""

    pack_id: PackId
    lease_token: int
    parts: tuple[PartDraft, ...]
    #: Charged to the parts' batches as `pipeline.domain.shares` says; None when there is no worker to charge for.
    interval: Interval | None
    #: Of the variant that ran, where there are rows to be judged.
    gate_key: str = ""

    def works(self) -> dict[BatchId, tuple[int, int, int]]:
        """Return the rows, input tokens and output tokens of each batch."""
        works: dict[BatchId, tuple[int, int, int]] = {}
        for part in self.parts:
            rows, inputs, outputs = works.get(part.batch_id, (0, 0, 0))
            rows += sum(shard.rows_succeeded + shard.rows_errored for shard in part.shards)
            works[part.batch_id] = rows, inputs + part.input_tokens, outputs + part.output_tokens
        return works


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a heartbeat learned."""

    #: Packs whose lease is gone: another attempt owns them or soon will.
    lost: frozenset[PackId]
    #: Batches whose rows should not be started any more (cancelled or past their deadline).
    withdrawn: frozenset[BatchId]
    #: The worker itself is told to drain, or was already declared lost.
    must_stop: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRegistration:
    """Who a worker is and what its time costs."""

    worker_id: WorkerId
    pool: str
    market: str
    host: str
    pid: int
    #: The variants it serves, each with its gate key (see `pipeline.domain.gates`).
    variants: Mapping[str, str]
    rate_micros_per_hour: int
    currency: str
    #: What an hour costs seen otherwise; None: the same.
    rates: Amounts | None = None
    provider: str | None = None
    instance_type: str | None = None
    region: str | None = None
    zone: str | None = None
    #: The machine, as its provider bills it, such as `i-0123456789abcdef0`.
    provider_id: str | None = None

    def __post_init__(self) -> None:
        """Hold that there is one effective rate."""
        assert self.rates is None or self.rates.effective_micros == self.rate_micros_per_hour

    @property
    def hourly(self) -> Amounts:
        """Return what an hour costs, in micro-units per hour."""
        return self.rates or Amounts.cost(self.rate_micros_per_hour)


class PackStore(Protocol):
    """Leases and commits."""

    def lease(
        self,
        worker_id: WorkerId,
        *,
        pool: str,
        variants: Collection[str],
        in_company: bool = False,
        warm: Collection[str] = (),
    ) -> PackLease | None:
        """Lease the pool's first waiting pack of one of `variants`, or return None when none waits.

        One of the `warm` variants, which the worker has loaded, goes before others that are not far ahead of it.

        With `in_company`, because the worker holds another, none is returned either where that pack has
        failed before: such a one is run alone.
        """

    def commit(self, worker_id: WorkerId | None, commit: WorkCommit) -> None:
        """Record parts, counts, the worker's span and its charges in one transaction.

        Repeating a commit that succeeded changes nothing. Raises `LeaseLostError` when the token is
        no longer the pack's; then nothing was recorded.
        """

    def finish(
        self,
        pack_id: PackId,
        lease_token: int,
        outcome: AttemptOutcome,
        error: str | None = None,
        meters: AttemptMeters | None = None,
    ) -> Verdict:
        """End the attempt and say what became of the rows it left; raises `LeaseLostError` when late."""

    def meter(self, pack_id: PackId, lease_token: int, meters: AttemptMeters) -> None:
        """Record what an attempt used that another ended: its lease was lost."""


class WorkerStore(Protocol):
    """The record of workers and of their time."""

    def register(self, registration: WorkerRegistration) -> int:
        """Record a worker that has just started; return for how many microseconds its machine has been paid already.

        Repeating it changes nothing. Raises `ConflictError` where the worker was given up before it appeared.
        """

    def serve(self, worker_id: WorkerId, variants: Mapping[str, str]) -> None:
        """Record which variants the worker serves from now on."""

    def renew(self, worker_id: WorkerId, leases: Mapping[PackId, int], *, uptime_us: int) -> Renewal:
        """Prove the worker alive and extend its leases (pack → token)."""

    def meter(self, worker_id: WorkerId, interval: Interval) -> None:
        """Record a span that no batch pays for; repeating it changes nothing."""

    def enter(self, worker_id: WorkerId, state: WorkerState, *, end: WorkerEnd = WorkerEnd.STOPPED) -> None:
        """Move the worker along its states, where that ends it by `end`; a worker already declared lost stays lost."""
