"""Measure the likelihood deficit: what the reference makes of the answers of healthy variants and of broken ones.

    python -m tests.bench.bench_shadow [--cache FOLDER] [--items 60] [--threads 2] [--only NAME …]

Prints one JSON object: for each variant and each set of prompts the mean deficit in points, its spread over answers,
the share of answers that equal the reference's, and, where answers are expected, the accuracy.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.models import BUILT_IN, EngineKind, ModelSpec, Recipe
from pipeline.domain.tiers import ACCURACY_MARGIN_POINTS
from pipeline.domain.wealth import Wealth
from pipeline.ports.engine import Engine, EngineResult
from tests.bench.machine import machine
from workers.bench.workload import mixed_asks
from workers.engine.models import prepared_folder
from workers.engine.registry import load_engine
from workers.gate.answer_reader import AnswerReader, Reading
from workers.gate.builtin import chat_set
from workers.gate.contest import answer_of, answers
from workers.gate.expected import Retrieves, plain
from workers.gate.items import Item
from workers.gate.logits import open_reader
from workers.gate.trial import ALPHA

SPEC = BUILT_IN["smollm2-135m-instruct"]
ENDPOINT = Endpoint.CHAT_COMPLETIONS
BROKEN_LAYER = 12
OUTPUT_TOKENS_MAX = 48
BREAKS: dict[str, Callable[[str, torch.Tensor], torch.Tensor]] = {
    "broken: 3 bits": lambda name, weight: rounded(weight, 3) if is_linear(name, weight) else weight,
    "broken: 2 bits": lambda name, weight: rounded(weight, 2) if is_linear(name, weight) else weight,
    "broken: a layer's output scaled by 3": lambda name, weight: (
        weight * 3 if f"layers.{BROKEN_LAYER}.mlp.down_proj" in name else weight
    ),
    "broken: a layer's keys shuffled": lambda name, weight: (
        weight.flip(0) if f"layers.{BROKEN_LAYER}.self_attn.k_proj" in name else weight
    ),
}
HEALTHY: dict[str, tuple[EngineKind, Recipe]] = {
    "itself, other batches": (EngineKind.TORCH, Recipe.FLOAT32),
    "torch bfloat16": (EngineKind.TORCH, Recipe.BFLOAT16),
    "torch int8": (EngineKind.TORCH, Recipe.INT8),
    "openvino int8_weights": (EngineKind.OPENVINO, Recipe.INT8_WEIGHTS),
    "openvino int4_weights": (EngineKind.OPENVINO, Recipe.INT4_WEIGHTS),
}


def is_linear(name: str, weight: torch.Tensor) -> bool:
    return weight.ndim == 2 and "embed" not in name


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the weights rounded to the nearest of 2^bits - 1 levels, one scale a row."""
    top = 2 ** (bits - 1) - 1
    scale = weight.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / top
    return ((weight.float() / scale).round().clamp(-top, top) * scale).to(weight.dtype)


