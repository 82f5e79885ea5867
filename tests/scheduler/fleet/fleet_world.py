"""A small world for policies of the fleet: machines that start and are taken, and work that is done first due first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pipeline.domain.costs.prices import Market
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize
from pipeline.ports.fleet import (
    FleetPlan,
    FleetPolicy,
    FleetView,
    OfferView,
    PoolKind,
    UnitPace,
    WorkClass,
    WorkerStanding,
)

US = 1_000_000
HOUR = 3600
ON_DEMAND_MICROS = 3_060_000
SPOT_MICROS = 973_100


def steady_offer(name: str = "steady", pool: str = "pool", **changes: object) -> OfferView:
    made = OfferView(offer=name, pool=pool, market=Market.ON_DEMAND, rate_micros_per_hour=ON_DEMAND_MICROS)
    return replace(made, **changes)  # type: ignore[arg-type]


def spot_offer(name: str = "spot", pool: str = "pool", **changes: object) -> OfferView:
    made = OfferView(
        offer=name,
        pool=pool,
        market=Market.SPOT,
        rate_micros_per_hour=SPOT_MICROS,
        lifetime_seconds=4 * HOUR,
        is_available=True,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def pool_kind(*offers: OfferView, **changes: object) -> PoolKind:
    made = PoolKind(
        pool="pool",
        offers=offers or (steady_offer(), spot_offer()),
        paces={"model": UnitPace(output_token_seconds=1.0)},
        cold_start_seconds=300.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def work_class(seconds: float, due_seconds: float, **changes: object) -> WorkClass:
    made = WorkClass(
        model="model",
        tier=Tier.BULK,
        deadline_at_us=round(due_seconds * US),
        size=WorkSize(rows=1, input_tokens=0, output_tokens=seconds),
        is_promised=True,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def standing(number: int, offer: str | None = "steady", **changes: object) -> WorkerStanding:
    made = WorkerStanding(
        worker_id=WorkerId(f"wrk_{number}"),
        pool="pool",
        offer=offer,
        state=WorkerState.READY,
        requested_at_us=-10 * HOUR * US,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def fleet_view(
    work: Sequence[WorkClass] = (),
    workers: Sequence[WorkerStanding] = (),
    *,
    pools: Sequence[PoolKind] = (),
    now_seconds: float = 0.0,
    **changes: object,
) -> FleetView:
    made = FleetView(
        now_us=round(now_seconds * US),
        work=tuple(work),
        pools=tuple(pools) or (pool_kind(),),
        workers=tuple(workers),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def applied(view: FleetView, plan: FleetPlan) -> FleetView:
    """Return the view as it is when the plan was carried out, and no time has passed."""
    gone = {stop.worker_id for stop in plan.stops}
    pools = {offer.offer: pool.pool for pool in view.pools for offer in pool.offers}
    workers = [
        replace(worker, state=WorkerState.DRAINING) if worker.worker_id in gone else worker for worker in view.workers
    ]
    for start in plan.starts:
        workers += [
            WorkerStanding(
                worker_id=WorkerId(f"new_{start.offer}_{start.reason}_{len(workers) + number}"),
                pool=pools[start.offer],
                offer=start.offer,
                state=WorkerState.REQUESTED,
                requested_at_us=view.now_us,
            )
            for number in range(start.count)
        ]
    return replace(view, workers=tuple(workers))


@dataclass(slots=True, kw_only=True)
class World:
    """One pool that a policy runs; every worker takes exactly the pool's cold start."""

    policy: FleetPolicy
    pool: PoolKind
    step_seconds: int = 60
    now_seconds: int = 0
    spend_max: int | None = None
    #: Seconds left and deadline.
    work: list[list[float]] = field(default_factory=list)
    workers: dict[WorkerId, WorkerStanding] = field(default_factory=dict)
    late_seconds: float = 0.0
    cost_micros: float = 0.0
    started: int = 0
    done_seconds: float = 0.0
    lived_seconds: float = 0.0

    def add(self, seconds: float, due_seconds: float) -> None:
        self.work.append([due_seconds, seconds])
        self.work.sort()

    def view(self) -> FleetView:
        return fleet_view(
            [work_class(seconds, due) for due, seconds in self.work],
            list(self.workers.values()),
            pools=[self.pool],
            now_seconds=self.now_seconds,
            spend_micros_per_hour_max=self.spend_max,
        )

    def step(self, *, is_available: bool, takes: Callable[[WorkerStanding], bool] = lambda _: False) -> FleetPlan:
        """Decide, carry it out where there is capacity, and let a step pass; `takes` says which spot workers are lost."""
        offers = tuple(
            replace(offer, is_available=is_available) if offer.market is Market.SPOT else offer
            for offer in self.pool.offers
        )
        self.pool = replace(self.pool, offers=offers)
        spot = {offer.offer for offer in offers if offer.market is Market.SPOT}
        for worker in list(self.workers.values()):
            if worker.offer in spot and (not is_available or takes(worker)):
                del self.workers[worker.worker_id]
        plan = self.policy.decide(self.view())
        for stop in plan.stops:
            del self.workers[stop.worker_id]
        for start in plan.starts:
            for _ in range(start.count if is_available or start.offer not in spot else 0):
                self.started += 1
                made = standing(
                    self.started,
                    start.offer,
                    state=WorkerState.BOOTING,
                    requested_at_us=self.now_seconds * US,
                )
                self.workers[made.worker_id] = made
        self._run()
        return plan

    def _run(self) -> None:
        ends = self.now_seconds + self.step_seconds
        rates = {offer.offer: offer.rate_micros_per_hour for offer in self.pool.offers}
        for worker in list(self.workers.values()):
            ready = worker.requested_at_us / US + self.pool.cold_start_seconds
            able = max(0.0, ends - max(self.now_seconds, ready))
            used = self._work(able)
            state = WorkerState.READY if ends >= ready else WorkerState.BOOTING
            idle = None if used > 0 or state is WorkerState.BOOTING else worker.idle_since_us or self.now_seconds * US
            self.workers[worker.worker_id] = replace(worker, state=state, idle_since_us=idle)
            self.cost_micros += rates.get(worker.offer or "", 0) * self.step_seconds / HOUR
            self.lived_seconds += self.step_seconds
            self.done_seconds += used
        self.now_seconds = ends
        self.late_seconds += sum(seconds for due, seconds in self.work if due <= ends)
        self.work = [each for each in self.work if each[0] > ends]

    def _work(self, able: float) -> float:
        used = 0.0
        while able > 1e-6 and self.work:
            part = min(able, self.work[0][1])
            self.work[0][1] -= part
            able, used = able - part, used + part
            if self.work[0][1] <= 1e-6:
                self.work.pop(0)
        return used
