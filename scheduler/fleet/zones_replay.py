"""A job run through the traces of many zones under a policy, egress and probes paid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scheduler.fleet.jobs import Job, Mode, Moment, after, is_safe
from scheduler.fleet.zones import IDLE, Market, Option, Situation, ZonesPolicy

_DONE_SECONDS = 1e-6
_PROBE_HOURS = 1 / 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ZonesRide:
    """What became of a job, and what of its cost was what."""

    cost: float
    egress_cost: float
    probe_cost: float
    on_demand_cost: float
    starts: int
    is_late: bool
    options: tuple[Option, ...]


def ride(job: Job, market: Market, policy: ZonesPolicy, available: Mapping[str, NDArray[np.bool_]]) -> ZonesRide:
    """Return what the job comes to; a request for spot succeeds where spot is there, and costs nothing where not."""
    now = Situation(tick=0, work_left_seconds=job.work_seconds)
    compute = egress = probes = paid = 0.0
    starts, taken = 0, []
    for tick in range(job.ticks):
        now = _begun(now, tick, available, policy)
        plan = policy.plan(now)
        choice = _taken(plan.options, job, now, market, available, policy)
        if choice not in (IDLE, now.running):
            starts += 1
            egress += market.egress(now.held_in, market.zone(choice.zone or "").region)
        for name in plan.probes:
            is_there = bool(available[name][tick])
            policy.observe(name, tick, is_available=is_there)
            probes += market.zone(name).spot_price * _PROBE_HOURS if is_there else 0.0
        cost = _price(market, choice) * job.tick_seconds / 3600
        compute += cost
        paid += cost if choice.mode is Mode.ON_DEMAND else 0.0
        taken.append(choice)
        now = _after(job, market, now, choice)
        if now.work_left_seconds <= _DONE_SECONDS:
            break
    return ZonesRide(
        cost=compute + egress + probes,
        egress_cost=egress,
        probe_cost=probes,
        on_demand_cost=paid,
        starts=starts,
        is_late=now.work_left_seconds > _DONE_SECONDS,
        options=tuple(taken),
    )


def _begun(now: Situation, tick: int, available: Mapping[str, NDArray[np.bool_]], policy: ZonesPolicy) -> Situation:
    now = replace(now, tick=tick)
    if now.running.mode is not Mode.SPOT or now.running.zone is None:
        return now
    is_there = bool(available[now.running.zone][tick])
    policy.observe(now.running.zone, tick, is_available=is_there)
    return now if is_there else replace(now, running=IDLE, startup_left_seconds=0.0, dwell_ticks=0)


def _taken(
    options: tuple[Option, ...],
    job: Job,
    now: Situation,
    market: Market,
    available: Mapping[str, NDArray[np.bool_]],
    policy: ZonesPolicy,
) -> Option:
    for option in options:
        if option.mode is Mode.SPOT and option != now.running:
            if not is_safe_option(job, now, option):
                continue
            assert option.zone is not None
            is_there = bool(available[option.zone][now.tick])
            policy.observe(option.zone, now.tick, is_available=is_there)
            if not is_there:
                continue
        if is_safe_option(job, now, option):
            return option
    if now.running.mode is Mode.ON_DEMAND:
        return now.running
    return fallback(market, now)


def fallback(market: Market, now: Situation) -> Option:
    """Return on demand where it costs least, or where the data is should moving it not be worth it."""
    best = min(
        market.zones,
        key=lambda zone: (
            zone.on_demand_price * now.work_left_seconds / 3600 + market.egress(now.held_in, zone.region),
            zone.name,
        ),
    )
    return Option(Mode.ON_DEMAND, best.name)


def is_safe_option(job: Job, now: Situation, option: Option) -> bool:
    """Whether on demand still makes the deadline after this option, whatever comes."""
    is_kept = option == now.running
    moment = Moment(
        tick=now.tick,
        work_left_seconds=now.work_left_seconds,
        # A machine elsewhere starts afresh, and so as if nothing ran.
        mode=now.running.mode if is_kept else Mode.IDLE,
        startup_left_seconds=now.startup_left_seconds if is_kept else 0.0,
        is_available=True,
    )
    return is_safe(job, moment, option.mode)


def _after(job: Job, market: Market, now: Situation, choice: Option) -> Situation:
    is_kept = choice == now.running
    moment = Moment(
        tick=now.tick,
        work_left_seconds=now.work_left_seconds,
        mode=choice.mode if is_kept else Mode.IDLE,
        startup_left_seconds=now.startup_left_seconds if is_kept else 0.0,
        is_available=True,
    )
    work, startup = after(job, moment, choice.mode)
    held = now.held_in if choice.zone is None else market.zone(choice.zone).region
    return Situation(
        tick=now.tick + 1,
        work_left_seconds=work,
        running=choice,
        startup_left_seconds=startup,
        held_in=held,
        dwell_ticks=now.dwell_ticks + 1 if is_kept else 1,
    )


def _price(market: Market, choice: Option) -> float:
    if choice.zone is None:
        return 0.0
    zone = market.zone(choice.zone)
    price = zone.spot_price if choice.mode is Mode.SPOT else zone.on_demand_price
    assert math.isfinite(price)
    return price
