"""The fleet: what its decisions see and decide, and what starts and stops machines; plain values on both sides.

A pool is workers of one speed: packs wait for a pool. An offer is one way to rent a worker of it: a market in a place.
So packs that a spot worker leaves behind are leased by whatever worker the pool has next (docs/adr/0044).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from pipeline.domain.costs.prices import Market
from pipeline.domain.errors import NightrateError
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize

# --- what there is to do ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkClass:
    """Rows without a result, those in packs included, of one model and tier, that may start and are due together."""

    model: str
    tier: Tier
    deadline_at_us: int
    size: WorkSize
    is_promised: bool = False
    #: They need not start before this; 0: at once.
    from_us: int = 0
    #: Regions that they may run in; None: all.
    regions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedWork:
    """Rows that are forecast to arrive between two moments, each due `window_seconds` after its arrival."""

    model: str
    tier: Tier
    from_us: int
    to_us: int
    window_seconds: float
    #: By quantile, such as 0.5 and 0.9.
    sizes: Mapping[float, WorkSize]
    #: Regions that they may run in; None: all.
    regions: frozenset[str] | None = None

    def rest(self, now_us: int) -> ExpectedWork:
        """Return what is still to come of it: what should have come before is there, or did not come."""
        if now_us <= self.from_us:
            return self
        left = (self.to_us - now_us) / (self.to_us - self.from_us)
        sizes = {quantile: size.times(left) for quantile, size in self.sizes.items()}
        return replace(self, from_us=now_us, sizes=sizes)


# --- what it can be done with -------------------------------------------------------------------


class PaceSource(StrEnum):
    """Where a pace is known from."""

    MEASURED = "measured"
    #: Tokens per second of a table of machines and models.
    TABLED = "tabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPace:
    """What a worker of a pool takes for rows of a model, in seconds."""

    row_seconds: float = 0.0
    input_token_seconds: float = 0.0
    output_token_seconds: float = 0.0
    source: PaceSource = PaceSource.MEASURED

    def seconds(self, size: WorkSize) -> float:
        """Return the worker-seconds that so much work is."""
        return (
            size.rows * self.row_seconds
            + size.input_tokens * self.input_token_seconds
            + size.output_tokens * self.output_token_seconds
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferView:
    """One way to rent a worker of a pool, as it stands."""

    #: Unique; what plans, tables and metrics call it.
    offer: str
    pool: str
    market: Market
    provider: str | None = None
    instance_type: str | None = None
    region: str | None = None
    zone: str | None = None
    #: Of a running worker: what it costs us.
    rate_micros_per_hour: int = 0
    #: That a start is billed at least.
    minimum_seconds: float = 0.0
    #: A worker that the provider takes within its first so many seconds is not billed.
    free_if_taken_within_seconds: float = 0.0
    #: At once; None: no limit is known.
    workers_max: int | None = None
    #: It was refused: nothing is asked of it before this. 0: it may be asked.
    refused_until_us: int = 0
    #: Whether capacity was there when last seen, and since when it has been so. None: nobody has looked.
    is_available: bool | None = None
    available_since_us: int | None = None
    #: Mean seconds that a worker of this age-0 offer is expected to live (infinity: nobody takes it).
    lifetime_seconds: float = float("inf")
    #: What bringing models and data to a new worker costs; 0 where they are already.
    egress_micros: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolKind:
    """What the workers of a pool are, wherever they are rented."""

    pool: str
    offers: tuple[OfferView, ...]
    #: By model; what is not here cannot run in it.
    paces: Mapping[str, UnitPace]
    #: From the request until it works, as measured: boot and load.
    cold_start_seconds: float
    workers_min: int = 0
    #: At once, of all offers; None: no limit.
    workers_max: int | None = None
    #: Whose rows may run in it.
    tiers: frozenset[Tier] = frozenset(Tier)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStanding:
    """A live worker, or one that was asked for."""

    worker_id: WorkerId
    pool: str
    #: None: nobody of ours started it, and nobody of ours stops it.
    offer: str | None
    state: WorkerState
    #: When it was asked for, and when its machine began to be billed.
    requested_at_us: int
    launched_at_us: int | None = None
    #: When its machine must be gone, whatever happens.
    ends_by_us: int | None = None
    #: Since when it has run nothing; None: it runs something.
    idle_since_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """Everything one decision about the fleet is made on; immutable."""

    now_us: int
    work: tuple[WorkClass, ...]
    pools: tuple[PoolKind, ...]
    workers: tuple[WorkerStanding, ...]
    expected: tuple[ExpectedWork, ...] = ()
    #: What all workers may cost an hour at most; None: no limit.
    spend_micros_per_hour_max: int | None = None


# --- what is decided ----------------------------------------------------------------------------


class FleetReason(StrEnum):
    """Why machines are started or stopped, or are not."""

    #: Deadlines need them.
    DEADLINE = "deadline"
    #: What is forecast needs them by the time they work.
    FORECAST = "forecast"
    #: The pool keeps so many warm.
    WARM = "warm"
    #: Work that is not urgent is cheaper now than later.
    CHEAP = "cheap"
    #: On-demand workers for what spot cannot promise.
    FLOOR = "floor"
    #: Nothing to do, for longer than a new start would cost.
    IDLE = "idle"
    #: More than deadlines need; what is left gets done by the others.
    SURPLUS = "surplus"
    #: A cheaper or longer-lived offer takes its place.
    REPLACED = "replaced"
    #: Its machine's time is up.
    LIFETIME = "lifetime"
    #: Nothing is to be done.
    NO_WORK = "no_work"
    #: There is slack: waiting is cheaper.
    SLACK = "slack"
    #: More would be needed, but quotas, capacity or the spend limit end here.
    QUOTA = "quota"
    CAPACITY = "capacity"
    SPEND = "spend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Workers to ask an offer for."""

    offer: str
    count: int
    reason: FleetReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A worker that is to drain and leave; one that was only asked for is not launched any more."""

    worker_id: WorkerId
    reason: FleetReason


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStanding:
    """How many workers a pool is to have, and why no more and no fewer."""

    pool: str
    wanted: int
    reason: FleetReason
    #: Of them, those that must be on demand.
    on_demand_wanted: int = 0
    #: Predicted worker-seconds of the work that is placed there.
    work_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What was decided; every pool of the view has a standing."""

    starts: tuple[Start, ...] = ()
    stops: tuple[Stop, ...] = ()
    standings: tuple[PoolStanding, ...] = ()


