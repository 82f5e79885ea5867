"""The least a job could have cost, had all that came been known: exact dynamic programmes over work left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.fleet.jobs import Job, Mode
from scheduler.fleet.survival import Floats
from scheduler.fleet.zones import Market


def optimum(job: Job, available: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Return the least cost of the job over these ticks; infinite where even on demand is late.

    Work is told apart by the greatest common divisor of tick and start-up, in whole seconds: what is done in any tick is
    a multiple of it, and so nothing is approximated.
    """
    tick, startup, work = _grid(job)
    stages = _stages(startup, tick)
    spot = job.price_of_tick(Mode.SPOT)
    on_demand = job.price_of_tick(Mode.ON_DEMAND)
    # Value of work left, by what runs as the tick begins: nothing, spot by stage, on demand by stage.
    late = np.full(work + 1, np.inf)
    late[0] = 0.0
    idle, on_spot, on_paid = late, [late] * len(stages), [late] * len(stages)
    for at in range(job.ticks - 1, -1, -1):
        is_there = at < len(available) and bool(available[at])
        paid_runs = _runs(on_paid, stages, startup, tick, on_demand)
        best = np.minimum(idle, paid_runs[-1])
        spot_runs = _runs(on_spot, stages, startup, tick, spot) if is_there else []
        if is_there:
            best = np.minimum(best, spot_runs[-1])
        best[0] = 0.0
        on_spot = [_zeroed(np.minimum(best, each)) for each in spot_runs[:-1]] if is_there else [best] * len(stages)
        on_paid = [_zeroed(np.minimum(best, each)) for each in paid_runs[:-1]]
        idle = best
    return float(idle[work])


def _grid(job: Job) -> tuple[int, int, int]:
    """Return tick, start-up and work in units."""
    tick, startup = round(job.tick_seconds), round(job.startup_seconds)
    unit = math.gcd(tick, startup)
    return tick // unit, startup // unit, math.ceil(job.work_seconds / unit - 1e-9)


def _stages(startup: int, tick: int) -> list[int]:
    """Return units of start-up that are left when a tick begins."""
    return [0, *range(startup - tick, 0, -tick)]


def _runs(following: Sequence[Floats], stages: list[int], startup: int, tick: int, price: float) -> list[Floats]:
    """Return the value of running for a tick by the stage it begins in, a fresh start last."""
    made = []
    for left in [*stages, startup]:
        rest = max(0, left - tick)
        made.append(price + _worked(following[stages.index(rest)], max(0, tick - left)))
    return made


def _worked(values: Floats, units: int) -> Floats:
    """Return the values after so much work: at each amount left, that of less, and none at none."""
    if units == 0:
        return values
    made = np.empty_like(values)
    made[:units] = 0.0
    made[units:] = values[: len(values) - units] if units < len(values) else []
    return made


def _zeroed(values: Floats) -> Floats:
    values[0] = 0.0
    return values


def optimum_of_zones(job: Job, market: Market, available: Mapping[str, Sequence[bool] | NDArray[np.bool_]]) -> float:
    """Return the least cost of the job over these zones' ticks, moves and starts paid, nothing probed.

    Exact as `optimum` is. The job's own prices are not used: zones have theirs.
    """
    tick, startup, work = _grid(job)
    stages = _stages(startup, tick)
    hours = job.tick_seconds / 3600
    regions = sorted({zone.region for zone in market.zones})
    paid = {
        region: min(zone.on_demand_price for zone in market.zones if zone.region == region) * hours
        for region in regions
    }
    late = np.full(work + 1, np.inf)
    late[0] = 0.0
    # By where the data is when nothing runs; then what runs, by stage.
    idle = dict.fromkeys(regions, late)
    on_spot = {zone.name: [late] * len(stages) for zone in market.zones}
    on_paid = {region: [late] * len(stages) for region in regions}
    nowhere = late
    for at in range(job.ticks - 1, -1, -1):
        paid_runs = {each: _runs(on_paid[each], stages, startup, tick, paid[each]) for each in regions}
        spot_runs = {
            zone.name: _runs(on_spot[zone.name], stages, startup, tick, zone.spot_price * hours)
            for zone in market.zones
            if at < len(available[zone.name]) and available[zone.name][at]
        }
        fresh = {each: paid_runs[each][-1] for each in regions}
        for zone in market.zones:
            if zone.name in spot_runs:
                fresh[zone.region] = np.minimum(fresh[zone.region], spot_runs[zone.name][-1])
        best = {
            held: _zeroed(np.minimum.reduce([idle[held], *(fresh[to] + market.egress(held, to) for to in regions)]))
            for held in regions
        }
        nowhere = _zeroed(np.minimum.reduce([nowhere, *fresh.values()]))
        on_spot = {
            zone.name: [_zeroed(np.minimum(best[zone.region], each)) for each in spot_runs[zone.name][:-1]]
            if zone.name in spot_runs
            else [best[zone.region]] * len(stages)
            for zone in market.zones
        }
        on_paid = {each: [_zeroed(np.minimum(best[each], run)) for run in paid_runs[each][:-1]] for each in regions}
        idle = best
    return float(nowhere[work])
