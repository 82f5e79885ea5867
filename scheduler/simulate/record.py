"""What happened in a simulation, and the figures that tell how good it was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from scheduler.prediction.pace import mean_absolute_percentage_error


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRecord:
    """One attempt at a pack; times are seconds since the simulation began."""

    pack_id: PackId
    pool: str
    worker: int
    tier: Tier
    #: When the cycle made it.
    packed_at: float
    from_seconds: float
    to_seconds: float
    predicted_seconds: float
    #: The worker was lost over it.
    is_lost: bool
    #: It ran every row of the pack, so that its seconds are those that were predicted.
    is_whole: bool
    #: Tenant, batch, and the worker-seconds it is charged for.
    shares: tuple[tuple[TenantId, BatchId, float], ...]
    #: Rows of each share that got a result in this attempt.
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """One batch, as it ended or stood at the end; times are seconds since the simulation began."""

    batch_id: BatchId
    tenant_id: TenantId
    tier: Tier
    rows: int
    rows_done: int
    arrived_at: float
    deadline_at: float
    started_at: float | None
    ended_at: float | None
    is_expired: bool
    promise: Promise

    @property
    def is_finished(self) -> bool:
        """Say whether every row got its result in time."""
        return self.ended_at is not None and not self.is_expired

    @property
    def is_promise_broken(self) -> bool:
        """Say whether the deadline was promised and passed with rows undone."""
        return self.is_expired and self.promise is Promise.MADE


@dataclass(slots=True)
class Record:
    """Everything that happened."""

    workers: dict[str, int]
    seconds: float = 0.0
    cycles: int = 0
    packs: list[PackRecord] = field(default_factory=list)
    batches: list[BatchRecord] = field(default_factory=list)

    @property
    def busy_seconds(self) -> float:
        """Return the worker-seconds in which a pack ran."""
        return sum(pack.to_seconds - pack.from_seconds for pack in self.packs)

    @property
    def utilisation(self) -> float:
        """Return the share of the workers' time in which a pack ran, from the first arrival to the last end."""
        if not self.packs:
            return 0.0
        first = min(batch.arrived_at for batch in self.batches)
        last = max(pack.to_seconds for pack in self.packs)
        return self.busy_seconds / (sum(self.workers.values()) * max(last - first, 1e-9))


@dataclass(frozen=True, slots=True, kw_only=True)
class TierFigures:
    """How the batches of one tier fared; durations in seconds, None where no batch got so far."""

    tier: Tier
    batches: int
    rows: int
    finished: int
    expired: int
    promised: int
    promises_broken: int
    wait_median: float | None
    turnaround_median: float | None
    turnaround_p95: float | None
    worker_seconds: float


def figures_of(record: Record) -> tuple[TierFigures, ...]:
    """Return the figures of each tier that had a batch."""
    seconds = dict.fromkeys(Tier, 0.0)
    for pack in record.packs:
        seconds[pack.tier] += pack.to_seconds - pack.from_seconds
    found = []
    for tier in Tier:
        batches = [batch for batch in record.batches if batch.tier is tier]
        if batches:
            found.append(_figures_of(tier, batches, seconds[tier]))
    return tuple(found)


def _figures_of(tier: Tier, batches: Sequence[BatchRecord], worker_seconds: float) -> TierFigures:
    waits = [batch.started_at - batch.arrived_at for batch in batches if batch.started_at is not None]
    turnarounds = [
        batch.ended_at - batch.arrived_at for batch in batches if batch.is_finished and batch.ended_at is not None
    ]
    return TierFigures(
        tier=tier,
        batches=len(batches),
        rows=sum(batch.rows for batch in batches),
        finished=sum(batch.is_finished for batch in batches),
        expired=sum(batch.is_expired for batch in batches),
        promised=sum(batch.promise is Promise.MADE for batch in batches),
        promises_broken=sum(batch.is_promise_broken for batch in batches),
        wait_median=quantile(waits, 0.5),
        turnaround_median=quantile(turnarounds, 0.5),
        turnaround_p95=quantile(turnarounds, 0.95),
        worker_seconds=worker_seconds,
    )


def quantile(values: Iterable[float], share: float) -> float | None:
    """Return the smallest value that this share of the values does not exceed; None where there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def jain_index(shares: Sequence[float]) -> float:
    """Return the fairness of normalized shares: 1 when equal, 1/n when one has all (R. Jain et al., 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def prediction_error(record: Record, *, after: int = 0) -> float | None:
    """Return the mean error in percent of the predicted seconds of whole packs, the first `after` left out."""
    whole = [pack for pack in record.packs if pack.is_whole][after:]
    return mean_absolute_percentage_error(
        (pack.predicted_seconds, pack.to_seconds - pack.from_seconds) for pack in whole
    )
