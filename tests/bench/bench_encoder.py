"""Measure the encoder engine on mixed sentences: Nightrate's, and the libraries used plainly, in one run.

    python -m tests.bench.bench_encoder [--sentences 5000] [--rounds 3] [--threads 2] [--only …]

`nightrate_int8` is the recipe `int8`, `nightrate_float32` the engine as it comes where OpenVINO is installed. The others get the
texts sorted by length in batches of 32, pool by mean and normalize:

* `sentence_transformers`: that package where it is installed, else the loop of its `encode` on transformers.
* `torch_dynamic_int8`: the same with torch's own `quantize_dynamic`.
* `openvino_float32`, `openvino_int8` (NNCF, weights and activations), `openvino_int8_weights`: one request at a time,
  all threads in it; with `_async` one stream a thread, as many requests as OpenVINO asks for.

ONNX Runtime is not among them: optimum's exporter for it excludes the transformers used here. The report says whether
it is installed.

Each round runs all of them, tokenization included, from texts to vectors, loading excluded. Prints one JSON object.
Seconds on the clock are what counts, the median of the rounds. On a busy machine the fastest round and the seconds of
the processor say more; the latter are not comparable for those whose threads wait by spinning, which are marked.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from transformers import AutoModel, AutoTokenizer

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.models import BUILT_IN, EngineKind, ModelSpec
from pipeline.domain.models import Recipe as VariantRecipe
from pipeline.ports.engine import EngineRequest
from tests.bench.machine import machine
from tests.bench.sentences import sentences
from workers.engine.drive import driven
from workers.engine.encoder.openvino_export import FILE, Recipe, Task, export
from workers.engine.models import content_hash, prepared_folder, published
from workers.engine.registry import load_engine

SPEC = BUILT_IN["all-minilm-l6-v2"]
BATCH = 32

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Run = Callable[[list[str]], Vectors]
Batches = Iterator[tuple[list[int], dict[str, np.ndarray[Any, Any]]]]


# --- Nightrate ---------------------------------------------------------------------------------


def nightrate(args: argparse.Namespace, recipe: VariantRecipe = VariantRecipe.NATIVE, **options: str) -> Run:
    spec = ModelSpec(name=SPEC.name, source=SPEC.source, engine=EngineKind.ENCODER, recipe=recipe, options=options)
    engine = load_engine(spec, cache_dir=args.cache_dir, device="cpu", threads=args.threads)

    def run(texts: list[str]) -> Vectors:
        rows = [
            EngineRequest(key, Endpoint.EMBEDDINGS, {"model": SPEC.name, "input": text})
            for key, text in enumerate(texts)
        ]
        vectors: list[Any] = [None] * len(rows)
        for result in driven(engine, rows):
            assert result.status_code == 200, result.body
            vectors[result.key] = result.body["data"][0]["embedding"]
        return np.array(vectors, dtype=np.float32)

    return run


# --- the libraries -----------------------------------------------------------------------------


def sentence_transformers(args: argparse.Namespace) -> Run:
    folder = prepared_folder(SPEC.source, cache_dir=args.cache_dir)
    if importlib.util.find_spec("sentence_transformers") is None:
        return on_torch(AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), args)
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]

    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: np.asarray(model.encode(texts, batch_size=BATCH, normalize_embeddings=True))


def torch_dynamic_int8(args: argparse.Namespace) -> Run:
    folder = prepared_folder(SPEC.source, cache_dir=args.cache_dir)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return on_torch(torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8), args)


def on_torch(model: Any, args: argparse.Namespace) -> Run:  # noqa: ANN401 -- transformers has no types
    tokenizer = AutoTokenizer.from_pretrained(prepared_folder(SPEC.source, cache_dir=args.cache_dir))

    def run(texts: list[str]) -> Vectors:
        torch.set_num_threads(args.threads)
        vectors: list[Any] = [None] * len(texts)
        for places, batch in batches(tokenizer, texts):
            given = {name: torch.from_numpy(values) for name, values in batch.items()}
            with torch.inference_mode():
                hidden = model(**given).last_hidden_state
                mask = given["attention_mask"].unsqueeze(-1).expand(hidden.size()).float()
                pooled = (hidden * mask).sum(1) / torch.clamp(mask.sum(1), min=1e-9)
                found = torch.nn.functional.normalize(pooled, dim=1).numpy()
            for place, vector in zip(places, found, strict=True):
                vectors[place] = vector
        return np.array(vectors)

    return run


def on_openvino(args: argparse.Namespace, recipe: Recipe, *, is_async: bool) -> Run:
    folder = prepared_folder(SPEC.source, cache_dir=args.cache_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    exported = published(
        args.cache_dir / f"bench-{openvino.__version__.partition('-')[0]}-{recipe}-{content_hash(folder)}",
        lambda work: export(folder, work, task=Task.VECTORS, recipe=recipe),
    )
    settings = {"NUM_STREAMS": args.threads if is_async else 1, "INFERENCE_NUM_THREADS": args.threads}
    compiled = openvino.Core().compile_model(exported / FILE, "CPU", settings)
    requests = openvino.AsyncInferQueue(compiled, 0 if is_async else 1)

    def run(texts: list[str]) -> Vectors:
        vectors: list[Any] = [None] * len(texts)

        def done(request: Any, given: Any) -> None:  # noqa: ANN401 -- openvino has no types
            places, mask = given
            hidden = request.get_output_tensor(0).data
            pooled = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            found = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
            for place, vector in zip(places, found.astype(np.float32), strict=True):
                vectors[place] = vector

        requests.set_callback(done)
        for places, batch in batches(tokenizer, texts):
            requests.start_async(batch, (places, batch["attention_mask"]))
            if not is_async:
                requests.wait_all()
        requests.wait_all()
        return np.array(vectors)

    return run


def batches(tokenizer: Any, texts: list[str]) -> Batches:  # noqa: ANN401 -- transformers has no types
    """Yield batches as sentence-transformers does: sorted by characters, the longest first, each tokenized in turn."""
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        encoded = tokenizer([texts[place] for place in places], padding=True, truncation=True, return_tensors="np")
        yield places, {name: values.astype(np.int64) for name, values in encoded.items()}


# --- the comparison ----------------------------------------------------------------------------

Make = Callable[[argparse.Namespace], Run]
OURS = ("nightrate_int8", "nightrate_float32")
#: Their threads spin while they wait, so that their processor seconds say little.
SPINNING = ("sentence_transformers", "torch_dynamic_int8")
MAKERS: dict[str, Make] = {
    "nightrate_int8": lambda args: nightrate(args, VariantRecipe.INT8),
    "nightrate_float32": lambda args: nightrate(args, VariantRecipe.FLOAT32, backend="openvino"),
    "sentence_transformers": sentence_transformers,
    "torch_dynamic_int8": torch_dynamic_int8,
    "openvino_float32": lambda args: on_openvino(args, Recipe.FLOAT32, is_async=False),
    "openvino_float32_async": lambda args: on_openvino(args, Recipe.FLOAT32, is_async=True),
    "openvino_int8": lambda args: on_openvino(args, Recipe.INT8, is_async=False),
    "openvino_int8_async": lambda args: on_openvino(args, Recipe.INT8, is_async=True),
    "openvino_int8_weights_async": lambda args: on_openvino(args, Recipe.INT8_WEIGHTS, is_async=True),
}


def reference(texts: list[str], args: argparse.Namespace) -> Vectors:
    folder = prepared_folder(SPEC.source, cache_dir=args.cache_dir)
    return on_torch(AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), args)(texts)


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    texts = sentences(args.sentences)
    expected = reference(texts, args)
    runs = {name: MAKERS[name](args) for name in args.only}
    clock: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    likeness: dict[str, Vectors] = {}
    for name, run in runs.items():
        likeness[name] = (run(texts) * expected).sum(axis=1)  # also the warm-up
        print(f"{name} is warm", file=sys.stderr)
    for _ in range(args.rounds):
        for name, run in runs.items():
            started, started_cpu = time.perf_counter(), time.process_time()
            run(texts)
            clock[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - started_cpu)
    return {
        name: {
            "sentences_per_second": round(len(texts) / statistics.median(clock[name]), 1),
            "sentences_per_cpu_second": round(len(texts) / statistics.median(processor[name]), 1),
            "sentences_per_second_at_best": round(len(texts) / min(clock[name]), 1),
            "seconds": [round(value, 2) for value in clock[name]],
            "mean_cosine": round(float(likeness[name].mean()), 5),
            "least_cosine": round(float(likeness[name].min()), 5),
            **({"threads_spin": True} if name in SPINNING else {}),
        }
        for name in runs
    }


def is_times_best(figures: dict[str, dict[str, Any]], key: str, libraries: list[str]) -> dict[str, Any]:
    """Return how many times as fast as the best of `libraries` each of ours is, by the figure `key`."""
    if not libraries:
        return {}
    best = max(libraries, key=lambda name: figures[name][key])
    ratios = {name: round(figures[name][key] / figures[best][key], 2) for name in OURS if name in figures}
    return {"best_library": best, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=Path("build/models"), help="where prepared models are kept")
    parser.add_argument("--sentences", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(MAKERS), default=list(MAKERS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = measure(args)
    libraries = [name for name in figures if name not in OURS]
    still = [name for name in libraries if name not in SPINNING]
    good = [name for name in libraries if figures[name]["mean_cosine"] >= 0.99]
    report = {
        "benchmark": "encoder",
        "machine": machine(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "settings": {"threads": args.threads, "sentences": args.sentences, "rounds": args.rounds, "model": SPEC.name},
        "installed": {
            name: importlib.util.find_spec(name) is not None for name in ("sentence_transformers", "onnxruntime")
        },
        "engines": figures,
        "is_times_best_of_the_libraries": is_times_best(figures, "sentences_per_second", libraries),
        "is_times_best_by_fastest_rounds": is_times_best(figures, "sentences_per_second_at_best", libraries),
        "is_times_best_at_cosine_0.99": is_times_best(figures, "sentences_per_second", good),
        "is_times_best_by_cpu_seconds": is_times_best(figures, "sentences_per_cpu_second", still),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
