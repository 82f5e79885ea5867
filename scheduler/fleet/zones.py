"""One job over many zones: what there is to rent, what is known of it, and what a tick's plan is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.fleet.jobs import Job, Mode
from scheduler.fleet.survival import PoolHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """Where machines of the wanted kind may be rented, and their prices per hour."""

    name: str
    region: str
    spot_price: float
    on_demand_price: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """All zones a job may use, and what it costs to bring its data to another region."""

    zones: tuple[Zone, ...]
    #: By pair of regions, from and to; of pairs not named here, the default.
    egress_costs: Mapping[tuple[str, str], float] = field(default_factory=dict)
    egress_cost: float = 0.0
    #: Regions that hold model and data already: moving there costs nothing.
    present_regions: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse a market without zones, or with one twice."""
        names = [zone.name for zone in self.zones]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"zones are {names}; at least one is needed, and each once")

    def egress(self, held_in: str | None, region: str) -> float:
        """Return what bringing the data there costs; before the first start there is none to bring."""
        if held_in is None or held_in == region or region in self.present_regions:
            return 0.0
        return self.egress_costs.get((held_in, region), self.egress_cost)

    def zone(self, name: str) -> Zone:
        """Return the zone of this name."""
        return next(zone for zone in self.zones if zone.name == name)

    @property
    def cheapest_on_demand(self) -> Zone:
        """The zone whose machines on demand cost least."""
        return min(self.zones, key=lambda zone: (zone.on_demand_price, zone.name))

    def job(self, *, work_seconds: float, deadline_seconds: float, tick_seconds: float, startup_seconds: float) -> Job:
        """Return the job as if it had the cheapest zone of either kind for itself."""
        return Job(
            work_seconds=work_seconds,
            deadline_seconds=deadline_seconds,
            tick_seconds=tick_seconds,
            startup_seconds=startup_seconds,
            spot_price=min(zone.spot_price for zone in self.zones),
            on_demand_price=self.cheapest_on_demand.on_demand_price,
        )


@dataclass(frozen=True, slots=True)
class Option:
    """A machine to have: of a zone and a market, or none at all."""

    mode: Mode
    zone: str | None = None


IDLE = Option(Mode.IDLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is so as a tick begins, a machine that was lost being gone already."""

    tick: int
    work_left_seconds: float
    running: Option = IDLE
    startup_left_seconds: float = 0.0
    #: Region that the job's data is in; None before its first start.
    held_in: str | None = None
    #: Ticks that what runs has run.
    dwell_ticks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Options in order of preference: the first that can be had is taken, and what runs already always can.

    Probes are zones to start a machine in for a minute, to see whether there is any; a probe that fails costs nothing.
    """

    options: tuple[Option, ...]
    probes: tuple[str, ...] = ()


class ZonesPolicy(Protocol):
    """Decides where to run, tick by tick, and is told what came of it."""

    @property
    def name(self) -> str:
        """What the policy is called in settings and reports."""
        ...

    def plan(self, situation: Situation) -> Plan:
        """Return what to try in this tick."""
        ...

    def observe(self, zone: str, tick: int, *, is_available: bool) -> None:
        """Take in that spot was there in a zone at a tick, or was not."""
        ...


@dataclass(slots=True)
class Sightings:
    """What was last seen of a zone, and its history; zones are looked at now and then, and not at every tick."""

    history: PoolHistory = field(default_factory=PoolHistory)
    seen_tick: int | None = None
    is_available: bool = False
    #: Tick at which what was last seen is thought to have begun.
    since_tick: int = 0
    probed_tick: int | None = None

    def observe(self, tick: int, *, is_available: bool) -> None:
        """Take in a look. Between two looks that agree, nothing is thought to have changed; else it did half-way."""
        if self.seen_tick is not None and tick <= self.seen_tick:
            return
        if self.seen_tick is None:
            self.since_tick = tick
        elif is_available != self.is_available:
            self.since_tick = (self.seen_tick + tick + 1) // 2
        self.seen_tick, self.is_available = tick, is_available
        self.history.observe(is_available)

    def age_ticks(self, tick: int) -> int:
        """Return how old what was last seen would be, were it still so."""
        return max(1, tick - self.since_tick + 1)
