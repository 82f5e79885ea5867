"""What became of a fleet in a simulation, and the figures that tell how good its policy was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.domain.costs.prices import Market
from pipeline.domain.lifecycle import IntervalKind, WorkerEnd
from pipeline.domain.tiers import Tier
from scheduler.simulate.machines import MINIMUM, ROUNDING, MachineRecord
from scheduler.simulate.record import Record

_MICROS: Final = 1_000_000
_HOUR: Final = 3600
#: Waste as people ask for it, by the kinds of time and of charges that it consists of.
WASTES: Final[Mapping[str, tuple[str, ...]]] = {
    "start": (IntervalKind.BOOT, IntervalKind.LOAD),
    "idle": (IntervalKind.IDLE,),
    "drain": (IntervalKind.DRAIN,),
    "lost": (IntervalKind.PREEMPTED, IntervalKind.LOST),
    "minimum": (MINIMUM, ROUNDING),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A look at what waits."""

    at: float
    #: Predicted worker-seconds of rows without a result, by tier.
    backlog_seconds: Mapping[str, float]


@dataclass(slots=True, kw_only=True)
class FleetRecord:
    """Everything that happened to machines."""

    policy: str
    record: Record
    seconds: float = 0.0
    machines: list[MachineRecord] = field(default_factory=list)
    #: By reason, and refused ones by offer.
    starts: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFigures:
    """A policy's figures; money in units of the currency, times in hours."""

    policy: str
    cost: float
    cost_by_market: Mapping[str, float]
    #: What the same hours would have cost on demand, at list price.
    on_demand_cost: float
    batches: int
    missed: int
    missed_by_tier: Mapping[str, int]
    promises: int
    promises_broken: int
    #: Share of the workers' time in which rows ran that were not lost.
    utilisation: float
    worker_hours: float
    work_hours: float
    spot_share: float
    waste_hours: Mapping[str, float]
    waste_cost: Mapping[str, float]
    starts: int
    refusals: int
    interruptions: int
    peak_workers: int

    @property
    def waste_share(self) -> float:
        """Return which share of the cost was for no work."""
        return sum(self.waste_cost.values()) / self.cost if self.cost else 0.0


def figures_of(fleet: FleetRecord) -> FleetFigures:
    """Return the figures of a run."""
    machines = fleet.machines
    kinds: Counter[str] = Counter()
    money: Counter[str] = Counter()
    for machine in machines:
        for kind, seconds in machine.seconds_by_kind().items():
            kinds[kind.value] += seconds  # type: ignore[assignment]
        money.update(machine.costs)
    seconds = sum(machine.seconds for machine in machines)
    spot_seconds = sum(machine.seconds for machine in machines if machine.market is Market.SPOT)
    batches = fleet.record.batches
    return FleetFigures(
        policy=fleet.policy,
        cost=sum(money.values()) / _MICROS,
        cost_by_market={
            market.value: sum(each.billed_micros for each in machines if each.market is market) / _MICROS
            for market in (Market.ON_DEMAND, Market.SPOT)
        },
        on_demand_cost=sum(each.on_demand_micros for each in machines) / _MICROS,
        batches=len(batches),
        missed=sum(batch.is_expired for batch in batches),
        missed_by_tier={tier.value: sum(batch.is_expired for batch in batches if batch.tier is tier) for tier in Tier},
        promises=sum(batch.promise.value == "made" for batch in batches),
        promises_broken=sum(batch.is_promise_broken for batch in batches),
        utilisation=kinds[IntervalKind.WORK.value] / seconds if seconds else 0.0,
        worker_hours=seconds / _HOUR,
        work_hours=kinds[IntervalKind.WORK.value] / _HOUR,
        spot_share=spot_seconds / seconds if seconds else 0.0,
        waste_hours={
            name: sum(kinds[kind] for kind in each) / _HOUR for name, each in WASTES.items() if name != "minimum"
        },
        waste_cost={name: sum(money[kind] for kind in each) / _MICROS for name, each in WASTES.items()},
        starts=len(machines),
        refusals=sum(fleet.refusals.values()),
        interruptions=sum(machine.end is WorkerEnd.INTERRUPTED for machine in machines),
        peak_workers=peak_of(machines),
    )


def peak_of(machines: Sequence[MachineRecord]) -> int:
    """Return how many machines there were at once, at most."""
    steps = sorted(
        [(each.launched_at, 1) for each in machines] + [(each.ended_at, -1) for each in machines],
    )
    live = peak = 0
    for _, step in steps:
        live += step
        peak = max(peak, live)
    return peak
