"""Measure the CUDA engine on a card: right first, then how fast, against transformers and the card's own roofline.

    python -m tests.bench.gpu.bench_gpu --out FOLDER [--parts checks roofline 1b-bfloat16 …] [--seconds 40]

Needs torch, transformers and numpy alone; models are of random weights. Each part runs in a process of its
own under a time limit, and `gpu.json` in the folder is renewed after each: what breaks or takes too long is
in it as an error. `--device cpu --tiny` runs the same parts in seconds, on a model of toy size, in one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from pipeline.domain.models import Recipe
from tests.bench.gpu import checks, ours, roofline, theirs
from tests.bench.gpu.ours import Settings
from tests.bench.machine import machine

SHAPES = ("1b", "8b")
RECIPES = {"bfloat16": Recipe.BFLOAT16, "int8": Recipe.INT8, "float8": Recipe.FLOAT8}
#: The most telling first: time may run out.
SLOTS = (256, 512, 64)
PART_LIMIT_SECONDS = 180.0
#: Of the limit, what starting a process and making a model take.
START_SECONDS = 30.0

Part = Callable[[argparse.Namespace, dict[str, Any]], dict[str, Any]]


def parts_of(shapes: tuple[str, ...]) -> dict[str, Part]:
    """Return every part by name, in the order in which they tell most."""
    parts: dict[str, Part] = {"checks": _checks, "roofline": _roofline}
    for shape in shapes:
        for name, recipe in RECIPES.items():
            parts[f"{shape}-{name}"] = _ours(shape, recipe)
        parts[f"{shape}-transformers-continuous"] = _theirs(shape, theirs.run_continuous)
        parts[f"{shape}-transformers-static"] = _theirs(shape, theirs.run_static)
    return parts


def _checks(args: argparse.Namespace, _: dict[str, Any]) -> dict[str, Any]:
    return checks.run(torch.device(args.device))


def _roofline(args: argparse.Namespace, _: dict[str, Any]) -> dict[str, Any]:
    return roofline.measure(torch.device(args.device), is_tiny=args.tiny)


def _ours(shape: str, recipe: Recipe) -> Part:
    def run(args: argparse.Namespace, before: dict[str, Any]) -> dict[str, Any]:
        card = before.get("roofline", {})
        # A recipe is held against the products of its own type.
        flops = card.get(f"{'bf16' if recipe is Recipe.BFLOAT16 else recipe.value}_tflops")
        copy = card.get("copy_gb_per_second")
        return ours.run(_settings(args, shape, recipe, flops=flops and flops * 1e12, bandwidth=copy and copy * 1e9))

    return run


def _theirs(shape: str, measure: Callable[[Settings], dict[str, Any]]) -> Part:
    return lambda args, _: measure(_settings(args, shape, Recipe.BFLOAT16))


def _settings(args: argparse.Namespace, shape: str, recipe: Recipe, **more: Any) -> Settings:  # noqa: ANN401 -- passed on
    return Settings(
        shape=shape,
        recipe=recipe,
        slots=tuple(args.slots),
        device=torch.device(args.device),
        is_tiny=args.tiny,
        seconds=args.seconds,
        limit=args.limit - START_SECONDS,
        requests=args.requests,
        graphs=not args.no_graphs,
        fuse=not args.no_fuse,
        **more,
    )


def header(device: str) -> dict[str, Any]:
    """Return what the figures were measured on, and when."""
    report: dict[str, Any] = {
        "benchmark": "gpu",
        "machine": machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.startswith("cuda"):
        card = torch.cuda.get_device_properties(device)
        report |= {
            "card": card.name,
            "card_memory_gib": ours.gib(card.total_memory),
            "compute_capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return report


def _driver() -> str:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown: {type(error).__name__}"


# --- running the parts -------------------------------------------------------------------------


def run_here(name: str, args: argparse.Namespace, before: dict[str, Any]) -> dict[str, Any]:
    """Run one part in this process; what breaks is its result."""
    begun = time.perf_counter()
    try:
        figures = parts_of(args.shapes)[name](args, before)
    except Exception as error:  # noqa: BLE001 -- one part's failure must not cost the others
        figures = {"error": f"{type(error).__name__}: {error}"[:2000]}
    return figures | {"part_seconds": round(time.perf_counter() - begun, 1)}


def run_apart(name: str, args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Run one part in a process of its own, so that a crash, a leak or a hang is that part's alone."""
    result = path.with_name(f"{name}.part.json")
    command = [sys.executable, "-m", "tests.bench.gpu.bench_gpu", *args.given, "--one", name, "--result", str(result)]
    begun = time.perf_counter()
    try:
        done = subprocess.run(command, timeout=args.limit, check=False, stdout=sys.stderr)
        figures = json.loads(result.read_text()) if result.exists() else {"error": f"exit code {done.returncode}"}
    except subprocess.TimeoutExpired:
        figures = {"error": f"took more than {args.limit} s"}
    result.unlink(missing_ok=True)
    return figures | {"process_seconds": round(time.perf_counter() - begun, 1)}


def write(path: Path, report: dict[str, Any]) -> None:
    """Replace the report at once, so that whoever stops us finds a whole one."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(report, indent=2) + "\n")
    fresh.replace(path)


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json; an earlier one is added to")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, one process")
    parser.add_argument("--parts", nargs="*", help="default: all")
    parser.add_argument("--slots", nargs="*", type=int, default=None)
    parser.add_argument("--requests", type=int, default=None, help="of the mixed job")
    parser.add_argument("--seconds", type=float, default=None, help="time for each measurement")
    parser.add_argument("--limit", type=float, default=PART_LIMIT_SECONDS, help="time for each part, seconds")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--no-fuse", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(given)
    args.given = list(sys.argv[1:] if given is None else given)
    args.shapes = ("tiny",) if args.tiny else SHAPES
    args.slots = args.slots or ([4] if args.tiny else list(SLOTS))
    args.requests = args.requests or (10 if args.tiny else 2000)
    args.seconds = args.seconds or 20.0
    known = parts_of(args.shapes)
    args.parts = args.parts or list(known)
    if unknown := sorted(set(args.parts) - set(known)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(known)}")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"no {args.device} here; --device cpu --tiny runs anywhere")
    return args


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Run the parts and return the report."""
    args = arguments(given)
    if args.tiny:
        # Toy sizes gain nothing from threads, and lose much to threads that wait by spinning.
        torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "gpu.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    if args.one:
        args.result.write_text(json.dumps(run_here(args.one, args, report.get("parts", {}))))
        return {}
    report = report | header(args.device)
    report["settings"] = {
        "slots": args.slots, "requests": args.requests, "seconds": args.seconds, "tiny": args.tiny,
        "graphs": not args.no_graphs, "fuse": not args.no_fuse,
    }  # fmt: skip
    parts = report.setdefault("parts", {})
    for name in args.parts:
        parts[name] = run_here(name, args, parts) if args.tiny else run_apart(name, args, path)
        write(path, report)
        print(f"{name}: {json.dumps(parts[name])[:600]}", file=sys.stderr, flush=True)
    print(json.dumps(report, indent=2))
    return report


if __name__ == "__main__":
    main()
