"""Machines of a simulated fleet: from request to end, each second of a kind, and the bill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.domain.costs.billing import Bill, Life
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import RateStep
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import IntervalKind, WorkerEnd, WorkerState
from scheduler.simulate.scene import Offering
from scheduler.simulate.state import MICROSECONDS, SimulatedWorker

#: Kinds of time in which a worker did not do what will be paid for.
WASTE: Final = tuple(kind for kind in IntervalKind if kind is not IntervalKind.WORK)


@dataclass(frozen=True, slots=True)
class Span:
    """Time of one kind; seconds since the simulation began."""

    kind: IntervalKind
    from_seconds: float
    to_seconds: float


@dataclass(slots=True, eq=False)
class SimulatedMachine:
    """A machine that is on its way."""

    worker_id: WorkerId
    offering: Offering
    launched_at: float
    #: When it must be gone.
    ends_by: float
    state: WorkerState = WorkerState.BOOTING
    worker: SimulatedWorker | None = None
    idle_since: float | None = None
    #: Its provider said that it will take it.
    is_noticed: bool = False
    spans: list[Span] = field(default_factory=list)
    kind: IntervalKind = IntervalKind.BOOT
    kind_since: float = 0.0

    def __post_init__(self) -> None:
        """Begin to boot."""
        self.kind_since = self.launched_at

    def become(self, kind: IntervalKind, now: float, *, lost_seconds: float = 0.0) -> None:
        """Close the time that went by; of work the last `lost_seconds` came to nothing."""
        if kind is self.kind and not lost_seconds:
            return
        self._close(now, lost_seconds)
        self.kind, self.kind_since = kind, now

    def end(self, now: float) -> None:
        """Close the time up to the machine's end."""
        self._close(now, 0.0)

    def _close(self, now: float, lost_seconds: float) -> None:
        began, parted = self.kind_since, now - lost_seconds
        if lost_seconds and parted > began:
            self.spans.append(Span(self.kind, began, parted))
            began = parted
        if now > began:
            self.spans.append(Span(IntervalKind.PREEMPTED if lost_seconds else self.kind, began, now))


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRecord:
    """A machine that is gone: its life and what it cost."""

    worker_id: WorkerId
    pool: str
    offer: str
    market: Market
    launched_at: float
    ended_at: float
    end: WorkerEnd
    spans: tuple[Span, ...]
    #: Micro-units billed, by what the time was spent on, and for what was not used.
    costs: Mapping[str, int]
    #: What the same would have cost on demand.
    on_demand_micros: int

    @property
    def seconds(self) -> float:
        """Return how long it was had."""
        return self.ended_at - self.launched_at

    @property
    def billed_micros(self) -> int:
        """Return its bill."""
        return sum(self.costs.values())

    def seconds_by_kind(self) -> dict[IntervalKind, float]:
        """Return its time by what it was spent on."""
        found: dict[IntervalKind, float] = defaultdict(float)
        for span in self.spans:
            found[span.kind] += span.to_seconds - span.from_seconds
        return dict(found)


#: What of a bill is no kind of time.
ROUNDING: Final = "rounding"
MINIMUM: Final = "minimum"


def record_of(machine: SimulatedMachine, now: float, end: WorkerEnd) -> MachineRecord:
    """Return what became of a machine that ends now."""
    machine.end(now)
    offering = machine.offering
    life = Life(
        length_us=_micros(now - machine.launched_at),
        market=offering.market,
        was_interrupted=end is WorkerEnd.INTERRUPTED,
    )
    bill = Bill(life, [RateStep(from_us=0, rates=offering.rates)], offering.rule)
    costs: dict[str, int] = defaultdict(int)
    before = 0
    for span in machine.spans:
        # Spans follow one another without a gap, from the start to the end.
        after = bill.until(_micros(span.to_seconds - machine.launched_at)).billed_micros
        costs[span.kind.value] += after - before
        before = after
    rounded = bill.until(max(life.length_us, offering.rule.rounded_us(life.length_us))).billed_micros
    total = bill.total
    costs[ROUNDING] += rounded - before
    costs[MINIMUM] += total.billed_micros - rounded
    return MachineRecord(
        worker_id=machine.worker_id,
        pool=offering.pool,
        offer=offering.name,
        market=offering.market,
        launched_at=machine.launched_at,
        ended_at=now,
        end=end,
        spans=tuple(machine.spans),
        costs=dict(costs),
        on_demand_micros=total.on_demand_micros,
    )


def _micros(seconds: float) -> int:
    return round(seconds * MICROSECONDS)
