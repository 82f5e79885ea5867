"""How long the engine stands empty between packs: `python -m tests.bench.bench_bubble [--packs 50]`.

A real chat model, one worker and the whole local stack, as `nightrate run` has them; packs of the smallest
size the scheduler makes, so that there are as many borders as there can be. Every figure comes from
Postgres: what attempts say of themselves, and beside it what the ledger says of the same worker's time.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from pipeline.app.batches import store_input, submit
from pipeline.app.stack import Stack
from pipeline.domain.lifecycle import BatchState
from pipeline.entrypoints.cli.metering import meters_document
from scheduler.policy import Policy
from storage.meters import MeterRepository
from tests.bench.bench_overhead import SYSTEMS, WORDS
from tests.bench.bench_throughput import submission_of
from tests.bench.machine import machine
from tests.bench.stack import running_stack

BUBBLE_SHARE_MAX = 0.01
_LOOK_SECONDS = 0.5

_ATTEMPTS = text("""
    SELECT count(*) AS packs, extract(epoch FROM max(ended_at) - min(started_at)) AS wall_seconds,
           sum(bubble_us) / 1e6 AS bubble_seconds, max(bubble_us) / 1e6 AS bubble_seconds_longest,
           sum(engine_us) / 1e6 AS engine_seconds, sum(cpu_us) / 1e6 AS cpu_seconds,
           sum(engine_steps) AS engine_steps, sum(slot_steps_busy)::float / sum(slot_steps) AS occupancy,
           min(rows_asked) AS rows_least, max(rows_asked) AS rows_most
      FROM attempts WHERE outcome = 'succeeded'
""")

_INSIDE = text("""
    -- The batch's first and last packs fill and drain the engine; what is between them is the steady state.
    SELECT sum(slot_steps_busy)::float / sum(slot_steps) AS occupancy, sum(bubble_us) / 1e6 AS bubble_seconds,
           extract(epoch FROM max(ended_at) - min(started_at)) AS wall_seconds
      FROM (SELECT *, row_number() OVER (ORDER BY started_at) AS rank, count(*) OVER () AS packs
              FROM attempts WHERE outcome = 'succeeded') AS ranked
     WHERE rank BETWEEN 2 AND packs - 1
""")

_LEDGER = text("""
    -- Time between the first and the last span of work, by what the worker did.
    WITH bounds AS (SELECT min(start_us) AS first_us, max(stop_us) AS last_us FROM worker_intervals WHERE kind = 'work')
    SELECT kind, sum(stop_us - start_us) / 1e6 AS seconds FROM worker_intervals, bounds
     WHERE start_us >= first_us AND stop_us <= last_us GROUP BY kind ORDER BY kind
""")


def write_input(path: Path, rows: int, model: str) -> None:
    """Write seeded chat requests of mixed length: 3 to 12 words in, 4 to 12 tokens out."""
    chance = random.Random(20261121)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            words = " ".join(chance.choices(WORDS, k=chance.randrange(3, 13)))
            body = {
                "model": model,
                "messages": [
                    {"role": "system", "content": chance.choice(SYSTEMS)},
                    {"role": "user", "content": f"{number}: {words}"},
                ],
                "max_tokens": chance.randrange(4, 13),
                "temperature": 0,
            }
            line = {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


def measure(stack: Stack, source: Path) -> dict[str, object]:
    """Run the file and return what Postgres says of it."""
    view = submit(stack, submission_of(store_input(stack, source)))
    while not view.state.is_terminal:
        time.sleep(_LOOK_SECONDS)
        view = stack.batches.get(view.batch_id)
    if view.state is not BatchState.COMPLETED:
        raise SystemExit(f"the batch ended {view.state}: {view.errors[:3]}")

    with stack.database.transaction() as connection:
        attempts = {name: _plain(value) for name, value in connection.execute(_ATTEMPTS).one()._mapping.items()}
        inside = {name: _plain(value) for name, value in connection.execute(_INSIDE).one()._mapping.items()}
        ledger = {row.kind: _plain(row.seconds) for row in connection.execute(_LEDGER)}
    wall = sum(ledger.values())
    return {
        "attempts": attempts,
        "between_first_and_last_pack": inside,
        "ledger_seconds": ledger,
        "bubble_share": attempts["bubble_seconds"] / wall,
        "engine_share": attempts["engine_seconds"] / wall,
        "idle_share": ledger.get("idle", 0.0) / wall,
        "tokens": {"input": view.input_tokens, "output": view.output_tokens},
        "output_tokens_per_second": view.output_tokens / wall,
        "shown": meters_document(MeterRepository(stack.database).batch_meters(view.batch_id)),
    }


def _plain(value: object) -> float:
    return round(float(str(value)), 6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", type=int, default=50)
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="a built-in chat model, or any name with --source"
    )
    parser.add_argument("--source", default=None, help="folder or engine:folder of a model to use instead")
    parser.add_argument("--threads", type=int, default=0, help="of the engine; 0: one for each core")
    options = parser.parse_args()
    rows = options.packs * Policy().pack_rows_min
    more: dict[str, object] = {"pack_seconds": 0.001, "threads": options.threads}
    if options.source is not None:
        more["models"] = {options.model: options.source}
    with tempfile.TemporaryDirectory(prefix="nightrate-bench-") as name:
        # The servers' own user has to come through to their data.
        folder = Path(name)
        folder.chmod(0o711)
        write_input(folder / "input.jsonl", rows, options.model)
        with running_stack(folder / "home", workers=1, **more) as stack:
            figures = measure(stack, folder / "input.jsonl")
    share = figures["bubble_share"]
    assert isinstance(share, float)
    report = {
        "benchmark": "bubble",
        "machine": machine(),
        "model": f"another, {Path(options.source).name}" if options.source else options.model,
        "rows": rows,
        **figures,
        "goal_bubble_share_max": BUBBLE_SHARE_MAX,
        "promises_kept": {"bubble": share < BUBBLE_SHARE_MAX},
    }
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
