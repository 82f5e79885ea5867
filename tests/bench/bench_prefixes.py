"""Measure what prefix reuse and intake's order bring, on requests that share three long system prompts.

    python -m tests.bench.bench_prefixes [--rows 2000] [--plain-rows 300] [--threads 2] [--engine auto]

The rows are shuffled, as a file of a data team's would be. `plain` is the engine in file order that computes every
prompt in full, on the first `--plain-rows` of them, because it is slow; `reused` the same order with reuse; `ordered`
the order that intake gives the rows, with reuse, as a worker runs them. Greedy, the end token ignored. Prints one
JSON object; figures are rows per second, loading excluded.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.models import BUILT_IN, EngineKind, ModelSpec
from pipeline.ports.engine import EngineRequest
from tests.bench.bench_prefix_order import locality_of
from tests.bench.machine import machine
from workers.engine.drive import driven
from workers.engine.registry import load_engine

SPEC = BUILT_IN["smollm2-135m-instruct"]
OUTPUT_TOKENS = 16
#: Of about 1.3 tokens each.
SYSTEM_WORDS = 270
ROLES = ("You classify support tickets.", "You extract order data as JSON.", "You translate notes for the night shift.")
RULES = [
    "Answer",
    "in",
    "one",
    "line",
    "and",
    "never",
    "explain.",
    "If",
    "a",
    "field",
    "is",
    "missing",
    "write",
    "none.",
    "Keep",
    "names",
    "as",
    "they",
    "are",
    "written.",
    "Dates",
    "are",
    "day",
    "month",
    "year.",
    "Amounts",
    "have",
    "two",
    "decimals",
    "and",
    "a",
    "currency.",
    "Ignore",
    "greetings",
    "and",
    "signatures.",
]
QUESTIONS = ("The lamp arrived broken", "Where is order", "Please send the invoice for", "The door code changed to")


def workload(rows: int) -> list[dict[str, Any]]:
    """Return shuffled bodies: three system prompts of more than 300 tokens, short questions of their own."""
    rng = random.Random(20261121)
    systems = [f"{role} {' '.join(rng.choice(RULES) for _ in range(SYSTEM_WORDS))}" for role in ROLES]
    return [
        {
            "model": SPEC.name,
            "messages": [
                {"role": "system", "content": rng.choice(systems)},
                {"role": "user", "content": f"{rng.choice(QUESTIONS)} {rng.randrange(10**6)}, case {number}."},
            ],
            "max_tokens": OUTPUT_TOKENS,
            "temperature": 0,
        }
        for number in range(rows)
    ]


def ordered(bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the bodies in the order that intake writes them into shards."""
    found = locality_of(bodies, [len(orjson.dumps(body)) for body in bodies])
    return [bodies[index] for index in found.permutation.tolist()]


def run(bodies: Sequence[dict[str, Any]], args: argparse.Namespace, *, shares_prefixes: bool) -> dict[str, Any]:
    options = {"ignore_end": True, "shares_prefixes": shares_prefixes}
    spec = ModelSpec(name=SPEC.name, source=SPEC.source, engine=EngineKind(args.engine), options=options)
    engine = load_engine(spec, cache_dir=args.cache_dir, device=args.device, threads=args.threads)
    rows = [EngineRequest(key, Endpoint.CHAT_COMPLETIONS, body) for key, body in enumerate(bodies)]
    started, answers = time.perf_counter(), {}
    used = 0
    for result in driven(engine, rows):
        assert result.status_code == 200, result.body
        used += result.input_tokens
        answers[result.key] = result.body["choices"][0]["message"]["content"]
    seconds = time.perf_counter() - started
    engine.close()
    return {
        "engine": engine.name,
        "rows": len(bodies),
        "input_tokens": used,
        "seconds": round(seconds, 2),
        "rows_per_second": round(len(bodies) / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=Path("build/models"), help="where prepared models are kept")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--plain-rows", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", default="auto", choices=("auto", "torch", "openvino"))
    parser.add_argument("--device", default=None)
    args = parser.parse_args()
    bodies = workload(args.rows)
    figures = {
        "plain": run(bodies[: args.plain_rows], args, shares_prefixes=False),
        "reused": run(bodies, args, shares_prefixes=True),
        "ordered": run(ordered(bodies), args, shares_prefixes=True),
    }
    speeds = {name: figure["rows_per_second"] for name, figure in figures.items()}
    report = {
        "benchmark": "prefixes",
        "machine": machine(),
        "settings": {"threads": args.threads, "output_tokens": OUTPUT_TOKENS},
        "runs": figures,
        "ordered_is_times_plain": round(speeds["ordered"] / speeds["plain"], 2),
        "ordered_is_times_reused": round(speeds["ordered"] / speeds["reused"], 2),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