def broken_folder(source: Path, target: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """Copy a model's folder with its weights changed."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            weights = {name: change(name, weight).contiguous() for name, weight in load_file(file).items()}
            save_file(weights, target / file.name, metadata={"format": "pt"})
        elif file.name != "complete.json":
            shutil.copy(file, target / file.name)
    return target


def item_sets(count: int) -> dict[str, list[Item]]:
    def long(temperature: float) -> list[Item]:
        return [
            Item(
                custom_id=f"{index}",
                body={
                    "messages": [{"role": "user", "content": ask.prompt}],
                    "max_tokens": min(ask.output_tokens, OUTPUT_TOKENS_MAX),
                    "temperature": temperature,
                },
                expected=None,
                slice=None,
            )
            for index, ask in enumerate(islice(mixed_asks(), count))
        ]

    return {"short questions": list(chat_set(count=count).items), "long answers": long(0), "drawn answers": long(1)}


def row_of(
    items: Sequence[Item], found: Sequence[EngineResult], own: Sequence[EngineResult], reader: AnswerReader
) -> dict[str, Any]:
    began_at = time.perf_counter()
    read = [reader.read(ENDPOINT, item.body, result.body) for item, result in zip(items, found, strict=True)]
    seconds = time.perf_counter() - began_at
    readings = [reading for reading in read if reading is not None]
    values = 100 * np.array([reading.x for reading in readings])
    same = [plain(answer_of(a)) == plain(answer_of(b)) for a, b in zip(found, own, strict=True)]
    row: dict[str, Any] = {
        "n": len(values),
        "deficit_points": round(float(values.mean()), 4),
        "sd": round(float(values.std(ddof=1)), 4),
        "standard_error": round(float(values.std(ddof=1) / np.sqrt(len(values))), 4),
        "worst": round(float(values.min()), 3),
        "answer_tokens": sum(reading.tokens for reading in readings),
        "texts_equal": round(float(np.mean(same)), 3),
        "seconds_reading": round(seconds, 2),
        "shown_beyond_points": {
            f"{margin:g}": shown_after(readings, margin) for margin in sorted(set(ACCURACY_MARGIN_POINTS.values()))
        },
    }
    expected = [
        item.expected for item in items if item.expected is not None and not isinstance(item.expected, Retrieves)
    ]
    if expected:
        right = [each.is_met(each.read(answer_of(result))) for each, result in zip(expected, found, strict=True)]
        row["accuracy"] = round(float(np.mean(right)), 3)
    return row


def shown_after(readings: Sequence[Reading], margin_points: float) -> int | None:
    """Return the answer after which the loss was shown to be beyond the margin; None where it was not."""
    wealth = Wealth()
    for count, reading in enumerate(readings, start=1):
        wealth = wealth.doubting_at_least(-margin_points / 100, reading.x, reading.bounds)
        if wealth.log_evidence >= math.log(1 / ALPHA):
            return count
    return None


def answered(
    spec: ModelSpec, sets: dict[str, list[Item]], args: argparse.Namespace
) -> dict[str, tuple[list[EngineResult], float]]:
    engine: Engine = load_engine(spec, cache_dir=args.cache, device="cpu", threads=args.threads)
    found = {}
    for name, items in sets.items():
        began_at = time.perf_counter()
        found[name] = (answers(engine, ENDPOINT, items), time.perf_counter() - began_at)
    engine.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("build/models"), help="where prepared models are kept")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = prepared_folder(SPEC.source, cache_dir=args.cache)
    sets = item_sets(args.items)
    specs = {
        name: ModelSpec(
            name=SPEC.name,
            source=str(folder),
            engine=engine,
            recipe=recipe,
            options={"slots": 7} if "itself" in name else {},
        )
        for name, (engine, recipe) in HEALTHY.items()
    }
    own = answered(
        ModelSpec(name=SPEC.name, source=str(folder), engine=EngineKind.TORCH, recipe=Recipe.FLOAT32), sets, args
    )
    reader = AnswerReader.over(folder, open_reader(folder, device="cpu"))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for index, (name, change) in enumerate(BREAKS.items()):
            if args.only and name not in args.only:
                continue
            source = broken_folder(folder, Path(scratch) / f"{index}", change)
            specs[name] = ModelSpec(name=SPEC.name, source=str(source), engine=EngineKind.TORCH, recipe=Recipe.FLOAT32)
        for name in args.only or specs:
            found = answered(specs[name], sets, args)
            for which, (results, seconds) in found.items():
                row = row_of(sets[which], results, own[which][0], reader)
                rows.append(
                    {
                        "variant": name,
                        "prompts": which,
                        **row,
                        "seconds_generating": round(seconds, 2),
                        "seconds_reference_generating": round(own[which][1], 2),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"machine": machine(), "reference": "torch float32", "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