class FleetPolicy(Protocol):
    """Decides how many workers each pool has, and where they are rented. May remember what it saw."""

    @property
    def name(self) -> str:
        """What settings and reports call it."""

    def decide(self, view: FleetView) -> FleetPlan:
        """Return what to start and stop now."""


# --- what does it -------------------------------------------------------------------------------


class ProviderUnavailableError(NightrateError):
    """A provider of machines cannot be asked now; a later try may succeed."""

    code = "provider_unavailable"
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A machine to start, that runs one worker."""

    #: Also the token that makes a repeated start the same start.
    worker_id: WorkerId
    pool: str
    offer: str
    market: Market
    #: When it must be gone, whatever becomes of us: what starts it builds this in.
    ends_by: datetime
    instance_type: str | None = None
    region: str | None = None
    zone: str | None = None
    #: Settings of the worker, as environment variables; secrets among them.
    environment: Mapping[str, str] = field(default_factory=dict)


class RefusalKind(StrEnum):
    """Why a machine was not started."""

    #: There is none of this kind there now.
    CAPACITY = "capacity"
    #: We may not have more.
    QUOTA = "quota"
    #: We asked too often, or were not understood for now: the same again, later.
    THROTTLED = "throttled"
    #: It will be refused until a person changes something.
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A machine that was started, now or by an earlier try of the same launch."""

    worker_id: WorkerId
    #: As its provider's bill names it.
    provider_id: str
    launched_at: datetime
    zone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A machine that was not started."""

    worker_id: WorkerId
    kind: RefusalKind
    #: In the provider's words.
    message: str


class MachineState(StrEnum):
    """What a provider says of a machine."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that is billed, or about to be, and carries our mark."""

    provider_id: str
    state: MachineState
    #: As its mark says; None: it carries our mark and no worker's.
    worker_id: WorkerId | None
    launched_at: datetime | None = None


class MachineProvider(Protocol):
    """Starts and stops machines somewhere: processes here, EC2, Kubernetes, two scripts.

    Every call may be repeated. What cannot be asked at all right now raises `ProviderUnavailableError`.
    """

    @property
    def name(self) -> str:
        """What settings and tables call it."""

    def start(self, launches: Sequence[Launch]) -> list[Launched | Refused]:
        """Start machines; answer for each, in order."""

    def stop(self, provider_ids: Sequence[str]) -> None:
        """Have these gone; those that are gone already are none of its business."""

    def machines(self) -> list[Machine]:
        """Return all machines with our mark that are not gone, those that nobody remembers included."""


@runtime_checkable
class SpotScorer(Protocol):
    """A provider that says how likely spot machines are to be had and kept: a first guess, and no promise."""

    def spot_scores(self, instance_types: Sequence[str]) -> Mapping[str, int]:
        """Return scores from 1 to 10 by zone, as offers may name it, or by region; 5 is neither good nor bad.

        Raises `ProviderUnavailableError`.
        """


# --- what a machine hears of its end ------------------------------------------------------------


class NoticeKind(StrEnum):
    """What a provider says of a machine's end before it comes."""

    #: It will be taken.
    INTERRUPTION = "interruption"
    #: It is likelier than others to be taken.
    REBALANCE = "rebalance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What was said."""

    kind: NoticeKind
    #: When the machine goes; None: nobody said.
    at: datetime | None = None


class Watcher(Protocol):
    """Listens for what is said of the machine it runs on."""

    def notice(self) -> Notice | None:
        """Return what was heard so far, an interruption before anything else; never waits."""

    def look(self) -> Notice | None:
        """Look once more before answering, for seconds at most: whether an end that has begun was the provider's."""

    def close(self) -> None:
        """Stop listening."""
