"""Measure what fourteen days of batches cost under each policy of the fleet, against the least that was possible.

    python -m tests.bench.bench_fleet [--data FOLDER] [--scenes h100,v100] [--workers 6] [--days 14] [--processes 2]

Prints one JSON object; exits 1 where a target is missed. `--data` is a folder with `servegen/`, `h100-gcp-2025/` and
`spot-v100-2023/`; without it demand and spot are made up, and targets do not hold.

Demand is ServeGen's request rates of two models over 14 days, `--workers` worker-seconds a second on average. Four tiers
have 10, 40, 30 and 20 % of it (urgent, standard, bulk, nightly), in the repository's own windows: one hour, and a day. See
`fleet_scenes` for how rates become batches and traces capacity. What is compared:

(a) `fixed`: the least number of on-demand workers, always on, with no deadline missed: found from below, begun at the
    least that a fluid would need.
(b) `queue_length`, looking every 300 s, and (c) `keda_lag`: each as it is usual, on demand, and given spot alone, the
    offers that ours has (cheapest first). Their target of queue seconds for each worker is the longest of a small grid with
    no deadline missed; what was tried before it was given up at the first one.
(d) the lower bound of `scheduler.simulate.fleet_bound`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.domain.costs.prices import Market
from pipeline.ports.fleet import FleetPolicy
from scheduler.fleet.autoscalers import KedaLag, QueueLength
from scheduler.fleet.nightrate import NightrateFleet
from scheduler.fleet.policies import FLEET_POLICIES
from scheduler.fleet.terms import FleetTerms
from scheduler.policy import Policy
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.elastic import ElasticSimulation
from scheduler.simulate.expectations import Expectations
from scheduler.simulate.fleet_bound import _jobs, _most_work, lower_bound
from scheduler.simulate.fleet_record import FleetFigures, figures_of
from scheduler.simulate.plain_fleets import Fixed
from scheduler.simulate.scene import Scene
from tests.bench import fleet_scenes
from tests.bench.machine import machine

TARGETS: Final = (3600.0, 1800.0, 1200.0, 900.0, 600.0, 300.0)
UNDER_FIXED: Final = 0.70
OF_BOUND: Final = 1.25
OURS: Final = "nightrate"
#: Those that have nothing to be tuned.
COUNTING: Final = "nightrate_counting_spot"
SINGLE: Final = (OURS, COUNTING, "greedy", "uniform_progress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One world to run in; processes make it anew, each once."""

    scene: str
    data: str | None
    workers: float
    days: float
    #: Between decisions of the fleet's policy, and of the scheduler; and of a full pack.
    interval_seconds: float = 120.0
    pack_seconds: float = 120.0
    #: A folder where figures are kept, so that a benchmark that was broken off goes on.
    kept: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One policy in it."""

    setting: Setting
    policy: str
    value: float = 0.0
    market: Market | None = None

    @property
    def name(self) -> str:
        """Return what the report calls it."""
        return self.policy + ("_spot" if self.market is Market.SPOT else "")


@cache
def _world(setting: Setting) -> tuple[tuple[Arrival, ...], Scene, Expectations]:
    folder = None if setting.data is None else Path(setting.data)
    made: Callable[..., Scene] = getattr(fleet_scenes, setting.scene)
    scene = made(folder, days=setting.days, interval_seconds=setting.interval_seconds)
    arrivals = fleet_scenes.arrivals(folder, workers=setting.workers, days=setting.days)
    return arrivals, scene, Expectations(arrivals)


def _policy(run: Run, scene: Scene) -> FleetPolicy:
    interval, pack = run.setting.interval_seconds, run.setting.pack_seconds
    # What runs when work comes, what it then runs in, and until anybody looks.
    terms = FleetTerms(step_seconds=interval, margin_seconds=2 * pack + interval)
    match run.policy:
        case "fixed":
            offer = next(name for name, each in scene.offerings.items() if each.market is Market.ON_DEMAND)
            return Fixed(offer=offer, workers=round(run.value))
        case "queue_length":
            return QueueLength(step_seconds=300.0, target_seconds=run.value)
        case "keda_lag":
            return KedaLag(target_seconds=run.value)
        case "nightrate_counting_spot":
            return NightrateFleet(replace(terms, promises_count_spot=True), name=run.policy)
        case name:
            return FLEET_POLICIES[name](terms)


def measured(run: Run) -> dict[str, Any]:
    """Return a run's figures, those kept of an earlier benchmark where there are some."""
    if run.setting.kept is None:
        return _measured(run)
    path = (
        Path(run.setting.kept)
        / f"{run.setting.scene}-{run.setting.days:g}-{run.setting.interval_seconds:g}-{run.name}-{run.value:g}.json"
    )
    if not path.exists():
        path.write_text(json.dumps(_measured(run)), encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _measured(run: Run) -> dict[str, Any]:
    """Run; what misses a deadline is given up, but for ours."""
    arrivals, scene, expectations = _world(run.setting)
    scene = scene if run.market is None else fleet_scenes.only(scene, run.market)
    began = time.process_time()
    simulation = ElasticSimulation(
        arrivals,
        scene,
        Policy(pack_seconds_target=run.setting.pack_seconds, first_pack_seconds=60.0, pack_rows_min=1),
        _policy(run, scene),
        seed=0,
        expectations=expectations,
        is_ended_by_a_miss=run.policy in {"fixed", "queue_length", "keda_lag"},
    )
    record = simulation.run()
    figures = figures_of(simulation.fleet_record)
    print(
        f"{run.setting.scene} {run.name} {run.value:g}: {figures.cost:,.0f}, {figures.missed} missed, "
        f"utilisation {figures.utilisation:.2f}, {time.process_time() - began:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return {
        **_rounded(figures),
        "policy": run.name,
        "value": run.value,
        "interval_seconds": run.setting.interval_seconds,
        "cycles": record.cycles,
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def _rounded(figures: FleetFigures) -> dict[str, Any]:
    def plain(value: Any) -> Any:  # noqa: ANN401 -- whatever figures have
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return round(value, 4) if isinstance(value, float) else value

    return {name: plain(value) for name, value in asdict(figures).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--scenes", default="h100,v100")
    parser.add_argument("--workers", type=float, default=6.0)
    parser.add_argument("--days", type=float, default=float(fleet_scenes.DAYS))
    parser.add_argument("--interval", type=float, default=120.0, help="seconds between decisions")
    parser.add_argument("--pack", type=float, default=120.0, help="seconds of a full pack")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--policies", default="fixed,queue_length,keda_lag,nightrate,nightrate_counting_spot,greedy,uniform_progress"
    )
    parser.add_argument("--keep", type=Path, default=None, help="a folder for the figures of runs that are done")
    given = parser.parse_args(arguments)
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
    data = None if given.data is None else str(given.data)
    policies = given.policies.split(",")
    with ProcessPoolExecutor(given.processes) as pool:
        scenes = [
            _scene(
                Setting(
                    scene=name,
                    data=data,
                    workers=given.workers,
                    days=given.days,
                    interval_seconds=given.interval,
                    pack_seconds=given.pack,
                    kept=None if given.keep is None else str(given.keep),
                ),
                policies,
                pool,
            )
            for name in given.scenes.split(",")
        ]
    is_met = all(each["is_met"] for each in scenes)
    print(
        json.dumps({"machine": machine(), "data": given.data is not None, "is_met": is_met, "scenes": scenes}, indent=1)
    )
    return 0 if is_met or given.data is None else 1


def _scene(setting: Setting, policies: Sequence[str], pool: ProcessPoolExecutor) -> dict[str, Any]:
    arrivals, scene, _ = _world(setting)
    bound = lower_bound(arrivals, scene)
    single = [Run(setting=setting, policy=name) for name in policies if name in SINGLE]
    grids = [
        [Run(setting=_setting_for(setting, market), policy=name, value=value, market=market) for value in TARGETS]
        for name in policies
        if name in {"queue_length", "keda_lag"}
        for market in (Market.ON_DEMAND, Market.SPOT)
    ]
    ours = [pool.submit(measured, run) for run in single]
    searches = [pool.submit(_least, grid) for grid in grids]
    fixed = [pool.submit(_least, _fixed_runs(setting, arrivals, scene))] if "fixed" in policies else []
    tried = [found for each in (*fixed, *searches) for found in each.result()]
    results = [each.result() for each in ours]
    best = _best(tried)
    return {
        "scene": setting.scene,
        "days": setting.days,
        "batches": len(arrivals),
        "interval_seconds": setting.interval_seconds,
        "pack_seconds": setting.pack_seconds,
        "bound": {"cost": round(bound.cost, 2), "seconds_by_price": bound.seconds_by_price},
        "bound_with_nothing_free": round(lower_bound(arrivals, scene, is_free_counted=False).cost, 2),
        "policies": [*results, *best],
        "tried": [
            {key: each[key] for key in ("policy", "value", "interval_seconds", "cost", "missed")} for each in tried
        ],
        **_verdict(results, best, bound.cost, OURS),
        COUNTING: _verdict(results, best, bound.cost, COUNTING),
    }


def _setting_for(setting: Setting, market: Market) -> Setting:
    """Return the setting for a policy that knows nothing of zones: on spot it must ask again before a refusal is forgotten.

    Asking for the cheapest zone whenever its refusal has run out, it would never come to the next.
    """
    often = min(setting.interval_seconds, 120.0) if market is Market.SPOT else setting.interval_seconds
    return replace(setting, interval_seconds=often)


def _fixed_runs(setting: Setting, arrivals: Sequence[Arrival], scene: Scene) -> list[Run]:
    """Return runs of ever more workers, from the least that a fluid would need on."""
    jobs = _jobs(arrivals, scene, fleet_scenes.BIN)
    bins = 1 + max(last for _, last, _ in jobs)
    whole = sum(seconds for _, _, seconds in jobs)
    least = math.ceil(whole / (bins * fleet_scenes.BIN))
    while _most_work(jobs, np.full(bins, least * fleet_scenes.BIN)) < whole - 1:
        least += 1
    return [Run(setting=setting, policy="fixed", value=float(least + more)) for more in range(12)]


def _least(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what was tried: runs in order, from what should cost least on, until one is in time."""
    made = []
    for run in runs:
        made.append(measured(run))
        if not made[-1]["missed"]:
            break
    return made


def _best(tried: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for each in tried:
        if not each["missed"] and each["cost"] < found.get(each["policy"], {"cost": math.inf})["cost"]:
            found[each["policy"]] = each
    return list(found.values())


def _verdict(
    results: Sequence[dict[str, Any]], best: Sequence[dict[str, Any]], bound: float, name: str
) -> dict[str, Any]:
    costs = {each["policy"]: each["cost"] for each in (*best, *results)}
    ours = next((each for each in results if each["policy"] == name), None)
    if ours is None:
        return {"is_met": False}
    others = [cost for other, cost in costs.items() if other.startswith(("queue_length", "keda_lag"))]
    under = 1 - ours["cost"] / costs["fixed"] if "fixed" in costs else None
    return {
        "under_fixed": under,
        "of_bound": ours["cost"] / bound,
        "of_the_next_best": ours["cost"] / min(others) if others else None,
        "is_met": ours["missed"] == 0
        and under is not None
        and under >= UNDER_FIXED
        and all(ours["cost"] < other for other in others)
        and ours["cost"] <= OF_BOUND * bound,
    }


if __name__ == "__main__":
    sys.exit(main())
