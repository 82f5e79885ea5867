"""Small fleets to simulate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.domain.costs.prices import Market
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize
from pipeline.ports.fleet import FleetPlan, FleetPolicy, FleetReason, FleetView, Start, Stop
from scheduler.policy import Policy
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.capacity import Capacity
from scheduler.simulate.elastic import ElasticSimulation
from scheduler.simulate.fleet import Speed, Trouble
from scheduler.simulate.scene import Delay, ElasticPool, Offering, Scene

MODEL = "model"
#: A row takes a second.
SPEED = Speed(row_seconds=1.0, input_tokens_per_second=1e9, output_tokens_per_second=1e9)
#: What is assumed of a model that nobody has measured is right: two tokens a row, a second a row.
POLICY = Policy(pack_seconds_target=60.0, first_pack_seconds=60.0, pack_rows_min=1, default_tokens_per_second=2.0)


def batch(name: str, *, rows: int, at: float = 0.0, window: float = 86_400.0, tier: Tier = Tier.STANDARD) -> Arrival:
    return Arrival(
        batch_id=BatchId(name),
        tenant_id=TenantId("tnt_a"),
        tier=tier,
        model=MODEL,
        at_seconds=at,
        window_seconds=window,
        estimated=WorkSize(rows=rows, input_tokens=rows, output_tokens=rows),
    )


def offering(
    name: str,
    *,
    market: Market = Market.ON_DEMAND,
    price: float = 1.0,
    provider: str | None = "aws",
    capacity: Capacity | None = None,
    workers_max: int | None = None,
) -> Offering:
    return Offering(
        name=name,
        pool="pool",
        market=market,
        provider=provider,
        rate_micros_per_hour=round(price * 1_000_000),
        on_demand_micros_per_hour=3_000_000,
        capacity=capacity,
        workers_max=workers_max,
    )


def scene(*offerings: Offering, boot: float = 60.0, load: float = 60.0, **others: object) -> Scene:
    pool = ElasticPool(
        name="pool",
        offerings=offerings,
        speeds={MODEL: SPEED},
        boot=Delay(mean_seconds=boot, spread=0.0),
        load=Delay(mean_seconds=load, spread=0.0),
    )
    return Scene(pools=(pool,), trouble=Trouble(spread=0.0), cycle_seconds=1.0, **others)  # type: ignore[arg-type]


@dataclass
class Scripted:
    """Asks for workers at given moments, each time once, and stops whoever is said to go then."""

    starts: dict[float, tuple[str, int]]
    stops: dict[float, Callable[[FleetView], Sequence[Stop]]] = field(default_factory=dict)
    views: list[FleetView] = field(default_factory=list)
    name: str = "scripted"

    def decide(self, view: FleetView) -> FleetPlan:
        self.views.append(view)
        now = view.now_us / 1_000_000
        due = [at for at in self.starts if at <= now]
        started = [self.starts.pop(at) for at in due]
        stops = [stop for at in [at for at in self.stops if at <= now] for stop in self.stops.pop(at)(view)]
        return FleetPlan(
            starts=tuple(Start(offer=offer, count=count, reason=FleetReason.DEADLINE) for offer, count in started),
            stops=tuple(stops),
        )


def everybody(view: FleetView) -> list[Stop]:
    return [Stop(worker_id=worker.worker_id, reason=FleetReason.SURPLUS) for worker in view.workers]


def simulated(arrivals: Sequence[Arrival], where: Scene, policy: FleetPolicy, *, seed: int = 0) -> ElasticSimulation:
    simulation = ElasticSimulation(arrivals, where, POLICY, policy, seed=seed)
    simulation.run()
    return simulation
