"""Measure what a job with a deadline costs where many zones have spot, rule by rule, against the exact optimum.

    python -m tests.bench.bench_zones [--data FOLDER] [--fit FOLDER] [--starts 12] [--ratios 1.05,1.5] [--zones a,b] [--swap]

Prints one JSON object; exits 1 where the goal is missed or a job is late. `--data` is a folder with `capacity_*.csv` (how
many of the machines asked for could be had, by zone and time) and `prices/*.json`; without it zones are made up, and no
goal holds. What is known of zones is learned from the first half of the days, and everything is reported on the second;
with `--fit`, learned from another folder and reported on all.

The setting is that of SkyNomad's deadline sweep (NSDI '27): 52 hours to the deadline, which is so many times the work;
a start of 12 minutes; 50 GB that follow the job from region to region at $0.02 each; a zone counts as there when at least
one machine could be had; a request that fails is free, and a probe that finds a machine costs a minute of it. Egress takes
no time, for the optimum and for the rules alike.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scheduler.fleet.ladder import Ladder
from scheduler.fleet.optimum import optimum_of_zones
from scheduler.fleet.survival import PoolHistory, Survival, fit
from scheduler.fleet.zones import Market
from scheduler.fleet.zones_policies import ZONES_POLICIES, TableZones
from scheduler.fleet.zones_replay import ride
from tests.bench.bench_spot import halves
from tests.bench.machine import machine
from tests.bench.spot_traces import Traces, made_up_market, market_and_traces

TICK_SECONDS = 600
DEADLINE_HOURS = 52
STARTUP_SECONDS = 720
RATIOS = (1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 3.0)
GOAL = 1.04
DEFAULT = "decision_table"
#: The six that SkyNomad's own sweep is over, two of each continent.
SIX = ("us-central1-a", "us-west1-a", "europe-west1-c", "europe-west3-c", "asia-southeast1-b", "asia-south2-b")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--fit", type=Path, default=None)
    parser.add_argument("--starts", type=int, default=12)
    parser.add_argument("--ratios", default=",".join(str(each) for each in RATIOS))
    parser.add_argument("--zones", default=None, help="only these, such as us-east4-b,us-west1-b")
    parser.add_argument("--swap", action="store_true", help="learn from the second half, and report on the first")
    given = parser.parse_args(arguments)
    market, traces = market_and_traces(given.data, TICK_SECONDS) if given.data else made_up_market(1200)
    learned, told = (market_and_traces(given.fit, TICK_SECONDS)[1], traces) if given.fit else halves(traces)
    if given.swap:
        learned, told = told, learned
    fleet, pools = fit({zone: PoolHistory.of(trace) for zone, trace in learned.items()})
    survivals = {zone.name: pools.get(zone.name, fleet) for zone in market.zones}
    markets = {f"all {len(market.zones)}": market}
    if given.zones:
        markets = {"chosen": replace(market, zones=tuple(market.zone(name) for name in given.zones.split(",")))}
    elif all(name in survivals for name in SIX):
        markets["six"] = replace(market, zones=tuple(market.zone(name) for name in SIX))
    cells = {}
    for name, some in markets.items():
        for ratio in given.ratios.split(","):
            cells[f"{name}:{ratio}"] = measured(float(ratio), some, told, survivals, given.starts)
            print(name, ratio, cells[f"{name}:{ratio}"]["ratio"], file=sys.stderr)
    report = {
        "bench": "zones",
        "data": "h100-gcp" if given.data else "made up",
        "learned_from": "another folder"
        if given.fit
        else f"the {'second' if given.swap else 'first'} half of the days",
        "zones": {
            zone.name: {
                "spot_price": zone.spot_price,
                "on_demand_price": zone.on_demand_price,
                "availability_learned": round(float(learned[zone.name].mean()), 3) if zone.name in learned else None,
                "availability_told": round(float(told[zone.name].mean()), 3),
            }
            for zone in market.zones
        },
        "windows": given.starts,
        "goal": GOAL,
        "cells": cells,
        "is_met": all(
            not any(cell["late"].values()) and (given.data is None or cell["ratio"][DEFAULT] <= GOAL)
            for cell in cells.values()
        ),
        "machine": machine(),
    }
    print(json.dumps(report, indent=2))
    return 0 if report["is_met"] else 1


def measured(
    ratio: float, market: Market, traces: Traces, survivals: Mapping[str, Survival], starts: int
) -> dict[str, Any]:
    """Return the figures of one deadline ratio."""
    job = market.job(
        work_seconds=DEADLINE_HOURS * 3600 / ratio,
        deadline_seconds=DEADLINE_HOURS * 3600.0,
        tick_seconds=TICK_SECONDS,
        startup_seconds=STARTUP_SECONDS,
    )
    length = min(len(traces[zone.name]) for zone in market.zones)
    optima: list[float] = []
    ladder = Ladder.of(job, market, survivals)
    rides: dict[str, list[Any]] = {}
    for start in np.linspace(0, length - job.ticks, starts).astype(int):
        window = {zone.name: traces[zone.name][start : start + job.ticks] for zone in market.zones}
        optima.append(optimum_of_zones(job, market, window))
        for make in ZONES_POLICIES:
            policy = make(job=job, market=market, survivals=survivals)
            if isinstance(policy, TableZones):
                policy.ladder = ladder
            rides.setdefault(policy.name, []).append(ride(job, market, policy, window))
    best = float(np.mean(optima))

    def means(of: str) -> dict[str, float]:
        return {name: round(float(np.mean([getattr(each, of) for each in found])), 2) for name, found in rides.items()}

    return {
        "optimum": round(best, 2),
        "cost": means("cost"),
        "ratio": {
            name: round(float(np.mean([each.cost for each in found])) / best, 4) for name, found in rides.items()
        },
        "late": {name: sum(each.is_late for each in found) for name, found in rides.items()},
        "starts": means("starts"),
        "egress": means("egress_cost"),
        "probes": means("probe_cost"),
        "on_demand": means("on_demand_cost"),
    }


if __name__ == "__main__":
    sys.exit(main())
