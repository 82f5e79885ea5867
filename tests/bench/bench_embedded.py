"""Print how long the embedded servers take to start, as JSON.

Cold: an empty folder, so PostgreSQL's data is made first. Warm: the same folder again. The clock runs
from the order to start until both servers answer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from infra.embedded.folder import DataFolder
from infra.embedded.supervisor import Supervisor
from tests.bench.machine import machine


def timed_run(home: Path) -> tuple[float, float]:
    """Start and stop once; return the seconds of each."""
    began = time.perf_counter()
    with Supervisor(DataFolder(home)):
        ready = time.perf_counter()
    return ready - began, time.perf_counter() - ready


def figures(seconds: list[float]) -> dict[str, float | list[float]]:
    """Return median, worst and every run."""
    return {
        "median_seconds": round(statistics.median(seconds), 3),
        "max_seconds": round(max(seconds), 3),
        "runs_seconds": [round(value, 3) for value in seconds],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    cold: list[float] = []
    warm: list[float] = []
    stop: list[float] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="nightrate-bench-") as folder:
            home = Path(folder) / "home"
            for starts in (cold, warm):
                start_seconds, stop_seconds = timed_run(home)
                starts.append(start_seconds)
                stop.append(stop_seconds)
    report = {
        "benchmark": "embedded_start",
        "machine": machine(),
        "is_root": os.geteuid() == 0,
        "cold_start": figures(cold),
        "warm_start": figures(warm),
        "stop": figures(stop),
    }
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
