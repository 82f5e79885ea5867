"""What a fleet's policy is told of a simulation: work left, pools, offers as far as they were seen, workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from pipeline.domain.lifecycle import WorkerState
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize
from pipeline.ports.fleet import (
    ExpectedWork,
    FleetView,
    PaceSource,
    PoolKind,
    UnitPace,
    WorkClass,
    WorkerStanding,
)
from scheduler.prediction.predictions import Predictions
from scheduler.simulate.fleet import Speed
from scheduler.simulate.machines import SimulatedMachine
from scheduler.simulate.scene import ElasticPool, Scene
from scheduler.simulate.sights import Sights
from scheduler.simulate.state import MICROSECONDS, SimulatedBatch

#: Deadlines within this are due together, at the first of them, but for those that are near.
_DEADLINE_US: Final = 300 * MICROSECONDS
_NEAR_US: Final = 2 * 3600 * MICROSECONDS
_Key = tuple[str, Tier, int, bool, int]


def view_of(
    *,
    now: float,
    scene: Scene,
    batches: Iterable[SimulatedBatch],
    predictions: Predictions,
    machines: Collection[SimulatedMachine],
    sights: Sights,
    expected: tuple[ExpectedWork, ...],
) -> FleetView:
    """Return the view of this moment."""
    live: dict[str, float] = defaultdict(float)
    for machine in machines:
        live[machine.offering.name] += now - machine.launched_at
    return FleetView(
        now_us=round(now * MICROSECONDS),
        work=work_of(batches, predictions, now=now),
        pools=tuple(_pool_of(pool, now, predictions, sights, live) for pool in scene.pools),
        workers=tuple(_standing_of(machine) for machine in machines),
        expected=expected,
        spend_micros_per_hour_max=scene.spend_micros_per_hour_max,
    )


def work_of(batches: Iterable[SimulatedBatch], predictions: Predictions, *, now: float) -> tuple[WorkClass, ...]:
    """Return the rows without a result, as large as they are predicted, by who may start and is due together."""
    found: dict[_Key, list[float]] = {}
    for batch in batches:
        backlog = batch.backlog()
        deadline = _due_together(backlog.deadline_at_us, now)
        key = (
            backlog.model,
            backlog.tier,
            deadline,
            backlog.promise is Promise.MADE,
            backlog.hold_until_us or 0,
        )
        size = predictions.size(backlog.left, model=backlog.model, template=batch.arrival.template)
        sums = found.setdefault(key, [0.0, 0.0, 0.0])
        for place, amount in enumerate((size.rows, size.input_tokens, size.output_tokens)):
            sums[place] += amount
    return tuple(
        WorkClass(
            model=model,
            tier=tier,
            deadline_at_us=deadline,
            size=WorkSize(rows=rows, input_tokens=inputs, output_tokens=outputs),
            is_promised=is_promised,
            from_us=from_us,
        )
        for (model, tier, deadline, is_promised, from_us), (rows, inputs, outputs) in sorted(
            found.items(), key=lambda item: (item[0][2], item[0])
        )
    )


def _due_together(deadline_at_us: int, now: float) -> int:
    if deadline_at_us < now * MICROSECONDS + _NEAR_US:
        return deadline_at_us
    return deadline_at_us // _DEADLINE_US * _DEADLINE_US


def _pool_of(
    pool: ElasticPool, now: float, predictions: Predictions, sights: Sights, live: dict[str, float]
) -> PoolKind:
    return PoolKind(
        pool=pool.name,
        offers=tuple(sights.view(each, now, live_seconds=live.get(each.name, 0.0)) for each in pool.offerings),
        paces={model: _pace_of(pool.name, model, speed, predictions) for model, speed in pool.speeds.items()},
        cold_start_seconds=pool.cold_start_seconds,
        workers_min=pool.workers_min,
        workers_max=pool.workers_max,
        tiers=pool.tiers,
    )


def _pace_of(pool: str, model: str, speed: Speed, predictions: Predictions) -> UnitPace:
    """Return what was measured; before that, what a table of machines says, which here is right."""
    if not predictions.is_measured(model, pool):
        return UnitPace(
            row_seconds=speed.row_seconds,
            input_token_seconds=1 / speed.input_tokens_per_second,
            output_token_seconds=1 / speed.output_tokens_per_second,
            source=PaceSource.TABLED,
        )
    row, input_token, output_token = (
        predictions.seconds(size, variant=model, pool=pool, tokens_per_second=1.0) for size in _UNITS
    )
    return UnitPace(row_seconds=row, input_token_seconds=input_token, output_token_seconds=output_token)


_UNITS: Final = (
    WorkSize(rows=1, input_tokens=0, output_tokens=0),
    WorkSize(rows=0, input_tokens=1, output_tokens=0),
    WorkSize(rows=0, input_tokens=0, output_tokens=1),
)


def _standing_of(machine: SimulatedMachine) -> WorkerStanding:
    is_leaving = machine.is_noticed and machine.state in {WorkerState.BOOTING, WorkerState.LOADING}
    return WorkerStanding(
        worker_id=machine.worker_id,
        pool=machine.offering.pool,
        offer=machine.offering.name,
        # Who will be taken while it still boots is never going to work.
        state=WorkerState.DRAINING if is_leaving else machine.state,
        requested_at_us=round(machine.launched_at * MICROSECONDS),
        launched_at_us=round(machine.launched_at * MICROSECONDS),
        ends_by_us=round(machine.ends_by * MICROSECONDS),
        idle_since_us=None if machine.idle_since is None else round(machine.idle_since * MICROSECONDS),
    )
