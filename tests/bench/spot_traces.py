"""Availability of spot capacity on a grid of ticks: real traces from files, or made up where there are none."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scheduler.fleet.zones import Market, Zone

Traces = dict[str, NDArray[np.bool_]]
#: Dollars to bring a checkpoint of 50 GB to another region, at 0.02 a GB.
EGRESS = 50 * 0.02


def spot_traces(folder: Path, tick_seconds: int) -> Traces:
    """Return each zone's availability: files with `date,availability` (1 = there), or of Can't Be Late (1 = not there)."""
    made = {}
    for path in sorted([*folder.glob("*.csv.gz"), *folder.glob("*.csv")]):
        times, values = _dated(path)
        made[path.name.split(".")[0]] = _on_grid(times, values > 0, tick_seconds)
    for path in sorted(folder.glob("*.json")):
        whole = json.loads(path.read_text(encoding="utf-8"))
        gap = whole["metadata"]["gap_seconds"]
        values = np.array(whole["data"])
        made[path.stem] = _on_grid(np.arange(len(values)) * float(gap), values == 0, tick_seconds)
    if not made:
        raise SystemExit(f"{folder} has neither *.csv, *.csv.gz nor *.json with availability")
    return made


def _dated(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    times = np.array([datetime.fromisoformat(row["date"]).timestamp() for row in rows])
    return times, np.array([float(row["availability"]) for row in rows])


def _on_grid(times: NDArray[np.float64], values: NDArray[np.bool_], tick_seconds: int) -> NDArray[np.bool_]:
    """Return what the last look before each tick found."""
    grid = np.arange(times[0], times[-1] + 1e-6, tick_seconds)
    return np.asarray(values[np.searchsorted(times, grid, side="right") - 1])


def market_and_traces(folder: Path, tick_seconds: int) -> tuple[Market, Traces]:
    """Return zones with prices, and where at least one of the machines asked for could be had."""
    prices = {}
    for path in sorted((folder / "prices").glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        prices[told["region"]] = (told["price"], told["on_demand_price"])
    with next(iter(sorted(folder.glob("capacity_*.csv")))).open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    names = [name for name in rows[0] if name not in {"scheduled_at", "status"}]
    times = np.array([datetime.fromisoformat(row["scheduled_at"]).timestamp() for row in rows])
    traces = {
        name: _on_grid(times, np.array([float(row[name] or 0) > 0 for row in rows]), tick_seconds) for name in names
    }
    zones = []
    for name in names:
        region = name.rpartition("-")[0]
        spot, on_demand = prices[region]
        zones.append(Zone(name=name, region=region, spot_price=spot, on_demand_price=on_demand))
    return Market(zones=tuple(zones), egress_cost=EGRESS), traces


def made_up(zones: int, ticks: int, seed: int = 0) -> Traces:
    """Return zones whose runs and outages have heavy tails, some much better than others."""
    drawn = np.random.default_rng(seed)
    made = {}
    for zone in range(zones):
        run, outage = drawn.uniform(4, 30), drawn.uniform(2, 20)
        values = np.zeros(ticks, dtype=bool)
        at, is_there = 0, bool(drawn.integers(2))
        while at < ticks:
            length = 1 + int((run if is_there else outage) * drawn.pareto(1.5))
            values[at : at + length] = is_there
            at, is_there = at + length, not is_there
        made[f"made-up-{zone}"] = values
    return made


def made_up_market(ticks: int) -> tuple[Market, Traces]:
    """Return six zones in four regions."""
    traces = made_up(6, ticks)
    drawn = np.random.default_rng(1)
    zones = []
    for number, name in enumerate(traces):
        spot = float(drawn.uniform(14, 22))
        zones.append(Zone(name=name, region=f"r{number % 4}", spot_price=spot, on_demand_price=5 * spot))
    return Market(zones=tuple(zones), egress_cost=EGRESS), traces
