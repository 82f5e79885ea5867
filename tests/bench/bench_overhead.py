"""What Nightrate adds to an engine: the wall time of a run on 512 chat requests against the bare engine.

    python -m tests.bench.bench_overhead [--rows 512] [--rounds 3]

Both sides run the same requests in turn, each in a fresh process: the bare engine is fed from a list,
Nightrate is `nightrate run` less its start-up and the seconds its worker spent loading.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.bench.machine import machine

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m-instruct"
WORDS = [
    "the",
    "night",
    "train",
    "left",
    "late",
    "and",
    "every",
    "window",
    "was",
    "dark",
    "while",
    "rain",
    "ran",
    "down",
    "the",
    "glass",
    "a",
    "small",
    "radio",
    "played",
    "songs",
    "from",
    "another",
    "country",
    "until",
    "morning",
    "came",
    "over",
    "the",
    "hills",
]
SYSTEMS = ("You are terse.", "You answer customers kindly in one or two sentences.", "You work with texts.")


def requests(rows: int) -> list[dict[str, object]]:
    """Return seeded chat requests of mixed length: 10 to 120 words in, 16 to 64 tokens out."""
    chance = random.Random(20261121)
    return [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": MODEL,
                "messages": [
                    {"role": "system", "content": chance.choice(SYSTEMS)},
                    {"role": "user", "content": " ".join(chance.choices(WORDS, k=chance.randrange(10, 121)))},
                ],
                "max_tokens": chance.randrange(16, 65),
                "temperature": 0,
            },
        }
        for number in range(rows)
    ]


def bare(rows: int, cache: Path) -> None:
    """Run the requests through the engine alone and print its seconds and tokens."""
    from pipeline.domain.endpoints import Endpoint
    from pipeline.domain.models import BUILT_IN
    from pipeline.ports.engine import EngineRequest
    from workers.engine.registry import load_engine

    engine = load_engine(BUILT_IN[MODEL], cache_dir=cache, threads=os.cpu_count())
    waiting = [
        EngineRequest(key, Endpoint.CHAT_COMPLETIONS, request["body"])  # type: ignore[arg-type]
        for key, request in enumerate(requests(rows))
    ][::-1]
    started = time.monotonic()
    tokens = done = 0
    while done < rows:
        room = engine.room()
        if waiting and room > 0:
            engine.add([waiting.pop() for _ in range(min(room, len(waiting)))])
        for result in engine.step():
            tokens += result.output_tokens
            done += 1
    print(json.dumps({"seconds": time.monotonic() - started, "output_tokens": tokens}))


def nightrate(rows: int, home: Path) -> None:
    """Run the requests by `nightrate run` and print its seconds, less start-up and loading, and tokens.

    They are counted from the batch's creation, which is when the stack is up, to the last byte of the results.
    """
    from tests.bench.usage import watched_usage

    source, output = home / "requests.jsonl", home / "results.jsonl"
    source.write_text("".join(json.dumps(request) + "\n" for request in requests(rows)), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline.entrypoints.cli", "run", str(source), "--json", "--force"]
    settings = {"NIGHTRATE_HOME": str(home / "home"), "NIGHTRATE_WORKERS": "1"}
    with watched_usage(every_seconds=2.0) as usage:
        done = subprocess.run(
            [*command, "--output", str(output)],
            cwd=ROOT,
            env=os.environ | settings,
            check=True,
            capture_output=True,
            text=True,
        )
    batch = json.loads(done.stdout)
    assert batch["rows"]["completed"] == rows, batch
    seconds = output.stat().st_mtime - datetime.fromisoformat(batch["created_at"]).timestamp()
    load_seconds = sum(item["seconds"] for item in batch["overhead"] if item["kind"] == "load")
    print(
        json.dumps(
            {
                "seconds": round(seconds - load_seconds, 3),
                "load_seconds": load_seconds,
                "output_tokens": batch["tokens"]["output"],
                "cost_micros": batch["cost_micros"],
                "cpu_seconds": usage.cpu_by_kind(),
            }
        )
    )


def _run_side(side: str, rows: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.bench_overhead", "--side", side, "--rows", str(rows)]
    done = subprocess.run([*command, "--folder", str(folder)], cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run both sides in turn and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["bare", "nightrate"])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.side == "bare":
        bare(arguments.rows, arguments.folder / "models")
        return
    if arguments.side == "nightrate":
        nightrate(arguments.rows, arguments.folder)
        return
    rounds = []
    with tempfile.TemporaryDirectory(prefix="nightrate-bench-") as folder:
        for number in range(arguments.rounds):
            sides = {side: _run_side(side, arguments.rows, Path(folder)) for side in ("bare", "nightrate")}
            rounds.append(sides)
            print(f"round {number + 1}: {sides}", file=sys.stderr)
    medians = {side: statistics.median(found[side]["seconds"] for found in rounds) for side in ("bare", "nightrate")}
    report = {
        "benchmark": "overhead",
        "rows": arguments.rows,
        "rounds": rounds,
        "bare_seconds": medians["bare"],
        "nightrate_seconds": medians["nightrate"],
        "ratio": statistics.median(found["nightrate"]["seconds"] / found["bare"]["seconds"] for found in rounds),
        "goal_ratio_max": 1.05,
        "machine": machine(),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
