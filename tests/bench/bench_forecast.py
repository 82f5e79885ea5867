"""Measure how well demand is foreseen, by series of real request rates, against methods that are known.

    python -m tests.bench.bench_forecast [--data FOLDER] [--origins 20] [--theta PYTHON]

Prints one JSON object; exits 1 where a target is missed. `--data` is a folder with `total_rate_10min_14d.csv` and the
`…_client_rates.csv.gz` of ServeGen (Alibaba, arXiv 2505.09999); without it rates are made up, and no target holds.
`--theta` names a Python that has statsforecast (`make .venv-forecast/.run`).

WAPE is the sum of absolute errors over the sum of what came, of each window of 1, 6 and 24 hours after an origin, and
the mean of that over origins and classes. A forecast's figure is what its method says; ours says its
median, which is what least absolute error asks for.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from scheduler.forecast.naive import LastValue, SeasonalNaive
from scheduler.forecast.profiles import LevelProfile
from scheduler.forecast.series import Forecaster, Series
from scheduler.forecast.theta import DynamicTheta

TOTALS = "total_rate_10min_14d.csv"
CLIENTS = ("m-large_client_rates.csv.gz", "m-small_client_rates.csv.gz")
STEP = timedelta(minutes=10)
DAY = 144
HORIZONS = {"1h": 6, "6h": 36, "24h": DAY}
TRAINED_DAYS_MIN = 8
WANTED = {"1h": 0.22, "6h": 0.27, "24h": 0.33}
START = datetime(2024, 1, 1, tzinfo=UTC)
METHODS: dict[str, Forecaster] = {
    each.name: each for each in (LastValue(), SeasonalNaive(), LevelProfile(), DynamicTheta())
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--origins", type=int, default=20)
    parser.add_argument("--theta", default=None)
    parser.add_argument("--only", default=None, help="a method: its figures, without the report around them")
    given = parser.parse_args(arguments)
    if given.only:
        print(json.dumps(measured(METHODS[given.only], classes(given.data)[0], given.origins)))
        return 0
    from tests.bench.machine import machine

    found, left_out = classes(given.data)
    own = [LastValue(), SeasonalNaive(), LevelProfile()]
    methods = {each.name: measured(each, found, given.origins) for each in own}
    if given.theta:
        methods[DynamicTheta().name] = elsewhere(given)
    mean = methods[LevelProfile().name]["wape"]
    slices = (
        {} if given.data is None else {each.name: measured(each, halves(given.data), given.origins) for each in own}
    )
    report = {
        "bench": "forecast",
        "data": "ServeGen" if given.data else "made up",
        "classes": list(found),
        "classes_left_out": left_out,
        "origins": given.origins,
        "wanted_wape": WANTED,
        "methods": methods,
        "random_halves_of_clients": slices,
        "is_met": given.data is None or all(mean[name] <= most for name, most in WANTED.items()),
        "machine": machine(),
    }
    print(json.dumps(report, indent=2))
    return 0 if report["is_met"] else 1


def elsewhere(given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the method that has an environment of its own."""
    asked = [given.theta, "-m", "tests.bench.bench_forecast", "--only", "dynamic_optimized_theta"]
    asked += ["--origins", str(given.origins), *(["--data", str(given.data)] if given.data else [])]
    told = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    figures: dict[str, Any] = json.loads(told)
    return figures


def measured(method: Forecaster, found: dict[str, np.ndarray], origins: int) -> dict[str, Any]:
    """Return a method's figures, as means and by class."""
    by_class = {}
    seconds = []
    for name, values in found.items():
        rows = []
        for origin in np.linspace(TRAINED_DAYS_MIN * DAY, len(values) - DAY, origins).astype(int):
            started = time.perf_counter()
            told = method.forecast(Series(start=START, step=STEP, values=values[:origin]), DAY)
            seconds.append(time.perf_counter() - started)
            actual = values[origin : origin + DAY]
            error = np.abs(told.point - actual)
            is_inside = (told.quantiles[0.1] <= actual) & (actual <= told.quantiles[0.9])
            rows.append(
                [error[:bins].sum() / actual[:bins].sum() for bins in HORIZONS.values() if actual[:bins].sum() > 0]
                + [is_inside[:bins].mean() for bins in HORIZONS.values()]
            )
        whole = np.mean([row for row in rows if len(row) == 2 * len(HORIZONS)], axis=0)
        by_class[name] = whole
    wapes = {name: [float(each) for each in row[: len(HORIZONS)]] for name, row in by_class.items()}
    means = np.mean(list(by_class.values()), axis=0)
    names = list(HORIZONS)
    return {
        "wape": {name: round(float(value), 4) for name, value in zip(names, means, strict=False)},
        "coverage_of_80_percent": {
            name: round(float(value), 3) for name, value in zip(names, means[len(HORIZONS) :], strict=True)
        },
        "seconds_per_fit": round(float(np.median(seconds)), 5),
        "wape_by_class": {
            name: {key: round(value, 4) for key, value in zip(names, row, strict=True)} for name, row in wapes.items()
        },
    }


def classes(data: Path | None) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the series that are long enough, and the names of those that are not."""
    if data is None:
        return made_up(), []
    found = data / TOTALS if (data / TOTALS).exists() else data / "servegen" / TOTALS
    with found.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    names = [name for name in rows[0] if name.endswith("_req_per_s")]
    all_of = {name.removesuffix("_req_per_s"): np.array([float(row[name] or "nan") for row in rows]) for name in names}
    # A class that ends early is padded with nothing to the length of the others.
    long = {
        name: values for name, values in all_of.items() if np.flatnonzero(values)[-1] >= (TRAINED_DAYS_MIN + 1) * DAY
    }
    return long, sorted(set(all_of) - set(long))


def halves(data: Path, each: int = 4) -> dict[str, np.ndarray]:
    """Return rates of random halves of the clients of each file."""
    drawn = Random(0)
    made = {}
    for name in CLIENTS:
        path = data / name if (data / name).exists() else data / "servegen" / name
        clients: dict[str, np.ndarray] = {}
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                rates = clients.setdefault(row["client"], np.zeros(14 * DAY))
                rates[int(float(row["t_s"])) // 600] += float(row["rate_rps"] or 0)
        for number in range(each):
            picked = drawn.sample(sorted(clients), len(clients) // 2)
            made[f"{name.partition('_')[0]}/{number}"] = np.sum([clients[client] for client in picked], axis=0)
    return made


def made_up(days: int = 14) -> dict[str, np.ndarray]:
    """Return rates with days, a level that wanders, and noise."""
    made = {}
    for seed in range(3):
        drawn = np.random.default_rng(seed)
        level = np.zeros(days * DAY)
        for index in range(1, len(level)):
            level[index] = 0.97 * level[index - 1] + 0.06 * drawn.standard_normal()
        made[f"made_up_{seed}"] = 100 * np.exp(level + 0.6 * np.sin(2 * np.pi * np.arange(len(level)) / DAY))
    return made


if __name__ == "__main__":
    sys.exit(main())
