"""Why things stand where they stand: the facts that are read for it, and the explanation made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pipeline.domain.gates import GateVerdict
from pipeline.domain.ids import BatchId, PackId, TenantId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, PackState, WorkerState
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView
from pipeline.ports.cycle import Learned, Snapshot


class Subject(StrEnum):
    """What can be explained."""

    BATCH = "batch"
    PACK = "pack"
    POOL = "pool"


# --- facts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """One live worker."""

    worker_id: WorkerId
    pool: str
    host: str
    state: WorkerState
    must_stop: bool
    variants: frozenset[str]
    started_at: datetime
    #: Since its last heartbeat.
    silent_seconds: float
    #: Packs it holds, and since when it has held the oldest of them.
    packs: int
    busy_since: datetime | None

    @property
    def takes_packs(self) -> bool:
        """Say whether it may lease anything new."""
        return not self.must_stop and self.state is not WorkerState.DRAINING and not self.state.is_terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A variant of a batch's model that live workers serve and the batch's tier may not run on."""

    variant: str
    pools: tuple[str, ...]
    #: The gate's last word for the tier; None: it was never asked.
    verdict: GateVerdict | None
    #: Tiers that may run on it.
    tiers: frozenset[Tier]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Packs in some state, together."""

    packs: int = 0
    #: Predicted worker-seconds.
    seconds: float = 0.0
    #: Since when the oldest has stood there; None where there is none.
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackLine:
    """One pack that waits or runs, as a list has it."""

    pack_id: PackId
    is_leased: bool
    #: Where it runs; None: it waits.
    host: str | None
    predicted_seconds: float
    #: Since when it runs or waits.
    since: datetime
    #: Attempts that came to nothing.
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFacts:
    """All that the explanation of a batch is made of."""

    view: BatchView
    reason_at: datetime | None
    waiting: Waiting
    leased: Waiting
    #: Hosts that its packs run on, each once.
    hosts: tuple[str, ...]
    #: Its packs that wait for another attempt, and what the last of them failed of.
    failed_packs: int
    last_error: str | None
    #: Variants that almost serve it.
    candidates: tuple[Candidate, ...]
    #: The first of its packs that run and wait.
    packs: tuple[PackLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackShare:
    """What one batch has in a pack."""

    batch_id: BatchId
    tenant_id: TenantId
    rows: int
    is_paused: bool
    is_live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    """One lease's run of a pack."""

    lease_token: int
    worker_id: WorkerId | None
    host: str | None
    started_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    error: str | None
    rows_asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFacts:
    """All that the explanation of a pack is made of."""

    pack_id: PackId
    pool: str
    model: str
    variant: str
    tier: Tier
    state: PackState
    predicted_seconds: float
    created_at: datetime
    available_at: datetime
    ended_at: datetime | None
    lease_expires_at: datetime | None
    worker_id: WorkerId | None
    is_suspect: bool
    is_convicted: bool
    failures: int
    unreads: int
    parent_id: PackId | None
    children: tuple[PackId, ...]
    shares: tuple[PackShare, ...]
    rows_done: int
    #: The oldest first.
    attempts: tuple[AttemptFacts, ...]
    #: Packs of its pool that workers lease before it.
    ahead: Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """All that the explanation of a pool is made of, beside what the scheduler sees of it."""

    pool: str
    #: The live ones.
    workers: tuple[WorkerFacts, ...]
    #: Packs that a live worker may lease now or soon, those that none of them serves, those that only paused batches have.
    waiting: Waiting
    stranded: Waiting
    paused: Waiting
    leased: Waiting
    #: Variants of the stranded packs.
    stranded_variants: tuple[str, ...]
    #: When its last pack ended, and its last worker; None: there was none.
    last_pack_at: datetime | None
    last_worker_at: datetime | None
    #: The first of its packs that run and wait; only of a pool that was asked for by name.
    packs: tuple[PackLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """What the scheduler sees and remembers, as one read found it."""

    now: datetime
    #: Whether a scheduler leads this moment, and who does or did last.
    has_leader: bool
    leader: str | None
    snapshot: Snapshot
    learned: tuple[Learned, ...]
    #: Pools with live workers or waiting packs, and those that lost their workers lately.
    pools: tuple[PoolFacts, ...]
    #: How long a worker may be silent before that is worth saying.
    silence_seconds: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A reason that a batch had, and since when."""

    reason: Reason
    decided_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One step of a history: what was so, since when, and until when (None: until now)."""

    what: str
    sentence: str
    since: datetime
    until: datetime | None


# --- the explanation ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that would change where the subject stands."""

    sentence: str
    #: What to type for it; None where there is nothing to type.
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why something stands where it stands, since when, and what would change it."""

    subject: Subject
    subject_id: str
    state: str
    #: A `Reason`, `PackReason` or `PoolReason`, or the batch's state where no reason applies.
    reason: str
    sentence: str
    since: datetime | None
    changes: tuple[Change, ...] = ()
    #: What else is worth knowing, by what it is about.
    notes: Mapping[str, str] = field(default_factory=dict)
    #: The numbers the sentences were made of; None: not known. Instants are aware datetimes.
    figures: Mapping[str, str | float | datetime | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """An explanation, when it was true, and what came before it."""

    now: datetime
    explanation: Explanation
    #: The first of its packs that run and wait.
    packs: tuple[PackLine, ...] = ()
    history: tuple[Past, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewExplained:
    """Every pool, and the batches that have not ended, the worst first."""

    now: datetime
    has_leader: bool
    leader: str | None
    pools: tuple[Explanation, ...]
    batches: tuple[Explanation, ...]
    #: All that have not ended, those that are not listed included.
    batches_total: int
