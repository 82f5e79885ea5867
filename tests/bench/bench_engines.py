"""Measure chat engines on one set of prompts: Nightrate's three, and the libraries used plainly.

    python -m tests.bench.bench_engines [--threads 2] [--dtype float32] [--only torch openvino]

`auto` is what Nightrate picks here of its engines `torch` and `openvino`; `vllm` is its third, in an environment of its
own (`.venv-vllm/bin/python -m tests.bench.bench_engines --only vllm torch`); `openvino_genai` is that library fed with
all prompts at once, `transformers` its own continuous batching, `naive` one prompt after the other. Greedy, the end
token ignored, so that every engine generates the same number of tokens. Figures are output tokens per second of
generation, loading excluded. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.models import BUILT_IN, EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import EngineRequest
from tests.bench.machine import machine
from workers.bench.workload import mixed_asks
from workers.engine.choice import are_installed
from workers.engine.drive import driven
from workers.engine.models import prepared_folder
from workers.engine.registry import load_engine

PROMPTS = 128
NAIVE_PROMPTS = 4
SPEC = BUILT_IN["smollm2-135m-instruct"]


def workload(count: int) -> list[tuple[str, int]]:
    """Return (prompt, output tokens) pairs of the workload that `nightrate bench engines` and the tuner use."""
    return [(ask.prompt, ask.output_tokens) for ask in islice(mixed_asks(), count)]


def run_auto(pairs: list[tuple[str, int]], args: argparse.Namespace) -> dict[str, Any]:
    spec = ModelSpec(name=SPEC.name, source=SPEC.source, engine=EngineKind.AUTO, options={"ignore_end": True})
    return run_engine(spec, pairs, args)


def run_torch(pairs: list[tuple[str, int]], args: argparse.Namespace) -> dict[str, Any]:
    options = {"ignore_end": True, "slots": args.slots}
    return run_engine(
        ModelSpec(
            name=SPEC.name, source=SPEC.source, engine=EngineKind.TORCH, recipe=Recipe(args.dtype), options=options
        ),
        pairs,
        args,
    )


def run_openvino(pairs: list[tuple[str, int]], args: argparse.Namespace) -> dict[str, Any]:
    options = {"ignore_end": True}
    spec = ModelSpec(name=SPEC.name, source=SPEC.source, engine=EngineKind.OPENVINO, options=options)
    return run_engine(spec, pairs, args)


def run_vllm(pairs: list[tuple[str, int]], args: argparse.Namespace) -> dict[str, Any]:
    options = {"ignore_end": True, "eager": args.eager}
    spec = ModelSpec(
        name=SPEC.name, source=SPEC.source, engine=EngineKind.VLLM, recipe=Recipe(args.dtype), options=options
    )
    return run_engine(spec, pairs, args)


def run_engine(spec: ModelSpec, pairs: list[tuple[str, int]], args: argparse.Namespace) -> dict[str, Any]:
    began_at = time.perf_counter()
    engine = load_engine(spec, cache_dir=args.cache_dir, device=args.device, threads=args.threads)
    load_seconds = time.perf_counter() - began_at
    rows = [
        EngineRequest(
            key,
            Endpoint.CHAT_COMPLETIONS,
            {
                "model": SPEC.name,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": tokens,
                "temperature": args.temperature,
            },
        )
        for key, (prompt, tokens) in enumerate(pairs)
    ]

    def work() -> tuple[int, int]:
        used = made = 0
        for result in driven(engine, rows):
            assert result.status_code == 200, result.body
            used, made = used + result.input_tokens, made + result.output_tokens
        return used, made

    figures = measured(work) | {"load_seconds": round(load_seconds, 1)}
    engine.close()
    return figures


def run_openvino_genai(pairs: list[tuple[str, int]], args: argparse.Namespace) -> dict[str, Any]:
    """Feed the library itself, with the settings that the engine gives it."""
    import numpy as np
    import openvino
    import openvino_genai

    folder = prepared_folder(SPEC.source, cache_dir=args.cache_dir)
    # What `run_openvino` uses too.
    load_engine(
        ModelSpec(name=SPEC.name, source=SPEC.source, engine=EngineKind.OPENVINO), cache_dir=args.cache_dir
    ).close()
    (exported,) = args.cache_dir.glob(f"openvino-*-native-{folder.name}")
    settings = openvino_genai.SchedulerConfig()
    settings.cache_size, settings.max_num_seqs, settings.max_num_batched_tokens = 2, 256, 2048
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        exported, settings, "CPU", {"INFERENCE_NUM_THREADS": args.threads}
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = tokenizer(chat_texts(tokenizer, pairs), add_special_tokens=False)["input_ids"]

    def work() -> tuple[int, int]:
        handles = []
        for key, (ids, (_, tokens)) in enumerate(zip(prompts, pairs, strict=True)):
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens, config.do_sample, config.ignore_eos = tokens, False, True
            handles.append(pipeline.add_request(key, openvino.Tensor(np.array([ids], dtype=np.int64)), config))
        while pipeline.has_non_finished_requests():
            pipeline.step()
        return sum(map(len, prompts)), sum(len(handle.read_all()[0].generated_ids) for handle in handles)

    return measured(work)


def run_transformers(pairs: list[tuple[str, int]], args: argparse.Namespace) -> dict[str, Any]:
    model, prompts = loaded(pairs, args)
    batches = [
        (ids, GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0))
        for ids, (_, tokens) in zip(prompts, pairs, strict=True)
    ]

    def work() -> tuple[int, int]:
        config = GenerationConfig(max_new_tokens=64, do_sample=False, eos_token_id=-1, pad_token_id=0)
        manager = model.init_continuous_batching(generation_config=config)
        manager.start()
        try:
            for ids, one in batches:
                manager.add_request(ids, max_new_tokens=one.max_new_tokens)
            outputs = []
            while len(outputs) < len(batches):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    outputs.append(result)
                assert manager.is_running() or len(outputs) == len(batches)
        finally:
            manager.stop(block=True)
        return sum(map(len, prompts)), sum(len(output.generated_tokens) for output in outputs)

    return measured(work)


def run_naive(pairs: list[tuple[str, int]], args: argparse.Namespace) -> dict[str, Any]:
    model, prompts = loaded(pairs, args)

    def work() -> tuple[int, int]:
        made = 0
        for ids, (_, tokens) in zip(prompts, pairs, strict=True):
            settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
            made += model.generate(torch.tensor([ids]).to(model.device), **settings).shape[1] - len(ids)
        return sum(map(len, prompts)), made

    return measured(work)


def loaded(pairs: list[tuple[str, int]], args: argparse.Namespace) -> tuple[Any, list[list[int]]]:
    folder = prepared_folder(SPEC.source, cache_dir=args.cache_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = getattr(torch, args.dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    if args.device:
        model = model.to(args.device)
    return model, tokenizer(chat_texts(tokenizer, pairs), add_special_tokens=False)["input_ids"]


def chat_texts(tokenizer: Any, pairs: list[tuple[str, int]]) -> list[str]:  # noqa: ANN401 -- transformers has no types
    return [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt, _ in pairs
    ]


def measured(work: Callable[[], tuple[int, int]]) -> dict[str, Any]:
    started, started_cpu = time.perf_counter(), time.process_time()
    used, made = work()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    return {
        "input_tokens": used,
        "output_tokens": made,
        "seconds": round(seconds, 2),
        "output_tokens_per_second": round(made / seconds, 1),
        # With --threads 1 this holds on a busy machine too; with more, waiting threads spin and spoil it.
        "output_tokens_per_cpu_second": round(made / cpu_seconds, 1),
        "tokens_per_second": round((used + made) / seconds, 1),
    }


Run = Callable[[list[tuple[str, int]], argparse.Namespace], dict[str, Any]]
OURS = ("auto", "torch", "openvino", "vllm")
RUNS: dict[str, Run] = {
    "auto": run_auto,
    "torch": run_torch,
    "openvino": run_openvino,
    "vllm": run_vllm,
    "openvino_genai": run_openvino_genai,
    "transformers": run_transformers,
    "naive": run_naive,
}

#: vLLM and OpenVINO have environments of their own each: what is installed here is measured.
_NEEDED = {"openvino": "openvino_genai", "openvino_genai": "openvino_genai", "vllm": "vllm"}
HERE = [name for name in RUNS if name not in _NEEDED or are_installed(_NEEDED[name])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=Path("build/models"), help="where prepared models are kept")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default=None)
    parser.add_argument("--only", nargs="*", choices=list(RUNS), default=HERE)
    parser.add_argument("--eager", action="store_true", help="vLLM compiles nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pairs = workload(args.prompts)
    # Naive decoding costs the same per token whatever the count, so a few prompts measure it.
    parts = {"naive": pairs[:NAIVE_PROMPTS]}
    figures = {name: RUNS[name](parts.get(name, pairs), args) for name in args.only}
    speeds = {name: figure["output_tokens_per_second"] for name, figure in figures.items()}
    report = {
        "benchmark": "engines",
        "machine": machine(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "settings": {"threads": args.threads, "dtype": args.dtype, "slots": args.slots},
        "engines": figures,
        "is_times": {
            name: {other: round(speeds[name] / speed, 2) for other, speed in speeds.items() if other != name}
            for name in OURS
            if name in speeds
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
