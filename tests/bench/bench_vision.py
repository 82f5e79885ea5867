"""Measure the vision engine on JPEG files: Nightrate's, and transformers' own pipeline used plainly, in one run.

    python -m tests.bench.bench_vision [--images 256] [--rounds 3] [--threads 2] [--device cpu] [--scale tiny]

The model has the shape of ViT-Tiny (or ViT-Base with `--scale base`) at 224 pixels and random weights: what it says
means nothing, what it costs is real. The files are photographs' size, drawn from a seed, and stand in the requests as
base64, as batches have them; the pipeline gets their paths, which spares it that.

* `nightrate`: the engine as it comes; `nightrate_int8` with linear layers in 8-bit integers, on CPUs.
* `pipeline_1`, `pipeline_8`, …: `pipeline("image-classification", batch_size=…)` over the paths.

Each round runs all of them, loading excluded. Prints one JSON object: images per second, the median of the rounds and
the best, and how many times the best of the library each of ours is.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
from transformers.pipelines.image_classification import ImageClassificationPipeline

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import EngineRequest
from tests.bench.machine import machine
from workers.engine.drive import driven
from workers.engine.registry import load_engine

SCALES = {
    "tiny": {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
SIZES = [(640, 480), (500, 375), (1024, 683), (333, 500)]
LABELS = 1000
#: The best label of each image, in order.
Run = Callable[[list[Path]], list[str]]


def photographs(folder: Path, count: int) -> list[Path]:
    """Draw pictures with large shapes and fine noise, which compress about as photographs do."""
    files = []
    for number in range(count):
        rng = np.random.default_rng(number)
        width, height = SIZES[number % len(SIZES)]
        shapes = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
        noise = rng.normal(0, 8, (height, width, 3))
        pixels = np.clip(np.asarray(shapes) + noise, 0, 255).astype(np.uint8)
        files.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=85)
    return files


def model_folder(folder: Path, scale: str) -> Path:
    torch.manual_seed(1)
    config = ViTConfig(**SCALES[scale], image_size=224, patch_size=16, num_labels=LABELS)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)
    return folder


def nightrate(folder: Path, args: argparse.Namespace, recipe: Recipe) -> Run:
    spec = ModelSpec(name="vit", source=str(folder), engine=EngineKind.VISION, recipe=recipe)
    engine = load_engine(spec, cache_dir=folder / "cache", device=args.device, threads=args.threads)

    def request(key: int, file: Path) -> EngineRequest:
        url = f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"
        part = {"type": "image_url", "image_url": {"url": url}}
        return EngineRequest(key, Endpoint.CLASSIFY, {"model": "vit", "input": part})

    def run(files: list[Path]) -> list[str]:
        labels = [""] * len(files)
        for result in driven(engine, (request(key, file) for key, file in enumerate(files))):
            assert result.status_code == 200, result.body
            labels[result.key] = result.body["data"][0]["label"]
        return labels

    return run


def library(folder: Path, args: argparse.Namespace, batch_size: int) -> Run:
    # What `pipeline("image-classification")` makes; that function asks for torchvision where there is none.
    classify = ImageClassificationPipeline(
        model=ViTForImageClassification.from_pretrained(folder).eval(),
        image_processor=ViTImageProcessorPil.from_pretrained(folder),
        device=args.device,
    )

    def run(files: list[Path]) -> list[str]:
        torch.set_num_threads(args.threads)
        answers = classify([str(file) for file in files], batch_size=batch_size, top_k=1)
        return [str(answer[0]["label"]) for answer in answers]

    return run


def measure(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    files = photographs(folder, args.images)
    source = model_folder(folder / "model", args.scale)
    runs = {"nightrate": nightrate(source, args, Recipe.NATIVE)}
    if args.device == "cpu":
        runs["nightrate_int8"] = nightrate(source, args, Recipe.INT8)
    runs |= {f"pipeline_{size}": library(source, args, size) for size in args.batch_sizes}
    clock: dict[str, list[float]] = {name: [] for name in runs}
    labels: dict[str, list[str]] = {}
    for name, run in runs.items():
        labels[name] = run(files)  # also the warm-up
        print(f"{name} is warm", file=sys.stderr)
    for _ in range(args.rounds):
        for name, run in runs.items():
            began_at = time.perf_counter()
            run(files)
            clock[name].append(time.perf_counter() - began_at)
    reference = labels[f"pipeline_{args.batch_sizes[0]}"]
    return {
        name: {
            "images_per_second": round(len(files) / statistics.median(clock[name]), 1),
            "images_per_second_at_best": round(len(files) / min(clock[name]), 1),
            "seconds": [round(value, 2) for value in clock[name]],
            "labels_as_the_library": round(float(np.mean(np.array(labels[name]) == np.array(reference))), 4),
        }
        for name in runs
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scale", choices=sorted(SCALES), default="tiny")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, Path(folder))
    plain = [name for name in figures if name.startswith("pipeline")]
    ours = [name for name in figures if name not in plain]
    ratios: dict[str, Any] = {}
    for key in ("images_per_second", "images_per_second_at_best"):
        best = max(plain, key=lambda name: figures[name][key])
        ratios[key] = {"best_of_the_library": best} | {
            name: round(figures[name][key] / figures[best][key], 2) for name in ours
        }
    report = {
        "benchmark": "vision",
        "machine": machine(),
        "settings": {name: getattr(args, name) for name in ("images", "rounds", "threads", "device", "scale")},
        "engines": figures,
        "is_times_best_of_the_library": ratios,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
