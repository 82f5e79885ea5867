"""What a simulation keeps of batches, packs and workers that are on their way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

from pipeline.domain.ids import BatchId
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.ports.cycle import Backlog, OpenShard, PackDraft, SliceDraft, WorkSize
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.fleet import Pool

#: In a second.
MICROSECONDS: Final = 1_000_000
#: Shards a snapshot carries of each batch, as the store's does.
_SHARDS_CARRIED: Final = 64


@dataclass(slots=True, eq=False)
class SimulatedBatch:
    """A batch on its way."""

    arrival: Arrival
    shards: list[OpenShard]
    promise: Promise = Promise.PENDING
    reason: Reason | None = None
    rows_packed: int = 0
    rows_done: int = 0
    #: First shard with a row in no pack.
    shard_at: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    is_expired: bool = False
    #: As the last snapshot had it; None once something changed.
    seen: Backlog | None = None

    @property
    def is_open(self) -> bool:
        """Say whether it has neither ended nor expired."""
        return self.ended_at is None

    def backlog(self) -> Backlog:
        """Return what the cycle sees of it."""
        if self.seen is None:
            arrival, whole = self.arrival, self.arrival.estimated
            left = 1 - self.rows_done / whole.rows
            hold = arrival.hold_until_seconds
            self.seen = Backlog(
                tenant_id=arrival.tenant_id,
                batch_id=arrival.batch_id,
                tier=arrival.tier,
                model=arrival.model,
                endpoint=arrival.endpoint,
                created_at_us=round(arrival.at_seconds * MICROSECONDS),
                deadline_at_us=round((arrival.at_seconds + arrival.window_seconds) * MICROSECONDS),
                promise=self.promise,
                hold_until_us=None if hold is None else round(hold * MICROSECONDS),
                is_paused=False,
                left=WorkSize(
                    rows=whole.rows - self.rows_done,
                    input_tokens=whole.input_tokens * left,
                    output_tokens=whole.output_tokens * left,
                ),
                spent_micros=0,
                budget_micros=None,
                shards=tuple(self.shards[self.shard_at : self.shard_at + _SHARDS_CARRIED]),
                rows_in_flight=self.rows_packed - self.rows_done,
                reason=self.reason,
            )
        return self.seen

    def estimated(self, rows: int) -> WorkSize:
        """Return so many of its rows as intake estimated them."""
        share, whole = rows / self.arrival.estimated.rows, self.arrival.estimated
        return WorkSize(rows=rows, input_tokens=whole.input_tokens * share, output_tokens=whole.output_tokens * share)

    def actual(self, rows: int) -> WorkSize:
        """Return so many of its rows as they are."""
        size = self.estimated(rows)
        return replace(size, output_tokens=size.output_tokens * self.arrival.output_ratio)


@dataclass(slots=True, eq=False)
class SimulatedPack:
    """A pack on its way."""

    draft: PackDraft
    #: Slices whose rows have no result yet.
    left: list[SliceDraft]
    packed_at: float
    done: dict[BatchId, int] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 0
    #: As it was leased with.
    ordinal: float = 0.0


@dataclass(slots=True, eq=False)
class SimulatedWorker:
    """A worker, and what it runs."""

    pool: Pool
    number: int
    is_here: bool = True
    pack: SimulatedPack | None = None
    began_at: float = 0.0
    ends_at: float = math.inf
    #: Tells an end that was planned from one that came to nothing.
    run_no: int = 0
